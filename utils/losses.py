"""Cross-entropy at points and on label maps, and how its classes are balanced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.stored import Canvas

_AT_ONCE = 64  # images whose label maps are in memory at a time


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Weighted mean of the cross-entropy over labelled positions, plain by default.

    weights: `(C,)`, of the classes. offsets: `(C,)`, added to the logits, in training alone.
    focal: gamma of (1 - p)^gamma, p the probability of the label, which weighs a position in the
        sum but not in what it is divided by (Lin et al., arXiv 1708.02002, equation 4)."""

    weights: Tensor | None = None
    offsets: Tensor | None = None
    focal: float = 0.0

    def weight_of(self, labels: Tensor, *, ignore_index: int) -> Tensor:
        """What the sum over `labels` is divided by: the sum of their weights, `()`."""
        labelled = labels != ignore_index
        if self.weights is None:
            return labelled.sum()
        return (self.weights[labels.where(labelled, 0)] * labelled).sum()

    def __call__(self, logits: Tensor, labels: Tensor, *, ignore_index: int,
                 total: Tensor | None = None) -> Tensor:
        """Points: logits `(B, P, C)`, labels `(B, P)`. Maps: logits `(B, C, h, w)`, first resized
        (bilinear) to labels `(B, H, W)`.

        total: what to divide the sum by instead of `weight_of(labels)`.
        Without a single label the loss is zero and still attached to the graph, not NaN."""
        if logits.ndim == 4:
            logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear",
                                   align_corners=False)
        else:
            logits = logits.transpose(1, 2)  # (B, P, C) -> (B, C, P)
        if self.offsets is not None:
            logits = logits + self.offsets.view(-1, *[1] * (logits.ndim - 2))
        if total is None:
            total = self.weight_of(labels, ignore_index=ignore_index)
        losses = F.cross_entropy(logits, labels, ignore_index=ignore_index, weight=self.weights,
                                 reduction="none" if self.focal else "sum")
        if self.focal:
            labelled = labels.where(labels != ignore_index, 0)[:, None]
            p = logits.softmax(dim=1).gather(1, labelled).squeeze(1)
            # Not zero: there a power below 1 has no gradient.
            rest = (1 - p).clamp(min=torch.finfo(p.dtype).eps)
            losses = (losses * rest ** self.focal).sum()
        # Without labels the sum is zero, whatever it is divided by.
        return losses / total.clamp(min=torch.finfo(torch.float32).tiny)


def balanced(labels: np.ndarray | Canvas, *, n_classes: int, device: torch.device,
             class_balance: float = 0.0, logit_adjustment: float = 0.0,
             focal: float = 0.0) -> CrossEntropy:
    """The loss for `labels` `(N, ...)` (void: outside 0 .. C - 1), balanced by their frequencies.

    class_balance: the weights are frequencies to the power of minus this, of mean 1 over the
        labels; a class without labels has the weight of one with a single one. Without a single
        label there are no weights.
    logit_adjustment: tau of tau * log(frequency), added to the logits in training (Menon et al.,
        arXiv 2007.07314, equation 10); smoothed by one label a class."""
    if not (class_balance or logit_adjustment):
        return CrossEntropy(focal=focal)
    counts = torch.from_numpy(class_counts(labels, n_classes=n_classes)).float()
    weights = offsets = None
    if class_balance and counts.any():
        weights = counts.clamp(min=1) ** -class_balance
        weights = (weights * (counts.sum() / (weights * counts).sum())).to(device)
    if logit_adjustment:
        offsets = (logit_adjustment * ((counts + 1) / (counts + 1).sum()).log()).to(device)
    return CrossEntropy(weights=weights, offsets=offsets, focal=focal)


def class_counts(labels: np.ndarray | Canvas, *, n_classes: int) -> np.ndarray:
    """How many of `labels` `(N, ...)` have each class, `(C,)` int64; others do not count."""
    counts = np.zeros(n_classes, np.int64)
    for start in range(0, len(labels), _AT_ONCE):
        of_part = labels[np.arange(start, min(start + _AT_ONCE, len(labels)))]
        known = (of_part >= 0) & (of_part < n_classes)
        counts += np.bincount(of_part[known], minlength=n_classes)
    return counts


cross_entropy: Callable[..., Tensor] = CrossEntropy()
