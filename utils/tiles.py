"""Images that are too large for a network at once: overlapping tiles, blended without seams."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import torch
from torch import Tensor

# Tiles start at multiples of it, so that every tile's feature maps lie on those of the image: the
# largest stride of a backbone.
TILE_STRIDE = 32


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tiles of `size` (height, width), multiples of TILE_STRIDE, that overlap by at least
    `overlap` pixels, fewer than either side has."""

    size: tuple[int, int]
    overlap: int

    def needed(self, size: tuple[int, int]) -> bool:
        """Whether an image of this size is larger than a tile."""
        return any(length > tile for length, tile in zip(size, self.size, strict=True))

    def logits_map(self, image: np.ndarray, run: Callable[[np.ndarray], Tensor], *,
                   batch_size: int) -> Tensor:
        """`(C, h, w)` on the CPU of an image `(H, W, 3)`, of which `run` gets `(B, th, tw, 3)` and
        gives `(B, C, ceil(th / s), ceil(tw / s))`, s the same for every tile.

        Where tiles overlap, their logits are averaged with weights that fall to zero at a tile's
        edges as the sine squared does: nothing jumps where a tile ends."""
        rows, columns = (self._spans(axis, length) for axis, length in enumerate(image.shape[:2]))
        total = norm = None
        for batch in _of_one_size(rows, columns, batch_size):
            tiles = np.stack([image[slice(*row), slice(*column)] for row, column in batch])
            logits = run(tiles).cpu()
            if total is None:
                stride = round(max(tiles.shape[1] / logits.shape[2],
                                   tiles.shape[2] / logits.shape[3]))
                size = [math.ceil(length / stride) for length in image.shape[:2]]
                total, norm = torch.zeros(logits.shape[1], *size), torch.zeros(size)
            ramps = [self._ramp(axis, logits.shape[2 + axis], stride) for axis in (0, 1)]
            weights = ramps[0][:, None] * ramps[1]  # (th / s, tw / s)
            for of_tile, (row, column) in zip(logits, batch, strict=True):
                top, left = row[0] // stride, column[0] // stride
                place = (slice(top, top + weights.shape[0]), slice(left, left + weights.shape[1]))
                total[(slice(None), *place)] += weights * of_tile
                norm[place] += weights
        return total.div_(norm)

    def _step(self, axis: int) -> int:
        step = (self.size[axis] - self.overlap) // TILE_STRIDE * TILE_STRIDE
        return max(step, TILE_STRIDE)

    def _spans(self, axis: int, length: int) -> list[tuple[int, int]]:
        """First and last (excluded) row or column of the tiles of an axis; the last tile ends with
        the image."""
        tile = self.size[axis]
        if length <= tile:
            return [(0, length)]
        last = math.ceil((length - tile) / TILE_STRIDE) * TILE_STRIDE
        starts = [*range(0, last, self._step(axis)), last]
        return [(start, min(start + tile, length)) for start in starts]

    def _ramp(self, axis: int, n: int, stride: int) -> Tensor:
        """Weights `(n,)` along a tile: they rise from its first pixel over the overlap to 1, and
        fall to its last. Over an overlap the two tiles' add up to 1."""
        width = min((self.size[axis] - self._step(axis)) // stride, n)
        if width == 0:
            return torch.ones(n)
        rise = ((torch.arange(n) + 0.5) / width).clamp(max=1)
        rise = torch.sin(rise * (math.pi / 2)).square()
        return torch.minimum(rise, rise.flip(0))


def _of_one_size(rows: list[tuple[int, int]], columns: list[tuple[int, int]],
                 batch_size: int) -> Iterator[list[tuple[tuple[int, int], tuple[int, int]]]]:
    """All tiles (row span, column span), those of one size in batches."""
    groups: dict[tuple[int, int], list] = {}
    for row, column in product(rows, columns):
        groups.setdefault((row[1] - row[0], column[1] - column[0]), []).append((row, column))
    for group in groups.values():
        tiles = iter(group)
        while batch := list(islice(tiles, batch_size)):
            yield batch
