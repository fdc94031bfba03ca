"""Runs grouped over their seeds: reading, what a group is called, means."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from utils.errors import InputError
from utils.files import read_csv, read_json
from utils.flags import unset_flags
from utils.published import FULL
from utils.runs import NOT_THE_EXPERIMENT, as_recorded

METRICS = {"miou_last": "last", "miou_best": "best"}
BUDGETS = {"per_image": "labelled pixels per image", "total": "labelled pixels in all"}

ABOUT_THE_TEACHER = frozenset({"teacher", "teacher_targets", "teacher_threshold"})
# Flags that only concern points: a run on full masks has them without using them.
ABOUT_POINTS = frozenset({
    "n_init_pixels", "n_pixels_by_us", "max_budget", "query_strategy", "top_n_percent",
    "reverse_order", "labeller", "init_query", "use_mc_dropout", "mc_n_steps", "mc_layers",
    "vote_type", "temperature", "label_noise", "label_noise_redraw", "ask_balance", "min_distance",
    "allocate",
}) | ABOUT_THE_TEACHER
# What a run does from its second round on: its first does not depend on these.
AFTER_THE_FIRST = ABOUT_POINTS - ABOUT_THE_TEACHER - {"n_init_pixels", "labeller", "init_query"}
# A row's own full supervision may differ in these too: it has all images, in other epochs.
BESIDE_FULL = frozenset({"n_images", "n_epochs", "eval_interval", "suffix"})
# Files are compared by their content, `*_sha256`.
NOT_COMPARED = NOT_THE_EXPERIMENT | {"seed"}
# Not named in a label where it follows from another flag that is.
_FOLLOWS = {"n_init_pixels": "n_pixels_by_us", "output_stride": "network_name",
            "weight_decay": "network_name", "weight_type": "weights_sha256",
            "n_epochs": "n_images", "eval_interval": "n_epochs"}


# Named by their value alone, and always.
_SHORT = ("network_name", "backbone", "query_strategy")
_FILES = ("init_query",)
_MANY = 3  # flags in a label


@dataclass(frozen=True, kw_only=True)
class Run:
    """`rounds`: budget -> the round's row in metrics.csv. `n_rounds`: what it has when finished."""

    folder: Path
    all_flags: dict
    rounds: dict[float, dict[str, float]]
    n_rounds: int

    @property
    def flags(self) -> dict:
        """Those that make the experiment; its seed is none of them."""
        ignored = NOT_COMPARED | (ABOUT_POINTS if self.is_full else set())
        older = as_recorded(unset_flags()).items()  # than flags that have come since
        known = self.all_flags | {n: value for n, value in older if n not in self.all_flags}
        return {name: value for name, value in known.items() if name not in ignored}

    @property
    def recipe(self) -> str:
        return self.all_flags.get("recipe", "paper")

    @property
    def named_flags(self) -> dict:
        """`flags`, and the recipe that some of them may come from."""
        return self.flags | {"recipe": self.recipe}

    @property
    def is_full(self) -> bool:
        return self.all_flags.get("n_pixels_by_us") == 0

    @property
    def seed(self) -> int:
        return self.all_flags.get("seed", 0)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ in their seed; `full`: the group of the same network on full masks."""

    label: str
    runs: Sequence[Run]
    full: Group | None = None

    @property
    def flags(self) -> dict:
        return self.runs[0].all_flags

    @property
    def is_full(self) -> bool:
        return self.runs[0].is_full

    @property
    def budgets(self) -> list[float]:
        """That any of the runs has reached."""
        return sorted({budget for run in self.runs for budget in run.rounds})

    def by_seed(self, metric: str, budget: float) -> dict[int, float]:
        """Of the runs that have reached the budget."""
        return {run.seed: run.rounds[budget][metric] for run in self.runs if budget in run.rounds}

    def values(self, metric: str, budget: float) -> list[float]:
        """The same without the seeds."""
        return list(self.by_seed(metric, budget).values())

    def percent_of_full(self, metric: str) -> tuple[float, float] | None:
        """Of the means: at the largest budget, and that budget."""
        full = self.full and self.full.values(metric, FULL)
        if not full or not self.budgets or not statistics.mean(full):
            return None
        mean = statistics.mean(self.values(metric, self.budgets[-1]))
        return 100 * mean / statistics.mean(full), self.budgets[-1]


# --- reading ------------------------------------------------------------------------------------


def rounds_of(flags: dict) -> int:
    """How many rounds a run with these flags has in the end."""
    n = flags.get("n_pixels_by_us")
    return 1 if not n else 1 + (flags["max_budget"] - (flags.get("n_init_pixels") or n)) // n


def read_run(folder: Path, *, budget: str = "per_image") -> Run:
    """budget: what a round is known by, one of BUDGETS. Raises InputError if it is no run."""
    content = read_json(folder / "args.json")
    flags = content.get("flags") if isinstance(content, dict) else None
    if not isinstance(flags, dict) or "dataset_name" not in flags:
        raise InputError(f"{folder / 'args.json'} has no flags of a run")
    path, rounds = folder / "metrics.csv", {}
    try:
        n_rounds = rounds_of(flags)
        for number, cells in enumerate(read_csv(path) if path.exists() else []):
            row = {name: float(cell) for name, cell in cells.items()}
            key = _budget(flags, number, row, budget)
            if not any(math.isnan(row[metric]) for metric in METRICS):
                rounds[key] = row
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is not what train.py writes ({error})") from error
    return Run(folder=folder, all_flags=flags, rounds=rounds, n_rounds=n_rounds)


def _budget(flags: dict, number: int, row: dict[str, float], budget: str) -> float:
    """What was meant to be asked: an image with too few pixels to ask for changes no column."""
    n = flags["n_pixels_by_us"]
    if n == 0:
        return FULL
    if flags.get("init_query"):
        return row["pixels_per_image" if budget == "per_image" else "pixels_total"]
    per_image = (flags.get("n_init_pixels") or n) + number * n
    n_images = round(row["pixels_total"] / row["pixels_per_image"])
    return per_image if budget == "per_image" else per_image * n_images


def read_groups(folders: Sequence[Path], *, budget: str = "per_image") -> list[Group]:
    """In the order of their first runs; groups on full masks that others refer to are no rows of
    their own. Unfinished runs and what is no run are named on stderr. Raises InputError."""
    runs = []
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        if (folder / "args.json").exists():
            runs.append(read_run(folder, budget=budget))
        else:
            print(f"left out: {folder} is no run, it has no args.json", file=sys.stderr)
    if not runs:
        raise InputError("none of these is the folder of a run, with an args.json")
    for run in runs:
        if len(run.rounds) < run.n_rounds:
            print(f"unfinished: {run.folder.name} has {len(run.rounds)} of {run.n_rounds} rounds "
                  "with an mIoU", file=sys.stderr)
    grouped: list[list[Run]] = []
    for run in runs:
        same = next((group for group in grouped if group[0].flags == run.flags), None)
        if same is None:
            grouped.append([run])
        elif run.seed in [other.seed for other in same]:
            raise InputError(f"{run.folder} and {same[0].folder}: the same flags and seed twice")
        else:
            same.append(run)
    groups = [Group(label=label, runs=group)
              for label, group in zip(_labels([g[0] for g in grouped]), grouped, strict=True)]
    fulls = [group for group in groups if group.is_full]
    rows = [group if group.is_full else
            Group(label=group.label, runs=group.runs, full=_own_full(group, fulls))
            for group in groups]
    used = {group.full.label for group in rows if group.full}
    return [group for group in rows if group.label not in used]


def fulls_of(groups: Sequence[Group]) -> list[Group]:
    """Those on full masks that are no rows of their own; each once."""
    return list({group.full.label: group.full for group in groups if group.full}.values())


def _own_full(group: Group, fulls: Sequence[Group]) -> Group | None:
    """On all images, if there is a choice."""
    def compared(flags: dict) -> dict:
        return {name: value for name, value in flags.items()
                if name not in ABOUT_POINTS | BESIDE_FULL}

    own = [full for full in fulls
           if compared(full.runs[0].flags) == compared(group.runs[0].flags)]
    return min(own, key=lambda full: full.flags.get("n_images") is not None, default=None)


def _labels(runs: Sequence[Run]) -> list[str]:
    """By the flags in which the runs differ, of which `suffix` only where nothing else does. If
    these are many, what the first run has goes without saying."""
    if len(runs) == 1:
        return [full_name(runs[0])]
    names = list(dict.fromkeys(name for run in runs for name in run.flags))
    differing = [name for name in names if name != "suffix" and _differs(runs, name)]
    if len({run.recipe for run in runs}) > 1:
        differing = ["recipe", *(n for n in differing if not _follows(runs, n, "recipe"))]
    named = [name for name in differing if not (
        _FOLLOWS.get(name) in differing and _follows(runs, name, _FOLLOWS[name]))]
    usual = runs[0].named_flags if len(named) > _MANY else {}
    labels = [_name(run, named, usual=usual) for run in runs]
    if len(set(labels)) < len(labels):
        labels = [_name(run, [*named, "suffix"], usual=usual) for run in runs]
    return labels


def full_name(run: Run) -> str:
    """What a run is called where there is none to tell it from."""
    return _name(run, ["network_name", "backbone", *["query_strategy"] * (not run.is_full)])


def _differs(runs: Sequence[Run], name: str) -> bool:
    """Among the runs that have the flag, or among all if it is none of points only."""
    values = [run.flags.get(name) for run in runs if name not in ABOUT_POINTS or not run.is_full]
    return any(value != values[0] for value in values[1:])


def _follows(runs: Sequence[Run], name: str, other: str) -> bool:
    pairs = {(str(run.named_flags.get(name)), str(run.named_flags.get(other))) for run in runs}
    return len(pairs) == len({value for _, value in pairs})


def _name(run: Run, names: Sequence[str], *, usual: Mapping[str, object] = MappingProxyType({})
          ) -> str:
    """Without those that have their `usual` value. What is usual and missing here is said too."""
    parts = []
    for name in names:
        value = run.named_flags.get(name)
        if name in usual and value == usual[name] and name not in _SHORT:
            continue
        if name.endswith("_sha256"):  # the file's name says more
            name = name.removesuffix("_sha256")
            value = run.all_flags.get(name) and Path(run.all_flags[name]).name
            if value is None and name == "weights":
                name, value = "weight_type", run.flags.get("weight_type")
        if value is None or value is False or value == "":
            parts += [f"without {name}"] * (name in usual)
        elif value is True:
            parts.append(name)
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            shown = Path(shown).name if name in _FILES else shown
            parts.append(shown if name in _SHORT else f"{name} {shown}")
    return ", ".join([*parts, *["full masks"] * run.is_full]) or "as the recipe says"
