"""What was asked and answered, as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.points import VOID
from utils.report.recorded import Round

_PER_CELL = 6  # asked pixels in a cell of the map of positions, were they uniform


def answers_by_class(rounds: Sequence[Round], n_classes: int) -> np.ndarray:
    """Answers that are classes, `(R, C)`."""
    return np.array([np.bincount(known[known < n_classes], minlength=n_classes)
                     for known in (r.answers.label[r.answers.label != VOID] for r in rounds)
                     ]).reshape(-1, n_classes)


def positions(rounds: Sequence[Round]) -> np.ndarray:
    """(y, x) of the asked pixels in 0..1 of their image's height and width, `(P, 2)`."""
    parts = [(asked + 0.5) / size for r in rounds
             for asked, size in zip(r.query.pixels, r.query.sizes, strict=True)]
    return np.concatenate([*parts, np.zeros((0, 2))])


def density(places: np.ndarray, *, aspect: float) -> np.ndarray:
    """Asked pixels in cells over the image, `(h, w)`, where 1 is as many as uniform draws would
    have. aspect: width by height of an image."""
    cells = max(len(places) / _PER_CELL, 1)
    height = int(np.clip(round(math.sqrt(cells / aspect)), 2, 24))
    width = int(np.clip(round(height * aspect), 2, 48))
    counts, _, _ = np.histogram2d(*places.T, bins=(height, width), range=((0, 1), (0, 1)))
    return counts * height * width / max(len(places), 1)


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Of a round's pixels: the `probability` of the class that the network predicted there, its
    `score`; `right`: the share of predictions that the answer confirmed (void left out)."""

    probability: np.ndarray
    score: np.ndarray
    right: float


def uncertainty(r: Round) -> Uncertainty | None:
    """None where no network was asked."""
    query = r.query
    if query is None or query.probabilities is None or query.scores is None:
        return None
    return Uncertainty(probability=_flat(query.probabilities), score=_flat(query.scores),
                       right=_share_right(r))


def _share_right(r: Round) -> float:
    if r.answers is None or r.query.predictions is None:
        return math.nan
    predicted = {(i, *pixel): int(p) for i, (pixels, of_image) in
                 enumerate(zip(r.query.pixels, r.query.predictions, strict=True))
                 for pixel, p in zip(pixels.tolist(), of_image, strict=False)}
    answers = zip(*(getattr(r.answers, name).tolist() for name in ("image", "y", "x", "label")),
                  strict=True)
    right = [predicted[tuple(place)] == label for *place, label in answers
             if label != VOID and tuple(place) in predicted]
    return float(np.mean(right)) if right else math.nan


def _flat(values: Sequence[np.ndarray]) -> np.ndarray:
    found = np.concatenate([*values, np.zeros(0)])
    return found[np.isfinite(found)]
