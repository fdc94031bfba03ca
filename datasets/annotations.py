"""A person's answers: the txt logs of the annotation tool, and what training takes from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.classes import VOID_NAME
from datasets.points import VOID, Points
from utils.errors import InputError
from utils.files import by_tail, csv_text, read_csv, relative_name

COLUMNS = ("y", "x", "label", "elapsed_time", "total_time", "h", "w", "slow", "image")
SLOW_SECONDS = 30.0  # an answer that took longer is flagged: the annotator was elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """An asked pixel and its answer.

    image: path relative to the dataset's root, with `/` between its parts.
    h, w: the grid on which (y, x) is.
    label: the name of a class, VOID_NAME, or None if it is not answered.
    elapsed_time: seconds from the moment the pixel was shown, without the window's time in the
        background; total_time: all seconds of work of this annotator up to then. 0 if unknown.
    """

    image: str
    y: int
    x: int
    h: int
    w: int
    label: str | None = None
    elapsed_time: float = 0.0
    total_time: float = 0.0

    @property
    def slow(self) -> bool:
        return self.elapsed_time > SLOW_SECONDS

    @property
    def pixel(self) -> tuple[str, int, int, int, int]:
        """What makes it the same pixel."""
        return self.image, self.h, self.w, self.y, self.x


def log_path(folder: str | Path, image: str) -> Path:
    """`<folder>/<image path without suffix>.txt`. Raises InputError for a path that leads out."""
    return Path(folder) / PurePosixPath(relative_name(image, where=folder)).with_suffix(".txt")


def log_text(annotations: Iterable[Annotation]) -> str:
    """A log: the answered pixels of the images that share it, one row each."""
    return csv_text(COLUMNS, (
        (a.y, a.x, a.label, f"{a.elapsed_time:.3f}", f"{a.total_time:.3f}", a.h, a.w, int(a.slow),
         a.image) for a in annotations if a.label is not None))


def read_logs(folder: str | Path) -> list[Annotation]:
    """All answers of an annotator's folder, log by log. Raises InputError with file and row."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; expected one that the annotation tool has written")
    found = []
    for path in sorted(folder.rglob("*.txt")):
        if not path.is_dir():
            found += read_table(path)
    return found


def read_table(path: str | Path) -> list[Annotation]:
    """The rows of one table with COLUMNS; an empty label is no answer. Raises InputError."""
    found = []
    for number, row in enumerate(read_csv(path), 2):
        try:
            annotation = Annotation(
                image=relative_name(row["image"], where=path), label=row["label"] or None,
                **{name: int(row[name]) for name in ("y", "x", "h", "w")},
                **{name: float(row[name]) for name in ("elapsed_time", "total_time")})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: row {number} is no answer ({type(error).__name__}: {error});"
                             f" expected the columns {','.join(COLUMNS)}") from error
        if not (0 <= annotation.y < annotation.h and 0 <= annotation.x < annotation.w):
            raise InputError(f"{path}: row {number}: ({annotation.y}, {annotation.x}) is outside "
                             f"its grid of {annotation.h}x{annotation.w}")
        if not all(0 <= seconds < math.inf for seconds in
                   (annotation.elapsed_time, annotation.total_time)):
            raise InputError(f"{path}: row {number}: a time is no number of seconds")
        found.append(annotation)
    return found


# --- what training takes ------------------------------------------------------------------------


def annotator_folders(places: Sequence[str | Path], *, dataset: str) -> list[Path]:
    """The folders of annotators: in each place its subfolders `<dataset>_*`, or the place itself
    if it has none and is a folder. In the order given, then by name."""
    found = []
    for place in map(Path, places):
        inside = sorted(path for path in place.glob(f"{dataset}_*") if path.is_dir())
        found += inside or ([place] if place.is_dir() else [])
    return found


def resolve_first(labels: Sequence[str]) -> str:
    return labels[0]


def resolve_majority(labels: Sequence[str]) -> str:
    """The most frequent answer; among equals the one that comes first."""
    return Counter(labels).most_common(1)[0][0]


CONFLICTS: dict[str, Callable[[Sequence[str]], str] | None] = {
    "first": resolve_first,
    "majority": resolve_majority,
    "error": None,
}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What annotators answered of a query: points, and per image (its index) how many pixels have
    no answer yet. `conflicts` has a line for each pixel on which annotators disagree."""

    points: Points
    unanswered: dict[int, int]
    conflicts: list[str]


def collect_answers(folders: Sequence[str | Path], pixels: Sequence[np.ndarray], *,
                    names: Sequence[str], sizes: np.ndarray, class_names: Sequence[str],
                    on_conflict: str) -> Answers:
    """The answers to `pixels`, per image of `names` its asked (y, x) on a grid of `sizes`.

    A log's image is the dataset's of the same relative path, or the only one whose path ends with
    it. Raises InputError for a label that is no class, and for disagreement with `on_conflict`
    "error"."""
    index_of = {name: index for index, name in enumerate(class_names)} | {VOID_NAME: VOID}
    asked = {(name, *size, *pixel): [] for name, size, of_image in
             zip(names, sizes.tolist(), pixels, strict=True) for pixel in of_image.tolist()}
    known = by_tail(names)
    for folder in folders:
        for a in read_logs(folder):
            answers = asked.get((known.get(a.image, a.image), a.h, a.w, a.y, a.x))
            if answers is None:
                continue
            if a.label not in index_of:
                raise InputError(f"{log_path(folder, a.image)}: {a.label!r} is no class; known "
                                 f"are {', '.join(class_names)} and {VOID_NAME}")
            answers.append(a.label)
    conflicts = [f"{name} ({y}, {x}): {', '.join(labels)}"
                 for (name, _, _, y, x), labels in asked.items() if len(set(labels)) > 1]
    resolve = CONFLICTS[on_conflict]
    if conflicts and resolve is None:
        raise InputError(f"annotators disagree on {len(conflicts)} pixels, the first are "
                         f"{'; '.join(conflicts[:3])}; let one of them look again, or give "
                         "--on_conflict majority or first")
    rows, unanswered = [], Counter()
    image_of = {name: index for index, name in enumerate(names)}
    for (name, _, _, y, x), labels in asked.items():
        image = image_of[name]
        if labels:
            label = labels[0] if resolve is None else resolve(labels)
            rows.append((image, y, x, index_of[label]))
        else:
            unanswered[image] += 1
    points = Points(*np.array(rows, np.int64).reshape(-1, 4).T.copy())
    return Answers(points=points, unanswered=dict(unanswered), conflicts=conflicts)
