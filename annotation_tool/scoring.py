"""Answers against ground truth: accuracy, confusions, seconds per pixel. Printed when a session
ends, so nothing beyond numpy and Pillow is needed here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from annotation_tool.truth import GroundTruth
from datasets.annotations import SLOW_SECONDS, Annotation
from datasets.classes import VOID_NAME
from datasets.spec import ClassSet
from utils.errors import InputError

_N_CONFUSIONS = 5  # most frequent ones that are printed


@dataclass(frozen=True)
class Pace:
    """Mean and median seconds per pixel, None if no time is known; the `n_slow` answers that took
    more than SLOW_SECONDS (the annotator was elsewhere) are in neither."""

    mean: float | None
    median: float | None
    n_slow: int


def pace(annotations: Iterable[Annotation]) -> Pace:
    annotations = list(annotations)
    seconds = [a.elapsed_time for a in annotations if a.elapsed_time > 0 and not a.slow]
    n_slow = sum(a.slow for a in annotations)
    if not seconds:
        return Pace(None, None, n_slow)
    return Pace(float(np.mean(seconds)), float(np.median(seconds)), n_slow)


@dataclass(frozen=True, kw_only=True)
class Score:
    """How answers compare with ground truth, C classes.

    An answer is scored if its image has a label map and the ground truth there is a class. The
    answer "void" counts as wrong then, and has a column of its own. Where the ground truth is
    void nothing is scored, whatever the answer.

    n_answered: all answers; n_scored: the scored ones; n_truth_void: those where ground truth is
        void. The others' images have no label map.
    accuracy: right / scored, in 0..1; None if nothing was scored.
    confusion: `(C, C + 1)` int64; rows ground truth, columns answers, the last one void.
    class_accuracy: `(C,)`, right / scored of the class that is true; NaN where it never is.
    class_seconds: `(C,)`, mean seconds per pixel of it, as in Pace; NaN where none is known.
    pace: of all answers.
    """

    n_answered: int
    n_scored: int
    n_truth_void: int
    accuracy: float | None
    confusion: np.ndarray
    class_accuracy: np.ndarray
    class_seconds: np.ndarray
    pace: Pace


def score(annotations: Iterable[Annotation], truth: GroundTruth, classes: ClassSet) -> Score:
    """Raises InputError for an answer that is no class, and for an unusable label map."""
    answered = [a for a in annotations if a.label is not None]
    check_labels(answered, classes)
    index_of = {name: i for i, name in enumerate((*classes.class_names, VOID_NAME))}
    confusion = np.zeros((classes.n_classes, classes.n_classes + 1), np.int64)
    of_class: list[list[Annotation]] = [[] for _ in classes.classes]
    n_truth_void = 0
    for answer in answered:
        true = truth.label(answer)
        if true == VOID_NAME:
            n_truth_void += 1
        elif true is not None:
            confusion[index_of[true], index_of[answer.label]] += 1
            of_class[index_of[true]].append(answer)
    n_true, right = confusion.sum(axis=1), confusion.diagonal()
    n_scored = int(n_true.sum())
    seconds = [pace(answers).mean for answers in of_class]
    return Score(
        n_answered=len(answered), n_scored=n_scored, n_truth_void=n_truth_void,
        accuracy=int(right.sum()) / n_scored if n_scored else None, confusion=confusion,
        class_accuracy=np.divide(right, n_true, out=np.full(len(n_true), np.nan),
                                 where=n_true > 0),
        class_seconds=np.array([np.nan if s is None else s for s in seconds]),
        pace=pace(answered))


def check_labels(annotations: Iterable[Annotation], classes: ClassSet) -> None:
    """Raises InputError, with the pixel, for an answer that is neither a class nor void."""
    known = {*classes.class_names, VOID_NAME}
    for a in annotations:
        if a.label not in known:
            raise InputError(f"{a.image} ({a.y}, {a.x}): the answer {a.label!r} is no class of "
                             f"{classes.name}; known are {', '.join(classes.class_names)} and "
                             f"{VOID_NAME}")


# --- in words -----------------------------------------------------------------------------------


def score_lines(score: Score, classes: ClassSet) -> list[str]:
    """The score as plain text: accuracy, by class, the most frequent confusions, seconds."""
    n_alone = score.n_answered - score.n_scored - score.n_truth_void
    left_out = ", ".join(f"{n} {what}" for n, what in (
        (score.n_truth_void, "where it is void"), (n_alone, "without a label map")) if n)
    lines = [f"ground truth: {score.confusion.trace()} of {score.n_scored} answers are right, "
             f"{percent(score.accuracy)}" + (f" (not scored: {left_out})" if left_out else "")]
    n_void = score.confusion[:, -1].sum()
    if n_void:
        lines.append(f"{n_void} of the wrong ones are void")
    if score.n_scored:
        n_true = score.confusion.sum(axis=1)
        lines += aligned([("class", "pixels", "right", "seconds")] + [
            (name, str(n_true[i]), percent(score.class_accuracy[i]),
             seconds_text(score.class_seconds[i]))
            for i, name in enumerate(classes.class_names) if n_true[i]])
    return lines + _confusion_lines(score, classes) + [pace_line(score.pace)]


def _confusion_lines(score: Score, classes: ClassSet) -> list[str]:
    wrong = score.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_N_CONFUSIONS]
    answers = (*classes.class_names, VOID_NAME)
    rows = [(f"  {classes.class_names[true]} -> {answers[answer]}", str(wrong[true, answer]))
            for true, answer in zip(*np.unravel_index(order, wrong.shape), strict=True)
            if wrong[true, answer]]
    return ["most frequent confusions (ground truth -> answer):", *aligned(rows)] if rows else []


def pace_line(pace: Pace) -> str:
    line = (f"seconds per pixel: mean {seconds_text(pace.mean)}, median "
            f"{seconds_text(pace.median)}")
    if pace.n_slow:
        line += f"; flagged and left out, because over {SLOW_SECONDS:.0f} s: {pace.n_slow}"
    return line


def percent(share: float | None) -> str:
    """A share in 0..1 as "86.8 %", "-" for None and NaN."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def seconds_text(seconds: float | None) -> str:
    return "-" if seconds is None or math.isnan(seconds) else f"{seconds:.2f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length as lines: the first column is flush left, the others are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0])]
                      + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
                      ) for row in rows]
