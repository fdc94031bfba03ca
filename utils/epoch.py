"""An epoch of training: steps of one or more batches, the loss at points or on maps."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from datasets.batches import Batch
from utils.batch_norm import train_mode
from utils.distributed import is_parallel, sum_over_ranks, without_exchange, world_size
from utils.losses import CrossEntropy
from utils.teacher import Teacher


def forward_of(autocast: Callable[[], AbstractContextManager], *,
               at_all: bool = False) -> Callable[..., Tensor]:
    """The forward pass of training, under `autocast`; `at_all`: see `network(x, points)`."""
    def forward(network: nn.Module, images: Tensor, points: Tensor | None = None,
                statistics_points: Tensor | None = None) -> Tensor:
        with autocast():
            if points is None:
                return network(images)
            return network(images, points, statistics_points=statistics_points, at_all=at_all)

    return forward


def train_one_epoch(network: nn.Module, batches: Iterable[Batch], *,
                    optimizer: torch.optim.Optimizer,
                    schedule: torch.optim.lr_scheduler.LRScheduler,
                    backward: Callable[..., Tensor], forward: Callable[..., Tensor],
                    step_done: Callable[[Tensor], None], loss: CrossEntropy,
                    teacher: Teacher | None = None, n_pieces: int = 1,
                    freeze_bn: bool = False) -> float:
    """Mean loss of the epoch; `forward` as `forward_of` returns it, called by `backward` as the
    function below does; `step_done` is called after each step with its loss, still on the device.

    A step is made of `n_pieces` batches in a row, and of those of all processes: its loss is the
    (weighted) mean over the labelled positions in all of them, and what a `teacher` adds, the mean
    of the batches'."""
    train_mode(network, freeze_bn=freeze_bn)
    batches, losses = iter(batches), []
    while pieces := list(itertools.islice(batches, n_pieces)):
        weights = [loss.weight_of(batch.labels, ignore_index=batch.ignore_index)
                   for batch in pieces]
        total = sum_over_ranks(sum(weights[1:], start=weights[0]))
        part = functools.partial(backward, network, total=total, forward=forward, loss=loss,
                                 teacher=teacher, n_pieces=len(pieces))
        optimizer.zero_grad()
        with without_exchange(network):
            parts = [part(batch) for batch in pieces[:-1]]
        parts.append(part(pieces[-1]))
        optimizer.step()
        schedule.step()
        losses.append(sum(parts[1:], start=parts[0]))
        step_done(losses[-1])
    return (sum_over_ranks(torch.stack(losses).mean()) / world_size()).item()


def backward(network: nn.Module, batch: Batch, total: Tensor, *, forward: Callable[..., Tensor],
             loss: CrossEntropy, teacher: Teacher | None = None, n_pieces: int = 1) -> Tensor:
    """Adds the gradient of a batch's part of a mean over positions of weight `total` in all; that
    part. Both times the number of processes, over which they are averaged later."""
    logits = forward(network, batch.images, batch.points, batch.statistics_points)
    if teacher:
        logits, drawn = logits.tensor_split([batch.points.shape[1]], dim=1)
    part = loss(logits, batch.labels, ignore_index=batch.ignore_index, total=total)
    if is_parallel():
        part = world_size() * part
    if teacher:
        part = part + teacher.loss(batch, drawn) / n_pieces
    part.backward()
    return part.detach()
