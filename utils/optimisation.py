"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn


def _multistep(progress: float) -> float:
    """A tenth after 0.4 and a hundredth after 0.8 of the epochs (PixelPick on CamVid)."""
    return 0.1 ** ((progress >= 0.4) + (progress >= 0.8))


def _poly(progress: float) -> float:
    """(1 - progress) ** 0.9 (DeepLab, arXiv 1606.00915, section 4)."""
    return (1 - progress) ** 0.9


def _cosine(progress: float) -> float:
    """Half a cosine (Loshchilov and Hutter, arXiv 1608.03983, equation 5, without restarts)."""
    return (1 + math.cos(math.pi * progress)) / 2


def _constant(progress: float) -> float:
    return 1.0


# Fraction of the training done, in [0, 1) -> factor of the learning rate.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "multistep": _multistep, "poly": _poly, "cosine": _cosine, "constant": _constant,
}

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, betas=(0.9, 0.999), eps=1e-7, fused=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9, fused=True),
}


def build_optimizer(network: nn.Module, *, name: str, lr: float, backbone_lr_factor: float,
                    weight_decay: float) -> torch.optim.Optimizer:
    """The backbone learns at `lr * backbone_lr_factor`, everything else at `lr`."""
    backbone = list(network.backbone.parameters())
    inside = {id(parameter) for parameter in backbone}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    groups = [{"params": rest, "lr": lr}, {"params": backbone, "lr": lr * backbone_lr_factor}]
    return OPTIMIZERS[name](groups, lr=lr, weight_decay=weight_decay)


def build_schedule(optimizer: torch.optim.Optimizer, *, name: str, n_steps: int) -> LambdaLR:
    """To be stepped after each of `n_steps` optimiser steps."""
    # The last call, after the last step, asks for progress 1; it is never trained with.
    return LambdaLR(optimizer, lambda step: SCHEDULES[name](min(step / n_steps, 1.0)))


class Average:
    """An exponential moving average of a network's parameters and buffers, `module`, in eval mode.
    (torch's AveragedModel is the same, but on a GPU the host waits in each of its updates.)

    n_averaged: how many updates there were. The first one copies; the one after n of them keeps
        min(decay, (1 + n) / (10 + n)) of the average, so that the random weights of the start do
        not stay in that of a short training."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.module, self._decay, self.n_averaged = deepcopy(network).eval(), decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """With the network's present weights."""
        n = self.n_averaged
        kept = min(self._decay, (1 + n) / (10 + n)) if n else 0.0
        pairs = list(zip(_state(self.module), _state(network), strict=True))
        averages, current = map(list, zip(*(p for p in pairs if p[0].is_floating_point()),
                                          strict=True))
        get_ema_multi_avg_fn(kept)(averages, current, n)
        for count, new in pairs:
            if not count.is_floating_point():
                count.copy_(new)
        self.n_averaged += 1


def _state(network: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(network.parameters(), network.buffers())
