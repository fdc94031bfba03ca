"""A study: variants x seeds of train.py, one after another or side by side, and one table.

    python benchmarks/study.py --name sampling --seeds 0 1 2 --parallel 2 \\
        --vary "-qs random" "-qs margin_sampling" "--n_pixels_by_us 0" -- --dataset_name cv ...

What follows `--` are flags of train.py for all runs; each variant adds some, and wins. Flags of a
variant that the run's name does not show become its suffix, so that studies share the runs they
have in common, finished ones included. Runs that differ in nothing before their second round train
the first one once: the others start from a copy of it. Stopped and started again, it goes on where
its runs were. Table, numbers and pictures are written into --out.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from args import asking_kwargs, experiment_name, parse_arguments
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.device import select_device
from utils.errors import InputError, run_program
from utils.files import read_json, write_json, write_text
from utils.flags import DIR_ROOT, unset_flags
from utils.machine import describe_machine
from utils.parsing import Parser, integer, positive, split_at_dashes
from utils.run_groups import (
    ABOUT_POINTS,
    AFTER_THE_FIRST,
    BESIDE_FULL,
    BUDGETS,
    METRICS,
    read_run,
    rounds_of,
)
from utils.runs import (
    NOT_THE_EXPERIMENT,
    as_recorded,
    check_flags,
    record_flags,
    with_digests,
)
from utils.table import report

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
# Flags that a run's name shows.
_IN_NAME = frozenset({"dataset_name", "downsample", "network_name", "backbone", "query_strategy",
                      "n_pixels_by_us", "top_n_percent", "recipe", "seed", "suffix", "debug"})
_CHOOSES_RECIPE = ("--dataset_name", "--p_dataset_config", "--network_name", "--recipe")
_LONG = {"-qs": "--query_strategy"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run: the flags of train.py, as words and parsed, and where it will be."""

    words: list[str]
    flags: argparse.Namespace
    folder: Path

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(TRAIN), *self.words]

    @cached_property
    def recorded(self) -> dict:
        """The flags as the run's args.json has them."""
        return as_recorded(with_digests(vars(self.flags)))

    def is_finished(self) -> bool:
        """Raises InputError if the folder holds a run with other flags."""
        if self.flags.overwrite or not (self.folder / "args.json").exists():
            return False
        if len(read_run(self.folder).rounds) < rounds_of(vars(self.flags)):
            return False
        check_flags(self.folder, flags=self.recorded, free=NOT_THE_EXPERIMENT)
        return True


Summary: TypeAlias = Callable[[Sequence[Job]], tuple[str, dict]]


# --- from variants to runs ----------------------------------------------------------------------


def by_flag(words: Sequence[str]) -> list[list[str]]:
    """Each flag with its values."""
    flags: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not flags:
            name, equals, value = word.partition("=")
            flags.append([_LONG.get(name, name), *[value] * bool(equals)])
        else:
            flags[-1].append(word)
    return flags


def plan(common: Sequence[str], variants: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """The runs, each seed's variants together: what is stopped early has some of each. Raises
    InputError for wrong flags and for variants that are the same run."""
    jobs = [job_of(by_flag(common), by_flag(shlex.split(variant)), seed)
            for seed in seeds for variant in variants]
    for job in jobs:
        if job.flags.labeller == "human":
            raise InputError("a study cannot wait for a person's answers (--labeller human)")
        same = [shlex.join(other.words) for other in jobs if other.folder == job.folder]
        if len(same) > 1:
            raise InputError(f"these are the same run: train.py {'; train.py '.join(same)}")
    return jobs


def job_of(common: list[list[str]], variant: list[list[str]], seed: int) -> Job:
    """Raises InputError."""
    if any(flag[0] == "--seed" for flag in common + variant):
        raise InputError("--seed: a study has --seeds, before the `--`")
    if ["--n_pixels_by_us", "0"] in variant:
        common = _without(common, ABOUT_POINTS)
    suffix = "_".join(filter(None, [
        *(value for name, *values in common + variant if name == "--suffix" for value in values),
        _suffix(common, variant)]))
    words = _words([*common, *variant, ["--seed", str(seed)],
                    *([["--suffix", suffix]] if suffix else [])])
    flags = parse_arguments(words)
    return Job(words=words, flags=flags,
               folder=Path(flags.dir_checkpoints) / experiment_name(flags))


def _suffix(common: list[list[str]], variant: list[list[str]]) -> str:
    """Flags of a variant that change something and do not show in the run's name otherwise."""
    recipe = [flag for flag in variant if flag[0] in _CHOOSES_RECIPE]
    after = vars(parse_arguments(_words(common + variant)))
    try:
        before = vars(parse_arguments(_words(common + recipe)))
    except InputError:  # the common flags mean something with the variant's only
        before = {}
    parts = []
    for name, *values in variant:
        key = name.removeprefix("--")
        free = key in _IN_NAME or (key in NOT_THE_EXPERIMENT and key != "weights")
        if not free and (key not in before or before[key] != after[key] or key == "weights"):
            parts.append("-".join([key, *(Path(value).stem if "/" in value else value
                                          for value in values)]))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts))


def _words(flags: list[list[str]]) -> list[str]:
    return [word for flag in flags for word in flag]


def _without(flags: list[list[str]], names: frozenset[str] | set[str]) -> list[list[str]]:
    return [flag for flag in flags if flag[0].removeprefix("--") not in names]


def full_runs(common: Sequence[str], variants: Sequence[str], seeds: Sequence[int]) -> list[Path]:
    """Runs on full masks that are there already, of the networks of the variants."""
    found = []
    for variant in variants:
        for seed in seeds:
            kept = [_without(by_flag(words), ABOUT_POINTS | BESIDE_FULL - {"suffix"})
                    for words in (common, shlex.split(variant))]
            folder = job_of(kept[0], [*kept[1], ["--n_pixels_by_us", "0"]], seed).folder
            if (folder / "metrics.csv").exists():
                found.append(folder)
    return found


# --- the first round, which runs may have in common ----------------------------------------------


def first_round(flags: dict) -> dict | None:
    """Of recorded flags, those that decide the first round; None if there are no rounds."""
    if not flags.get("n_pixels_by_us"):
        return None
    return {name: value for name, value in (as_recorded(unset_flags()) | flags).items()
            if name not in NOT_THE_EXPERIMENT | AFTER_THE_FIRST | {"suffix"}}


def _began_as(record: dict, wanted: dict) -> bool:
    """Whether a run with this args.json did. One of masked_points.py did not, whatever its flags
    say."""
    masked = any(Path(word).name == "masked_points.py" for word in record.get("command", []))
    return not masked and first_round(record["flags"]) == wanted


def adopt_first_round(job: Job) -> None:
    """Start the job with a copy of the first round of a run beside it that has the same and has
    finished it; nothing happens if there is none, or if the job was started before."""
    wanted = first_round(job.recorded)
    if wanted is None or job.folder.exists():
        return
    found = (metrics.parent for metrics in sorted(job.folder.parent.glob("*/metrics.csv"))
             if _began_as(read_json(metrics.with_name("args.json")), wanted))
    # A run that scripts/reproduce-camvid.sh has unpacked has no networks of its finished rounds.
    networks = ("last.pt", "best.pt")
    source = next((folder for folder in found if read_run(folder).rounds and all(
        (folder / "0_query" / name).exists() for name in networks)), None)
    if source is None:
        return
    copy = job.folder.with_name(f".{job.folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source / "0_query", copy / "0_query")
    for name in networks:
        checkpoint = load_checkpoint(copy / "0_query" / name)
        checkpoint["config"]["asking"] = asking_kwargs(job.flags)
        save_checkpoint(copy / "0_query" / name, checkpoint)
    record_flags(copy, flags=job.recorded, repository=DIR_ROOT, command=job.command,
                 machine=read_json(source / "args.json").get("machine"))
    copy.rename(job.folder)
    print(f"the first round of {source.name} is also that of {job.folder.name}", file=sys.stderr,
          flush=True)


# --- running ------------------------------------------------------------------------------------


class Runner:
    """Runs jobs, `parallel` at a time, for at most `seconds` in all. With more than one at a time
    each one's output goes to a file in `logs`."""

    def __init__(self, *, parallel: int, seconds: float, logs: Path) -> None:
        self._parallel, self._logs = parallel, logs
        self._end = time.monotonic() + seconds
        self._lock, self._running = threading.Lock(), set()
        self._stopped = False
        self._first: list[tuple[dict, Job]] = []  # who trains a first round, as long as it runs

    def run(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that failed; the others are finished first. No run outlives an interruption."""
        with ThreadPoolExecutor(self._parallel) as pool:
            try:
                succeeded = list(pool.map(self._run, jobs))
            except BaseException:
                self._stop()
                raise
        return [job for job, ok in zip(jobs, succeeded, strict=True) if not ok]

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()

    def _run(self, job: Job) -> bool:
        mine = first_round(job.recorded)
        with self._lock:
            others = [other for first, other in self._first if mine and first == mine]
            self._first.append((mine, job))
        while any(self._in_first_round(other) for other in others) and self._may_go_on():
            time.sleep(0.2)
        try:
            adopt_first_round(job)
            return self._train(job)
        finally:
            with self._lock:
                self._first.remove((mine, job))

    def _in_first_round(self, job: Job) -> bool:
        with self._lock:
            running = any(other is job for _, other in self._first)
        return running and not (job.folder / "metrics.csv").exists()

    def _may_go_on(self) -> bool:
        return not self._stopped and time.monotonic() < self._end

    def _train(self, job: Job) -> bool:
        command = job.command
        if self._parallel == 1:
            return self._wait(command, job, None)
        self._logs.mkdir(parents=True, exist_ok=True)
        with open(self._logs / f"{job.folder.name}.txt", "w") as log:
            return self._wait(command, job, log)

    def _wait(self, command: list[str], job: Job, log: object) -> bool:
        with self._lock:
            left = self._end - time.monotonic()
            if self._stopped or left <= 0:
                return True
            process = subprocess.Popen(command, stdout=log, stderr=log and subprocess.STDOUT)
            self._running.add(process)
        print(f"running: {job.folder.name}", file=sys.stderr, flush=True)
        try:
            ok = process.wait(left if math.isfinite(left) else None) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True
        finally:
            with self._lock:
                self._running.discard(process)
        if not ok and not self._stopped:
            where = f"; see {log.name}" if log else ""
            print(f"failed: {job.folder.name}{where}", file=sys.stderr, flush=True)
        return ok


# --- as a script --------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    head, common = split_at_dashes(argv)
    parser = Parser(prog="study.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter,
                    usage="%(prog)s [flags] [--vary 'FLAGS' ...] -- [flags of train.py]")
    parser.add_argument("--name", default="study", help="of the folder with the results")
    parser.add_argument("--seeds", type=integer(0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--vary", nargs="+", default=[""], metavar="'FLAGS'",
                        help="flags of train.py for each variant, in quotes")
    parser.add_argument("--parallel", type=integer(1), default=1, help="runs side by side")
    parser.add_argument("--seconds", type=positive, default=math.inf,
                        help="stop the runs after so long, and tabulate the rounds they finished")
    parser.add_argument("--metric", choices=METRICS, default="miou_last",
                        help="of which epoch the pictures are")
    parser.add_argument("--budget", choices=BUDGETS, default="per_image",
                        help="the table's columns")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="results (default: studies/NAME in the folder of checkpoints)")
    parser.add_argument("--json", metavar="FILE", help="the numbers to here as well")
    parser.add_argument("--note", default="", help="kept in the JSON: weights, data pack, ...")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    # argparse takes a variant of one word ("--reverse_order") for a flag; with a space it does not.
    inside, words = False, []
    for word in head:
        inside = word == "--vary" or (inside and word not in parser._option_string_actions)
        words.append(f" {word}" if inside and word != "--vary" else word)
    args = parser.parse_args(words)
    args.common = common
    return args


def main(argv: Sequence[str] | None = None) -> int:
    return run_study(parse(sys.argv[1:] if argv is None else argv))


def run_study(args: argparse.Namespace, *, summary: Summary = lambda _: ("", {})) -> int:
    """`summary`: of the jobs, what comes before the table, as Markdown and JSON."""
    jobs = plan(args.common, args.vary, args.seeds)
    if args.list:
        print("\n".join(f"train.py {shlex.join(job.words)}" for job in jobs))
        return 0
    out = args.out or Path(jobs[0].flags.dir_checkpoints) / "studies" / args.name
    signal.signal(signal.SIGTERM, _interrupt)
    runner = Runner(parallel=args.parallel, seconds=args.seconds, logs=out / "logs")
    left = [job for job in jobs if not job.is_finished()]
    print(f"{len(jobs)} runs, {len(jobs) - len(left)} of them finished before", file=sys.stderr)
    failed = runner.run(left)
    folders = [job.folder for job in jobs if (job.folder / "args.json").exists()]
    if not any((folder / "metrics.csv").exists() for folder in folders):
        print("no run has finished a round yet; the same command continues", file=sys.stderr)
    else:
        folders += full_runs(args.common, args.vary, args.seeds)
        _write(args, out, folders, device=jobs[0].flags.device, summary=summary(jobs))
    if failed:
        raise InputError(f"{len(failed)} of {len(jobs)} runs failed, the first: train.py "
                         f"{shlex.join(failed[0].words)}")
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _write(args: argparse.Namespace, out: Path, folders: Sequence[Path], *, device: str,
           summary: tuple[str, dict]) -> None:
    text, content = report(folders, metric=args.metric, budget=args.budget,
                           pictures=lambda kind: out / f"{kind}.png")
    text = "\n\n".join(filter(None, [summary[0], text]))
    print(text)
    write_text(out / "table.md", text + "\n")
    # Where this machine keeps its files is nobody's business; what they are called is.
    named = [Path(word).name if Path(word).is_absolute() else word for word in args.common]
    content = {"note": args.note, "flags": named, "variants": args.vary, "seeds": args.seeds,
               "machine": describe_machine(select_device(device)), **summary[1], **content}
    for path in filter(None, [out / "table.json", args.json]):
        write_json(path, content)
    print(f"table, numbers and pictures: {out}")


if __name__ == "__main__":
    run_program(main)
