"""Written predictions against label maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from datasets.images import IGNORE, read_label, read_raw_label, resize_label
from datasets.spec import ClassSet
from datasets.stored import read_all
from utils.errors import InputError
from utils.metrics import ConfusionMatrix, segmentation_scores


def evaluate_files(pairs: Mapping[Path, Path], *, classes: ClassSet,
                   n_threads: int) -> tuple[np.ndarray, dict[Path, str]]:
    """Confusion matrix `(C, C)` of label maps (prediction -> truth, in the data set's own coding)
    at the truth's size, to which a prediction of another size is brought by the pixel under each
    centre; and why which ones could not be read."""
    pairs = list(pairs.items())
    broken: dict[Path, str] = {}
    confusion = ConfusionMatrix(classes.n_classes, ignore_index=IGNORE, device=torch.device("cpu"))

    def read(index: int) -> tuple[np.ndarray, np.ndarray] | None:
        prediction, truth = pairs[index]
        try:
            label = read_label(truth, spec=classes)
        except InputError as error:
            broken[truth] = str(error)
            return None
        return resize_label(read_raw_label(prediction), label.shape), label

    for pair in read_all(read, range(len(pairs)), n_threads=n_threads, total=len(pairs),
                         description="evaluating"):
        if pair is not None:
            confusion.update(*map(torch.from_numpy, pair))
    return confusion.compute(), broken


def scores_to_write(confusion: np.ndarray, classes: ClassSet) -> dict:
    """For JSON: `miou`, `pixel_accuracy`, `mean_accuracy`, `iou` by class name (None: the class
    does not occur) and `confusion` (rows are true classes, columns predicted ones)."""
    scores = segmentation_scores(confusion)
    iou = dict(zip(classes.class_names, map(_or_none, scores.pop("iou")), strict=True))
    return {name: _or_none(value) for name, value in scores.items()} | {
        "iou": iou, "confusion": confusion.tolist()}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def scores_table(scores: dict) -> str:
    """What `scores_to_write` gave, in percent, a line a class."""
    width = max(map(len, [*scores["iou"], "pixel accuracy"]))
    rows = [("class", "IoU %"), *((name, _percent(value)) for name, value in scores["iou"].items()),
            ("mIoU", _percent(scores["miou"])),
            ("pixel accuracy", _percent(scores["pixel_accuracy"])),
            ("mean accuracy", _percent(scores["mean_accuracy"]))]
    return "\n".join(f"{name:<{width}}  {value:>6}" for name, value in rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
