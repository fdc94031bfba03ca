"""Unlabelled points teach: the average of the network's weights (a mean teacher, Tarvainen and
Valpola, arXiv 1703.01780) says what is at uniformly drawn points of images whose colours are as
they are, and the network learns to say the same where they are changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.batches import Batch

_RAMP_UP = 0.4  # of the training


def _hard(probabilities: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """The likeliest class alone, trusted from the threshold on, in proportion to the rest."""
    confidence, label = probabilities.max(dim=-1)
    trust = ((confidence - threshold) / (1 - threshold)).clamp(min=0)
    return torch.zeros_like(probabilities).scatter(-1, label[..., None], 1.0), trust


def _soft(probabilities: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """The probabilities, trusted the more the lower their entropy, from 1 - threshold of its range
    on."""
    certainty = 1 - torch.special.entr(probabilities).sum(-1) / math.log(probabilities.shape[-1])
    return probabilities, ((certainty - threshold) / (1 - threshold)).clamp(min=0)


# Name -> probabilities (B, S, C) -> targets (B, S, C) and how far to trust them, (B, S) in 0..1.
TARGETS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"hard": _hard, "soft": _soft}


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """network: the averaged one, in eval mode. progress: the fraction of the training done; the
    `weight` of this loss grows to its value over the first 0.4 of it, as exp(-5 (1 - t)^2) (Laine
    and Aila, arXiv 1610.02242). class_weights: `(C,)` or None, as the labels' loss has them."""

    network: nn.Module
    autocast: Callable[[], AbstractContextManager]
    progress: Callable[[], float]
    weight: float
    targets: str
    threshold: float
    class_weights: Tensor | None

    def loss(self, batch: Batch, logits: Tensor) -> Tensor:
        """Of the network's logits `(B, S, C)` at the statistics points: `()`, times the weight."""
        with torch.no_grad(), self.autocast():
            taught = self.network(batch.weak_images, batch.statistics_points)
        targets, trust = TARGETS[self.targets](taught.softmax(dim=-1), threshold=self.threshold)
        losses = -(targets * logits.log_softmax(dim=-1)).sum(dim=-1)  # (B, S)
        weights = torch.ones_like(trust)
        if self.class_weights is not None:
            weights = self.class_weights[taught.argmax(dim=-1)]
        ramp = math.exp(-5 * (1 - min(self.progress() / _RAMP_UP, 1.0)) ** 2)
        return self.weight * ramp * (weights * trust * losses).sum() / weights.sum()
