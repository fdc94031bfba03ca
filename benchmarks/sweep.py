"""Several runs of train.py (strategies x seeds), and one table of their mean and spread.

    python benchmarks/sweep.py --strategies margin_sampling random full --seeds 0 1 2 \\
        --parallel 1 --json FILE -- --dataset_name cv --dir_dataset DIR ...

What follows `--` goes to train.py; `full` is training on full masks. Stopped and started again, the
sweep goes on where its runs were. The spread is the sample standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import args as flags
from benchmarks.machine import describe_machine, print_table
from utils.device import select_device
from utils.errors import InputError, run_program
from utils.files import read_csv, write_json

_METRICS = ("miou_last", "miou_best", "pixel_accuracy", "mean_accuracy")
_SECONDS = ("train_seconds", "val_seconds", "query_seconds")


# Flags with one value that train.py refuses beside full masks.
_ABOUT_POINTS = ("--max_budget", "--n_init_pixels", "--n_pixels_by_us", "--top_n_percent")


def train_arguments(strategy: str, seed: int, rest: list[str]) -> list[str]:
    if strategy != "full":
        return [*rest, "--query_strategy", strategy, "--seed", str(seed)]
    kept = [part for before, part in zip(["", *rest], rest, strict=False)
            if before not in _ABOUT_POINTS and part not in _ABOUT_POINTS]
    return [*kept, "--n_pixels_by_us", "0", "--seed", str(seed)]


def metrics_file(argv: list[str]) -> Path:
    args = flags.parse_arguments(argv)
    return Path(args.dir_checkpoints) / flags.experiment_name(args) / "metrics.csv"


def run_all(commands: list[list[str]], *, parallel: int, seconds: float) -> None:
    """Run train.py with each list of flags, `parallel` at a time, for at most `seconds` in all.

    Raises InputError if a run fails; the others are finished first."""
    end = time.monotonic() + seconds

    def run(argv: list[str]) -> bool:
        left = end - time.monotonic()
        if left <= 0:
            return True
        try:
            return subprocess.run([sys.executable, str(flags.DIR_ROOT / "train.py"), *argv],
                                  timeout=left if math.isfinite(left) else None).returncode == 0
        except subprocess.TimeoutExpired:
            return True

    with ThreadPoolExecutor(parallel) as pool:
        succeeded = list(pool.map(run, commands))
    failed = [" ".join(argv) for argv, ok in zip(commands, succeeded, strict=True) if not ok]
    if failed:
        raise InputError(f"{len(failed)} runs failed, the first: train.py {failed[0]}")


def finished_rounds(files: list[Path]) -> list[list[dict[str, str]]]:
    """The tables of the runs that have finished a round."""
    return [read_csv(path) for path in files if path.exists()]


def summarise(strategy: str, runs: list[list[dict[str, str]]]) -> list[dict]:
    """One row for each budget that all `runs` of a strategy have reached."""
    rows = []
    for of_budget in zip(*runs, strict=False):
        row: dict[str, object] = {"strategy": strategy, "n_runs": len(runs),
                                  "pixels_per_image": float(of_budget[0]["pixels_per_image"])}
        for name in (*_METRICS, *_SECONDS):
            values = [float(run[name]) for run in of_budget]
            row[f"{name}_mean"] = round(statistics.mean(values), 5)
            if len(values) > 1:
                row[f"{name}_std"] = round(statistics.stdev(values), 5)
        row["miou_last_runs"] = [float(run["miou_last"]) for run in of_budget]
        row["miou_best_runs"] = [float(run["miou_best"]) for run in of_budget]
        rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["margin_sampling"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parallel", type=int, default=1, help="runs side by side")
    parser.add_argument("--seconds", type=float, default=float("inf"),
                        help="stop the runs after so long, and tabulate the rounds they finished")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--note", default="", help="kept in the JSON: weights, data pack, ...")
    parser.add_argument("train", nargs="*", metavar="-- FLAGS", help="of train.py")
    args = parser.parse_args()
    commands = {(strategy, seed): train_arguments(strategy, seed, args.train)
                for seed in args.seeds for strategy in args.strategies}
    files = {key: metrics_file(argv) for key, argv in commands.items()}
    run_all(list(commands.values()), parallel=args.parallel, seconds=args.seconds)
    rows = [row for strategy in args.strategies for row in summarise(
        strategy, finished_rounds([files[strategy, seed] for seed in args.seeds]))]

    def percent(row: dict, name: str) -> str:
        mean, std = row[f"{name}_mean"], row.get(f"{name}_std")
        return f"{100 * mean:.1f}" + (f" ± {100 * std:.1f}" if std is not None else "")

    print_table(["strategy", "pixels per image", "mIoU, last epoch", "mIoU, best epoch", "runs"],
                [[row["strategy"], f"{row['pixels_per_image']:g}", percent(row, "miou_last"),
                  percent(row, "miou_best"), row["n_runs"]] for row in rows])
    if args.json:
        device = select_device(flags.parse_arguments(next(iter(commands.values()))).device)
        # Where this machine keeps its files is nobody's business; what they are called is.
        named = [Path(part).name if Path(part).is_absolute() else part for part in args.train]
        write_json(args.json, {"note": args.note, "flags": named, "seeds": args.seeds,
                               "machine": describe_machine(device), "rows": rows})
    return 0


if __name__ == "__main__":
    run_program(main)
