"""Training batches: drawn by indexing, augmented on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from datasets.augment import Augmentation, Draw, Warp, colour, normalise
from datasets.caches import Images
from datasets.images import IGNORE
from datasets.points import VOID
from datasets.prefetch import fetched
from datasets.stored import Canvas
from utils.device import constant, upload
from utils.seeds import random_generator


@dataclass(frozen=True, kw_only=True)
class Batch:
    """images `(B, 3, h, w)` normalised. Sparse: points `(B, P, 2)`, labels `(B, P)` int64, VOID
    pads, and statistics_points `(B, S, 2)`. Dense: labels `(B, h, w)` int64, IGNORE is void.
    weak_images: the images before their colours were changed, for a teacher."""

    images: Tensor
    labels: Tensor
    points: Tensor | None = None
    statistics_points: Tensor | None = None
    weak_images: Tensor | None = None

    @property
    def ignore_index(self) -> int:
        return IGNORE if self.points is None else VOID


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Images `(N, H, W, 3)` uint8 with `sizes` `(N, 2)` and `names`, and what supervises them:
    `points` `(N, P, 2)` with `labels` `(N, P)`, or label maps `(N, H, W)` uint8 alone. They lie
    where there is room for them; batches are made on `device`."""

    names: list[str]
    sizes: np.ndarray
    images: Images | Tensor
    labels: Tensor | Canvas
    points: Tensor | None = None
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How a batch is split: over `world_size` processes, of which this one is `rank`, and there
    into `n_pieces` that are trained on one after the other.

    smallest_batch, smallest_piece: images that they need. A batch of one image is none for batch
    norm after the image pooling, which has one value a channel and image; 1 where it is frozen."""

    rank: int = 0
    world_size: int = 1
    n_pieces: int = 1
    smallest_batch: int = 2
    smallest_piece: int = 2

    def pieces(self, index: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """This process' `n_pieces` of a batch `(B,)`: images, and how many of them count.

        The sizes of all pieces differ by one at most. Where that leaves fewer images than a piece
        needs (the last batch of an epoch), it also has other images of the batch, to complete batch
        norm's statistics; their labels do not count, so that each counts once."""
        parts = np.array_split(index, self.world_size * self.n_pieces)
        return [(np.concatenate([part, self._others(part, np.roll(index, -number))]), len(part))
                for number, part in enumerate(parts)][self.rank::self.world_size]

    def _others(self, part: np.ndarray, index: np.ndarray) -> np.ndarray:
        return index[~np.isin(index, part)][: max(self.smallest_piece - len(part), 0)]


def n_batches(n_images: int, batch_size: int, *, smallest: int = 2) -> int:
    """Batches an epoch, of any number of processes and pieces. A last batch of fewer than
    `smallest` images is left out: the image pooling's batch norm cannot train on one value a
    channel."""
    return n_images // batch_size + (n_images % batch_size >= smallest)


def training_batches(data: TrainingSet, *, augmentation: Augmentation, batch_size: int,
                     n_statistics_points: int, key: tuple[int | str, ...],
                     splitting: Splitting | None = None,
                     with_weak: bool = False) -> Iterator[Batch]:
    """One epoch in random order: of every batch the pieces that `splitting` gives this process,
    all of it by default. Every draw is keyed by `key` (seed, round and epoch) and the image's name,
    so that it depends on no other image and no batch.

    with_weak: whether the batches of points have `weak_images`."""
    splitting = splitting or Splitting()
    order = random_generator(*key, "order").permutation(len(data.names))
    pieces = [piece for start in range(n_batches(len(order), batch_size,
                                                 smallest=splitting.smallest_batch))
              for piece in splitting.pieces(order[start * batch_size : (start + 1) * batch_size])]
    batches = [index for index, _ in pieces]
    for (index, n_own), images, labels in zip(
            pieces, fetched(data.images, batches, data.device),
            fetched(data.labels, batches, data.device), strict=True):
        draw = Draw.stack([
            augmentation.draw(random_generator(*key, data.names[i]), data.sizes[i],
                              n_statistics_points=n_statistics_points) for i in index])
        batch = augmented_batch(data, index, draw, images=images, labels=labels,
                                augmentation=augmentation, with_weak=with_weak)
        if n_own < len(index):
            batch.labels[n_own:] = batch.ignore_index
        yield batch


def augmented_batch(data: TrainingSet, index: np.ndarray, draw: Draw, *, images: Tensor,
                    labels: Tensor, augmentation: Augmentation, with_weak: bool = False) -> Batch:
    """The images of `index`, `(B, H, W, 3)` uint8, with their `labels`, under `draw`."""
    device = data.device
    warp = Warp(draw, sizes=data.sizes[index], crop=augmentation.crop, device=device)
    fill = constant(tuple(augmentation.mean), device)
    normal = partial(normalise, mean=augmentation.mean, std=augmentation.std)
    images = warp.images(images, fill=fill)
    weak_images = normal(images) if with_weak else None
    images = normal(colour(images, draw))
    if data.points is None:
        return Batch(images=images, labels=warp.labels(labels))
    points = data.points[upload(index, data.points.device)].to(device)
    points, labels = warp.points(points, labels)
    statistics = upload(draw.statistics_points.astype(np.float32), device)
    return Batch(images=images, labels=labels, points=points, statistics_points=statistics,
                 weak_images=weak_images)
