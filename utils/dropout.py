"""Dropout in a trained network, by masks that depend on a seed for each image alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from utils.errors import InputError

# Kind of module -> how many dimensions of a map (C, H, W) are dropped as one.
_DROPPED_TOGETHER: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout2d: 2}

# Which of a network's dropout modules drop in a committee's passes; the last one stands before the
# classifier.
MC_LAYERS: dict[str, slice] = {"all": slice(None), "last": slice(-1, None)}


def active_dropout(network: nn.Module, layers: str = "all") -> list[nn.Module]:
    """The modules that drop something, of those that `layers` of MC_LAYERS chooses. Raises
    InputError if there are none: all passes of a committee would be equal."""
    modules = [module for module in _dropout(network)[MC_LAYERS[layers]] if module.p > 0]
    if not modules:
        raise InputError("--use_mc_dropout needs a network with dropout; this one has none (is "
                         "--mc_dropout_p 0?)")
    return modules


def only_last_drops(network: nn.Module, layers: str) -> bool:
    """Whether all that drops stands before the classifier. Raises as `active_dropout` does."""
    return active_dropout(network, layers) == _dropout(network)[-1:]


def _dropout(network: nn.Module) -> list[nn.Module]:
    """In the order in which it is used, that of the modules."""
    return [module for module in network.modules() if type(module) in _DROPPED_TOGETHER]


@contextmanager
def keyed_dropout(network: nn.Module, seeds: Sequence[int], *,
                  layers: str = "all") -> Iterator[None]:
    """Within it the nn.Dropout and nn.Dropout2d of a network in eval mode, those of `layers` of
    MC_LAYERS, drop, each by its own p; no module changes its mode.

    seeds: one for each image of the batch. Torch's own dropout draws once for a whole batch; here
        what an image loses is the same in every batch. Masks are drawn on the network's device:
        CPU and GPU draw different ones.
    Raises InputError as `active_dropout` does."""
    modules = active_dropout(network, layers)
    generators: list[torch.Generator] = []

    def drop(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not generators:
            generators.extend(torch.Generator(output.device).manual_seed(s) for s in seeds)
        keep = 1 - module.p
        return output * _masks(output, generators, keep, _DROPPED_TOGETHER[type(module)])

    handles = [module.register_forward_hook(drop) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _masks(features: Tensor, generators: Sequence[torch.Generator], keep: float,
           n_together: int) -> Tensor:
    """0, or with probability `keep` 1 / `keep`: `(B, C, H, W)`, of size 1 in the last `n_together`
    dimensions; image i is drawn by generator i."""
    shape = [*features.shape[:features.ndim - n_together], *[1] * n_together]
    shape.append(shape.pop(1))  # channels last in memory, as the features are
    drawn = features.new_empty(shape)
    for mask, generator in zip(drawn, generators, strict=True):
        torch.rand(mask.shape, generator=generator, out=mask)
    return (drawn < keep).to(features.dtype).div_(keep or 1).movedim(-1, 1)
