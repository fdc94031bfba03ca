"""Tiles: the whole image is covered, and nobody sees where one ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.tiles import TILE_STRIDE, Tiling

TILES = Tiling(size=(64, 96), overlap=32)
SIZES = [(64, 97), (65, 96), (150, 260), (40, 300), (129, 33), (201, 203)]


def local(images: np.ndarray) -> Tensor:
    """`(B, H, W, 3)` -> `(B, 3, ceil(H / 4), ceil(W / 4))`: means of 4x4 pixels, of what is there
    of them at the border."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return F.avg_pool2d(x, 4, ceil_mode=True)


def padded(images: np.ndarray) -> Tensor:
    """A network that sees zeros around its input: wrong near the edges of every tile."""
    x = local(images)
    return F.conv2d(x, torch.full((1, 3, 9, 9), 1 / 243), padding=4)


def noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiled_is_untiled_where_a_network_looks_no_further(size: tuple[int, int],
                                                           batch_size: int) -> None:
    image = noise(size)
    assert TILES.needed(size)
    tiled = TILES.logits_map(image, local, batch_size=batch_size)
    torch.testing.assert_close(tiled, local(image[None])[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("overlap", [16, 32, 48])
def test_a_constant_image_has_no_seams(overlap: int) -> None:
    """Where tiles end nothing jumps, although the network's answer is wrong there."""
    image = np.full((64, 400, 3), 200, np.uint8)

    def largest_jump(overlap: int) -> float:
        tiled = Tiling(size=(64, 128), overlap=overlap).logits_map(image, padded, batch_size=4)
        inside = tiled[0, 8, 8:-8]  # the image's own edges aside
        return inside.diff().abs().max().item()

    assert largest_jump(overlap) < 0.35 * largest_jump(0)


def test_a_shifted_image_has_a_shifted_answer() -> None:
    """Away from the image's edges, whatever tile a pixel comes to lie in."""
    image = noise((64, 500))
    first, second = (TILES.logits_map(np.ascontiguousarray(image[:, shift:shift + 420]), local,
                                      batch_size=4) for shift in (0, 40))
    torch.testing.assert_close(first[:, :, 10:], second[:, :, :-10], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_lie_on_the_feature_maps_and_are_never_larger_than_asked(size) -> None:
    seen = []
    place = np.arange(size[0] * size[1], dtype=np.int64).reshape(*size)
    image = np.repeat(place[..., None], 3, axis=2)

    def run(tiles: np.ndarray) -> Tensor:
        seen.extend((tile[0, 0, 0] // size[1], tile[0, 0, 0] % size[1], *tile.shape[:2])
                    for tile in tiles)
        return local(tiles)

    TILES.logits_map(image, run, batch_size=2)
    covered = np.zeros(size, int)
    for top, left, height, width in seen:
        assert top % TILE_STRIDE == left % TILE_STRIDE == 0
        assert height <= 64 and width <= 96
        covered[top:top + height, left:left + width] += 1
    assert covered.min() >= 1
    assert not TILES.needed((64, 96))
