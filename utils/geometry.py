"""Coordinates between resolutions. The centre of a pixel has integer coordinates."""

from __future__ import annotations

import numpy as np


def rescale_coordinate(coordinate, *, size_from, size_to):
    """The same place on an axis of another length: `(c + .5) * size_to / size_from - .5`.

    This is the convention of `align_corners=False`. Works on numbers, arrays and tensors; real
    valued, not clamped."""
    return (coordinate + 0.5) * (size_to / size_from) - 0.5


def pixel_under(coordinate: np.ndarray, *, size_from: int, size_to: int) -> np.ndarray:
    """Index of the pixel of an axis of `size_to` under the centre of grid pixel `coordinate` of an
    axis of `size_from`: `floor((c + .5) * size_to / size_from)`, in exact integer arithmetic."""
    return (2 * np.asarray(coordinate, np.int64) + 1) * size_to // (2 * size_from)


def file_pixel(y: int, x: int, *, grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(y, x) of the pixel of a file of `size` (height, width) under a pixel of its `grid`."""
    return (int(pixel_under(y, size_from=grid[0], size_to=size[0])),
            int(pixel_under(x, size_from=grid[1], size_to=size[1])))
