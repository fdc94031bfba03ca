"""The windows of a feature map around points, looked up without computing anything elsewhere."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from utils.device import constant
from utils.geometry import rescale_coordinate


def rescale_points(points: Tensor, *, size_from: tuple[int, int],
                   size_to: tuple[int, int]) -> Tensor:
    """`(..., 2)`, (y, x) in pixels of an image or map of `size_from` -> of `size_to`, float32."""
    axes = zip(points.float().unbind(dim=-1), size_from, size_to, strict=True)
    return torch.stack([rescale_coordinate(coordinate, size_from=length, size_to=new_length)
                        for coordinate, length, new_length in axes], dim=-1)


@torch.compiler.assume_constant_result
def _rarity(length: int, size: int, *, device: torch.device) -> Tensor:
    """For each pixel of a side of `length`: 1 over how often it is expected in windows of `size`
    around uniform points, relative to an inner pixel, `(length,)`."""
    return constant(_rarities(length, size), device)


@functools.cache
def _rarities(length: int, size: int) -> tuple[float, ...]:
    # A corner stands for one pixel of points; the first and last also for the half pixel between
    # the map's outermost centres and its edge (a map of one pixel has no more).
    corners = np.ones(max(length - 1, 1), np.float32)
    corners[0] += (length - len(corners)) / 2
    corners[-1] += (length - len(corners)) / 2
    reached = sliding_window_view(np.pad(corners, size // 2), size)
    return tuple((1 / reached.mean(axis=1)).tolist())


def conv3x3(windows: Tensor, weight: Tensor) -> Tensor:
    """`F.conv2d` without padding, of many small maps: `(N, C, k, k)` and weights `(D, C, 3, 3)` ->
    `(N, D, k - 2, k - 2)`.

    On a CPU as one product of matrices: oneDNN's gradients of such a convolution take about twice
    as long (benchmarks/convolutions.py)."""
    if not windows.is_cpu:
        return F.conv2d(windows, weight)
    if torch.is_autocast_enabled("cpu"):  # here, before there is nine times as much to convert
        windows = windows.to(torch.get_autocast_dtype("cpu"))
    rows, size = windows.permute(0, 2, 3, 1), windows.shape[-1] - 2
    around = torch.cat([rows[:, y:y + size, x:x + size] for y in range(3) for x in range(3)],
                       dim=3)  # (N, k - 2, k - 2, 9 * C)
    return F.linear(around, weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)


class Windows:
    """The `width` x `width` windows of a map of `size` (h, w) around `points` `(B, M, 2)`, given as
    (y, x) in pixels of the map and clamped to it; N = B * M of them, `width` even. Their central
    2x2 pixels are those of bilinear sampling, with `bilinear_weights` `(N, 1, 2, 2)`."""

    def __init__(self, points: Tensor, size: tuple[int, int], *, width: int) -> None:
        self.n_images, self.size, self.width = points.shape[0], size, width
        points = points.flatten(0, 1)  # (N, 2)
        offsets = torch.arange(width, device=points.device) - (width - 2) // 2
        sides, indices, inside = [], [], []
        for axis, length in enumerate(size):
            coordinate = points[:, axis].clamp(0, length - 1)
            # The 2x2 pixels around a point; at the last row or column, those before it.
            corner = coordinate.floor().clamp(max=max(length - 2, 0))
            fraction = coordinate - corner
            sides.append(torch.stack([1 - fraction, fraction], dim=1))  # (N, 2)
            indices.append(corner.long()[:, None] + offsets)  # (N, width)
            inside.append((indices[axis] >= 0) & (indices[axis] < length))
        self.bilinear_weights = (sides[0][:, :, None] * sides[1][:, None, :])[:, None]
        self._indices = torch.stack(indices, dim=1)  # (N, 2, width): rows and columns
        self._inside = torch.stack(inside, dim=1)
        self._image = torch.arange(self.n_images, device=points.device).repeat_interleave(
            len(points) // self.n_images)  # (N,)

    def _centred(self, size: int) -> slice:
        margin = (self.width - size) // 2
        return slice(margin, margin + size)

    def inside(self, size: int) -> Tensor:
        """`(N, 1, size, size)`: which pixels of the centred windows of `size` lie on the map."""
        rows, columns = self._inside[:, :, self._centred(size)].unbind(dim=1)
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def weights(self, size: int) -> Tensor:
        """`(N, 1, size, size)`: 1 over how often a pixel is expected in windows of `size` around
        uniform points, relative to an inner pixel; 0 outside the map.

        Pixels at the border lie in fewer windows, and the zeros around the map make just them
        unusual. So weighted, the windows' mean and variance are unbiased for the map's."""
        along = []
        for axis, length in enumerate(self.size):
            indices = self._indices[:, axis, self._centred(size)].clamp(0, length - 1)
            rarity = _rarity(length, size, device=indices.device)
            along.append(rarity[indices])  # (N, size)
        return (along[0][:, :, None] * along[1][:, None, :])[:, None] * self.inside(size)

    def gather(self, features: Tensor) -> Tensor:
        """Map `(B, C, h, w)` -> its windows `(N, C, width, width)`; the border repeats outside."""
        rows, columns = (self._indices[:, axis].clamp(0, self.size[axis] - 1) for axis in (0, 1))
        return self._lookup(features, rows, columns)

    def interpolate(self, features: Tensor) -> Tensor:
        """Map `(B, C, h', w')` of another size -> the windows `(N, C, width, width)` of its
        bilinear resize to this map's size; zero outside the map."""
        first, weights = zip(*(self._axis_weights(axis, features.shape[2 + axis])
                               for axis in (0, 1)), strict=True)
        span = [torch.arange(w.shape[2], device=w.device) for w in weights]
        rows, columns = (first[axis][:, None] + span[axis] for axis in (0, 1))
        patch = self._lookup(features, rows.clamp(max=features.shape[2] - 1),
                             columns.clamp(max=features.shape[3] - 1))  # (N, C, K, L)
        # (N, width, width, K, L) -> (N, width^2, K * L): a window's pixel is a mean over the patch.
        kernel = torch.einsum("nik,njl->nijkl", *weights).flatten(3).flatten(1, 2)
        values = kernel @ patch.permute(0, 2, 3, 1).flatten(1, 2)  # (N, width^2, C)
        return values.unflatten(1, (self.width, self.width)).permute(0, 3, 1, 2)

    def _axis_weights(self, axis: int, length: int) -> tuple[Tensor, Tensor]:
        """For one axis: the first source index `(N,)` of each window and the weights
        `(N, width, K)` of the K source pixels from there on."""
        indices, inside = self._indices[:, axis], self._inside[:, axis]
        ratio = length / self.size[axis]
        # As `F.interpolate` does it; see utils/geometry.py for the convention.
        source = ((indices.clamp(0, self.size[axis] - 1) + 0.5) * ratio - 0.5).clamp(0, length - 1)
        first = source[:, 0].floor().long()
        span = min(math.ceil((self.width - 1) * ratio) + 2, length)
        distance = (source - first[:, None])[:, :, None] - torch.arange(span, device=source.device)
        return first, (1 - distance.abs()).clamp(min=0) * inside[:, :, None]

    def _lookup(self, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """`features[image, :, rows, columns]` for rows `(N, K)`, columns `(N, L)`: `(N, C, K, L)`.

        In float32, because the gradients of overlapping windows add up here; by rows of channels,
        so that each lookup is one contiguous copy."""
        height, width = features.shape[-2:]
        table = features.float().permute(0, 2, 3, 1).flatten(0, 2)  # (B * h * w, C)
        index = (self._image[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]
        return F.embedding(index, table).permute(0, 3, 1, 2)
