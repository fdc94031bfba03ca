"""A run with its answers: what it asked, what was answered, by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.annotations import annotator_folders, read_logs
from datasets.noise import LabelNoise
from datasets.points import VOID, Points, concatenate, read_labels
from datasets.spec import DatasetSpec
from utils.errors import InputError
from utils.files import by_tail, read_csv, read_json


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answers of the rounds 0 .. `last` of a run, as its networks were trained on them.

    names, sizes: of the images that `points.image` counts; sizes `(N, 2)` of their grids.
    rounds: `(K,)` the round that asked each of the K points."""

    names: Sequence[str]
    sizes: np.ndarray
    points: Points
    rounds: np.ndarray
    last: int

    def key(self, index: int) -> tuple[str, int, int]:
        """(image, y, x) of a point."""
        points = self.points
        return self.names[points.image[index]], int(points.y[index]), int(points.x[index])


def read_record(folder: str | Path) -> dict:
    """What `args.json` says of a run that asks for points. Raises InputError."""
    path = Path(folder) / "args.json"
    if not path.exists():
        raise InputError(f"{folder} is no folder of a run, it has no args.json")
    record = read_json(path)
    flags = record.get("flags") if isinstance(record, dict) else None
    if not isinstance(flags, dict) or "n_pixels_by_us" not in flags:
        raise InputError(f"{path} has no flags of a run")
    if flags["n_pixels_by_us"] == 0:
        raise InputError(f"{folder} was trained on full masks: there are no answers to look at")
    return record


def finished_round(folder: str | Path, number: int) -> int:
    """A finished round by its number; -1 is the last one, -2 the one before. Raises InputError."""
    path = Path(folder) / "metrics.csv"
    n_rounds = len(read_csv(path)) if path.exists() else 0
    if not n_rounds:
        raise InputError(f"{folder} has no finished round yet")
    if not -n_rounds <= number < n_rounds:
        raise InputError(f"--round {number}: {folder} has {n_rounds} finished rounds, 0 to "
                         f"{n_rounds - 1}; -1 is the last one")
    return number % n_rounds


def checkpoint_of(folder: str | Path, round_index: int) -> Path:
    return Path(folder) / f"{round_index}_query" / "last.pt"


def read_answered(folder: str | Path, *, flags: dict, last: int, names: Sequence[str],
                  sizes: np.ndarray, n_classes: int) -> Answered:
    """The answers of a run's rounds up to `last`. With `--label_noise` they have the mistakes that
    were trained on (with --label_noise_redraw there are other ones in every epoch, and they have
    none). Raises InputError."""
    noise = LabelNoise(p=0.0 if flags.get("label_noise_redraw") else flags.get("label_noise", 0.0),
                       redraw=False, n_classes=n_classes, seed=flags["seed"])
    parts = [read_labels(Path(folder) / f"{r}_query" / "labels.csv", names=names, sizes=sizes,
                         n_classes=n_classes) for r in range(last + 1)]
    parts = [noise.apply(part, round_index=r) if r else part for r, part in enumerate(parts)]
    return Answered(names=names, sizes=sizes, last=last, points=concatenate(parts),
                    rounds=np.repeat(np.arange(last + 1), [len(part) for part in parts]))


def annotators_of(answered: Answered, chosen: np.ndarray, *, places: Sequence[str | Path],
                  spec: DatasetSpec) -> list[str]:
    """Who gave the chosen points `(n,)` their label: annotators' names, "" where no folder of
    `places` (as --dir_annotations) has this answer."""
    label_of = {name: index for index, name in enumerate(spec.class_names)}
    sizes = answered.sizes[answered.points.image].tolist()
    wanted: dict[tuple, list[str]] = {
        (*answered.key(i), *sizes[i], int(answered.points.label[i])): [] for i in chosen.tolist()}
    known = by_tail(answered.names)
    for folder in annotator_folders(places, dataset=spec.name):
        for a in read_logs(folder):
            key = (known.get(a.image, a.image), a.y, a.x, a.h, a.w, label_of.get(a.label, VOID))
            if key in wanted:
                wanted[key].append(folder.name.removeprefix(f"{spec.name}_"))
    return [", ".join(dict.fromkeys(names)) for names in wanted.values()]
