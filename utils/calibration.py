"""Calibration: is a network that is 80 % sure right in 80 % of the cases?

Expected calibration error over equal-width bins of confidence, and the reliability curve: C. Guo,
G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

N_BINS = 15  # as in the paper
_UNIT = 1 << 20  # confidences are added as integers: the sum depends on no order and no batch size


class Calibration:
    """Per bin of confidence the number of pixels, of right ones, and the sum of confidences, kept
    on the device; void is not counted."""

    def __init__(self, *, ignore_index: int, device: torch.device, n_bins: int = N_BINS) -> None:
        self._n_bins, self._ignore_index = n_bins, ignore_index
        self.sums = torch.zeros(3, n_bins, dtype=torch.int64, device=device)

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Probabilities `(B, C, ...)` and class indices `(B, ...)`, any integer type."""
        confidence, predicted = probabilities.float().max(dim=1)  # (B, ...)
        # Bin m of M is ((m - 1) / M, m / M].
        cell = (confidence * self._n_bins).ceil().long().clamp(1, self._n_bins) - 1
        cell = cell.masked_fill(labels == self._ignore_index, self._n_bins)
        parts = (torch.ones_like(cell), (predicted == labels).long(),
                 (confidence * _UNIT).round().long())
        # By column, as in utils.metrics: additions of neighbouring pixels go to different places.
        cell = cell.reshape(-1, cell.shape[-1])
        for total, part in zip(self.sums, parts, strict=True):
            columns = cell.new_zeros(self._n_bins + 1, cell.shape[1])
            columns.scatter_add_(0, cell, part.reshape(cell.shape))
            total += columns[:-1].sum(dim=1)

    def compute(self) -> Reliability:
        return reliability_of(self.sums.cpu().numpy())


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Per bin, `(M,)`: `count` pixels, the share of right ones (`accuracy`) and the mean
    `confidence`, both in 0..1 and NaN in an empty bin."""

    count: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error, in 0..1; NaN without a pixel."""
        return self._mean(np.abs(self.accuracy - self.confidence))

    @property
    def mean_accuracy(self) -> float:
        """Of all pixels."""
        return self._mean(self.accuracy)

    @property
    def mean_confidence(self) -> float:
        return self._mean(self.confidence)

    def _mean(self, values: np.ndarray) -> float:
        """Of the bins, weighted by their pixels."""
        known = self.count > 0
        return float(np.average(values[known], weights=self.count[known])) if known.any() \
            else math.nan


def reliability_of(sums: np.ndarray) -> Reliability:
    """Of `Calibration.sums` `(3, M)`; those of several processes or parts may have been added."""
    count, right, confidence = np.asarray(sums, np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Reliability(count=count, accuracy=right / count,
                           confidence=confidence / count / _UNIT)


def pooled(parts: Sequence[Reliability]) -> Reliability:
    """Of the pixels of all parts, with the same bins."""
    count = np.sum([part.count for part in parts], axis=0)
    with np.errstate(invalid="ignore"):
        accuracy, confidence = (np.nansum([part.count * value(part) for part in parts], axis=0)
                                / count for value in
                                (lambda part: part.accuracy, lambda part: part.confidence))
    return Reliability(count=count, accuracy=accuracy, confidence=confidence)
