"""Who answers a query: the ground truth, or people through the annotation tool."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.annotations import annotator_folders, collect_answers
from datasets.images import IGNORE, resize_label
from datasets.points import Points, answer
from datasets.queries import Query
from datasets.spec import ClassSet
from datasets.split import LoadedSplit
from utils.lazy import Lazy

_NAMED = 3  # images and conflicts that a message names
_LAUNCH = Path(__file__).resolve().parents[1] / "annotation_tool" / "launch_gui.py"


class WaitingForLabels(Exception):
    """A query has pixels that nobody has answered; the message says what to do."""


class Labeller(Protocol):
    reads_truth: bool  # whether the images it labels need label maps

    def never_asked(self, split: LoadedSplit) -> Sequence[np.ndarray]:
        """Per image, bool `(H, W)` on its grid: pixels that no query may contain."""

    def answer(self, query: Query, path: Path, *, split: LoadedSplit) -> Points:
        """The answers to the query of a file. Raises WaitingForLabels."""


class Oracle:
    """The ground truth answers. Void pixels are not asked for, as in the paper."""

    reads_truth = True

    def __init__(self, *, classes: ClassSet, **_: object) -> None:
        pass

    def never_asked(self, split: LoadedSplit) -> Sequence[np.ndarray]:
        return void_masks(split)

    def answer(self, query: Query, path: Path, *, split: LoadedSplit) -> Points:
        return answer(query.pixels, split.labels, split.sizes)


def void_masks(split: LoadedSplit) -> Sequence[np.ndarray]:
    """Per image, bool `(H, W)` on its grid: what the ground truth calls void."""
    return Lazy(split.labels, lambda i, label: resize_label(label, split.sizes[i]) == IGNORE)


def empty_masks(split: LoadedSplit) -> Sequence[np.ndarray]:
    """Per image, bool `(H, W)` on its grid: nothing."""
    return Lazy(split.sizes, lambda _, size: np.zeros(size, bool))


class Annotators:
    """People answer; no label map is read.

    dir_dataset: what the images' names are relative to.
    dir_annotations: annotators' folders, or folders with such folders `<dataset>_*` in them.
    classes_file: the YAML file that the classes are from; None: they are a known dataset's.
    on_conflict: a key of datasets.annotations.CONFLICTS.
    allow_partial: train although some pixels have no answer (not if none has).
    """

    reads_truth = False

    def __init__(self, *, classes: ClassSet, classes_file: str | None, dir_dataset: str,
                 dir_annotations: Sequence[str], on_conflict: str, allow_partial: bool) -> None:
        self._classes, self._classes_file = classes, classes_file
        self._dir_dataset = dir_dataset
        self._places = [Path(place) for place in dir_annotations]
        self._on_conflict, self._allow_partial = on_conflict, allow_partial

    def never_asked(self, split: LoadedSplit) -> Sequence[np.ndarray]:
        return empty_masks(split)

    def answer(self, query: Query, path: Path, *, split: LoadedSplit) -> Points:
        answers = collect_answers(
            annotator_folders(self._places, dataset=self._classes.name), query.pixels,
            names=split.names, sizes=split.sizes, class_names=self._classes.class_names,
            on_conflict=self._on_conflict)
        if answers.conflicts:
            print(f"annotators disagree on {len(answers.conflicts)} pixels (resolved by "
                  f"--on_conflict {self._on_conflict}): " + "; ".join(answers.conflicts[:_NAMED])
                  + "; ..." * (len(answers.conflicts) > _NAMED), file=sys.stderr)
        missing = sum(answers.unanswered.values())
        if not missing:
            return answers.points
        images = ", ".join([f"{split.names[i]} ({n})" for i, n in answers.unanswered.items()]
                           [:_NAMED]) + ", ..." * (len(answers.unanswered) > _NAMED)
        if self._allow_partial and len(answers.points):
            print(f"{missing} of {query.n_pixels} asked pixels have no answer and are left out: "
                  f"{images}", file=sys.stderr)
            return answers.points
        raise WaitingForLabels(
            f"waiting for labels: {missing} of {query.n_pixels} asked pixels have no answer yet: "
            f"{images}\nLabel them with\n\n    {self._command(path)}\n\nand repeat this command"
            + (" (with --allow_partial it goes on without them)." if len(answers.points) else "."))

    def _command(self, path: Path) -> str:
        place, name, annotator = self._places[0], self._classes.name, None
        if place.name.startswith(f"{name}_"):  # an annotator's own folder
            place, annotator = place.parent, place.name.removeprefix(f"{name}_")
        return launch_command(path, dataset=name, classes_file=self._classes_file,
                              dir_dataset=self._dir_dataset, dir_logs=place, annotator=annotator)


def launch_command(path_query: str | Path, *, dataset: str, classes_file: str | None,
                   dir_dataset: str | Path, dir_logs: str | Path,
                   annotator: str | None = None) -> str:
    """The command that opens the annotation window on all pixels of a query's file. Without an
    annotator the tool takes the user's name."""
    flags = ["--dataset_name", dataset]
    if classes_file is not None:
        flags += ["--classes", str(Path(classes_file).resolve())]
    flags += ["--dir_imgs", str(Path(dir_dataset).resolve()),
              "--path_query", str(Path(path_query).resolve()), "--n_imgs", "-1"]
    if annotator is not None:
        flags += ["--annotator", annotator]
    return shlex.join([sys.executable, str(_LAUNCH), *flags, "--dir_logs",
                       str(Path(dir_logs).resolve())])


LABELLERS: dict[str, type[Labeller]] = {"oracle": Oracle, "human": Annotators}
