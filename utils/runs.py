"""The folder of a run: what it is called, which flags it was made with, its `metrics.csv`."""

from __future__ import annotations

import math
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from utils.errors import InputError
from utils.files import file_digest, read_csv, read_json, write_csv, write_json
from utils.flags import unset_flags
from utils.version import VERSION, git_commit

# Flags that say where and how to compute, not what: they may differ when a run is continued.
# `weights` and `p_dataset_config` are compared by the files' content instead, `recipe` by the flags
# it stands for. `compile` rounds otherwise, as another device does, but computes the same.
NOT_THE_EXPERIMENT = frozenset({
    "dir_root", "dir_dataset", "dir_checkpoints", "dir_cache", "cache", "device", "n_workers",
    "eval_batch_size", "max_budget", "max_mask_gb", "overwrite", "weights", "dir_annotations",
    "on_conflict", "allow_partial", "p_dataset_config", "compile", "tracker", "recipe",
})
_LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "pillow")


def run_name(flags: dict) -> str:
    """`{dataset}[_d{downsample}]_{network}_{backbone}_{strategy}_{n}_p{top}[_{recipe}]_{seed}
    [_{suffix}]`."""
    asking = ("{query_strategy}_{n_pixels_by_us}_p{top_n_percent:g}".format(**flags)
              if flags["n_pixels_by_us"] else "full")
    return "_".join([
        flags["dataset_name"], *([f"d{flags['downsample']}"] if flags["downsample"] > 1 else []),
        flags["network_name"], flags["backbone"], asking,
        *([flags["recipe"]] if flags.get("recipe", "paper") != "paper" else []), str(flags["seed"]),
        *([flags["suffix"]] if flags["suffix"] else []), *(["debug"] if flags["debug"] else []),
    ])


def check_flags(folder: Path, *, flags: dict, free: frozenset[str]) -> None:
    """Raises InputError, naming the flags, if the run in `folder` was made with other `flags`; the
    `free` ones may differ. A flag that the run does not know has the value of one not given."""
    record = folder / "args.json"
    if not record.exists():
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise InputError(f"{folder} holds files but no args.json; give --overwrite to move "
                             "them aside")
        return
    now, unset = as_recorded(flags), as_recorded(unset_flags())
    before = {name: unset[name] for name in now.keys() & unset.keys()} | _flags_of(record)
    changed = [name for name in sorted((before.keys() | now.keys()) - free)
               if before.get(name) != now.get(name)]
    if changed:
        named = ", ".join(f"{name} (was {before.get(name)}, now {now.get(name)})"
                          for name in changed)
        raise InputError(f"{folder} holds a run made with other flags: {named}; repeat its flags, "
                         "give another --suffix, or --overwrite to move it aside")


def record_flags(folder: Path, *, flags: dict, repository: Path, n_processes: int = 1,
                 machine: dict | None = None, command: Sequence[str] | None = None) -> None:
    """Write `args.json`: flags, command line (default: this program's), git commit of `repository`,
    versions, and the `machine` (utils.machine) that the run was started on, if that is known."""
    record = folder / "args.json"
    if record.exists() and _flags_of(record) == as_recorded(flags):
        return
    write_json(record, {
        "flags": flags,
        "command": list(command or [sys.executable, *sys.argv]),
        "processes": n_processes,
        "machine": machine,
        "git_commit": git_commit(repository),
        "versions": {"pixelpick": VERSION, "python": platform.python_version(),
                     **{name: version(name) for name in _LIBRARIES}},
    })


def as_recorded(flags: dict) -> dict:
    """As the flags come back from JSON."""
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in flags.items()}


def _flags_of(record: Path) -> dict:
    content = read_json(record)
    if not isinstance(content, dict) or not isinstance(content.get("flags"), dict):
        raise InputError(f"{record} has no flags; give --overwrite to move this run aside")
    return content["flags"]


def move_aside(folder: Path) -> Path:
    """Rename to `<folder>.old-<first free number>`."""
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    try:
        folder.rename(target)
    except OSError as error:
        raise InputError(f"cannot move {folder} to {target}: {error.strerror}") from error
    return target


def public_command(words: Sequence[str]) -> str:
    """A command line to publish: where a machine keeps its files is nobody's business, so paths
    from outside the current folder are reduced to names."""
    def public(word: str) -> str:
        flag, equals, value = word.partition("=")
        if equals and flag.startswith("--"):
            return f"{flag}={public(value)}"
        outside = Path(word).is_absolute() or word.startswith(("~", ".."))
        return Path(word).name if outside else word

    return shlex.join(map(public, words))


def with_digests(flags: dict) -> dict:
    """Flags, and beside those that name a file what is in it: `<flag>_sha256`, None without one."""
    return flags | {f"{name}_sha256": flags[name] and file_digest(flags[name])
                    for name in ("weights", "p_dataset_config")}


class MetricsTable:
    """`metrics.csv`: one row for each finished round, in order."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._path, self._columns = path, columns
        self.rows = read_csv(path) if path.exists() else []
        for number, row in enumerate(self.rows):
            if list(row) != columns or row["round"] != str(number) or not _numbers(row.values()):
                raise InputError(f"{path}: row {number + 2} is not round {number} of this run; "
                                 "give --overwrite to move the run aside")

    def put(self, row: dict[str, object], *, write: bool = True) -> None:
        """Add the row of the next round and `write` the file."""
        self.rows.append({name: _cell(row[name]) for name in self._columns})
        if write:
            write_csv(self._path, self._columns, (list(row.values()) for row in self.rows))


def round_line(row: dict[str, str], n_rounds: int) -> str:
    """What train.py prints of a row of metrics.csv."""
    pixels, percent, last, best = (float(row[name]) for name in (
        "pixels_per_image", "percent", "miou_last", "miou_best"))
    scores = f"mIoU {last:.4f} last, {best:.4f} best (epoch {row['epoch_best']})"
    if math.isnan(last):
        scores = "no mIoU without a validation set"
    return (f"round {int(row['round']) + 1}/{n_rounds}: {pixels:g} pixels per image "
            f"({percent:.3g} %), {scores}, trained in {float(row['train_seconds']):.0f} s")


def _numbers(cells: Iterable[str | None]) -> bool:
    try:
        for cell in cells:
            float(cell)
    except (ValueError, TypeError):
        return False
    return True


def _cell(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
