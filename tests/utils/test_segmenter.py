"""From an image's size to the network's and back; test-time augmentation."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.images import resize_image
from datasets.spec import Grid
from utils import segmenter
from utils.acquisition import ACQUISITIONS, needs
from utils.errors import InputError
from utils.inference import Predictor, resized
from utils.segmenter import SIZES, Segmenter, grey_uncertainty, resized_rows
from utils.tiles import Tiling

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Local(nn.Module):
    """Means of 4x4 pixels, mapped to 5 classes; no pixel looks at another 4x4."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 1, 1, generator=torch.Generator()
                                               .manual_seed(0)) * 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.avg_pool2d(x, 4, ceil_mode=True), self.weight)


def segmenter_with(batch_size: int = 2, **kwargs) -> Segmenter:
    return Segmenter(**dict(
        network=Local(), predictor=Predictor(device=CPU, batch_size=batch_size, mean=MEAN, std=STD),
        autocast=nullcontext, network_size=lambda size: (40, 56), with_probabilities=True,
        uncertainty="entropy") | kwargs)


def noise(*size: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return resize_image(small, size)


def predict(parts: Segmenter, *images: np.ndarray) -> dict:
    prepared = (parts.prepare(image, key=i) for i, image in enumerate(images))
    return {image.key: prediction for image, prediction in parts.predict(prepared)}


@pytest.mark.parametrize(("grid", "image", "fit", "exact"), [
    (Grid(size=(360, 480)), (360, 480), (360, 480), (360, 480)),
    (Grid(size=(360, 480)), (720, 960), (360, 480), (360, 480)),
    (Grid(size=(360, 480), downsample=7), (1080, 1440), (51, 68), (51, 68)),
    (Grid(size=(1024, 2048), downsample=4), (1024, 2048), (256, 512), (256, 512)),
    (Grid(size=(360, 480)), (480, 360), (480, 360), (360, 480)),
    (Grid(size=(360, 480)), (1, 1), (416, 416), (360, 480)),
    (Grid(longer_side=400), (300, 800), (150, 400), (150, 400)),
    (Grid(downsample=2), (301, 800), (150, 400), (150, 400)),
    (Grid(downsample=2), (1, 1), (1, 1), (1, 1)),
])
def test_what_the_network_sees(grid, image, fit, exact) -> None:
    assert SIZES["fit"](grid, image) == fit
    assert SIZES["grid"](grid, image) == exact
    assert SIZES["image"](grid, image) == image


@pytest.mark.parametrize("image", [(5, 3000), (3000, 5), (1111, 97), (333, 1000)])
def test_another_aspect_ratio_is_kept_with_as_many_pixels(image: tuple[int, int]) -> None:
    height, width = Grid(size=(360, 480)).fitted(image)
    assert abs(height * width / (360 * 480) - 1) < 0.03
    assert abs(math.log(height * image[1] / (width * image[0]))) < 0.03


@pytest.mark.parametrize("size", [(40, 56), (97, 131), (13, 9), (1, 1)])
def test_rows_are_those_of_the_whole(size: tuple[int, int]) -> None:
    logits = torch.randn(5, 10, 14, generator=torch.Generator().manual_seed(1))
    whole = resized(logits[None], size=size)[0]
    for step in (1, 7, 1000):
        bands = [resized_rows(logits, size=size, rows=slice(top, min(top + step, size[0])),
                              device=CPU) for top in range(0, size[0], step)]
        torch.testing.assert_close(torch.cat(bands, dim=1), whole, rtol=1e-6, atol=2e-6)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, image = segmenter_with(scales=(1.0, 0.5)), noise(90, 130)
    whole = predict(parts, image)[0]
    monkeypatch.setattr(segmenter, "_BAND_VALUES", 5 * 130 * 8)
    banded = predict(parts, image)[0]
    assert (whole.labels != banded.labels).mean() < 1e-3
    np.testing.assert_allclose(whole.probabilities, banded.probabilities, atol=1e-3)


def by_hand(image: np.ndarray, *, scales: tuple[float, ...], flip: bool) -> np.ndarray:
    """Mean probabilities `(5, H, W)` of an image that is seen at 40x56."""
    network, views = Local(), []
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for scale in scales:
        seen = resize_image(image, (round(40 * scale), round(56 * scale)))
        x = (torch.from_numpy(seen.copy()).permute(2, 0, 1) / 255 - mean) / std
        for turned in (x, x.flip(-1))[:2 if flip else 1]:
            logits = F.interpolate(network(turned[None]), size=image.shape[:2], mode="bilinear",
                                   align_corners=False)[0].softmax(dim=0)
            views.append(logits if turned is x else logits.flip(-1))
    return torch.stack(views).mean(dim=0).detach().numpy()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.0, 1.25)])
def test_augmentation_by_hand(scales: tuple[float, ...], flip: bool) -> None:
    image = noise(70, 100)
    found = predict(segmenter_with(scales=scales, flip=flip), image)[0]
    expected = by_hand(image, scales=scales, flip=flip)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-3)
    assert found.probabilities.dtype == np.float16
    assert (found.labels == expected.argmax(axis=0)).mean() > 0.999
    entropy = -(expected * np.log(expected + 1e-30)).sum(axis=0) / math.log(5)
    assert np.abs(found.uncertainty / 255 - entropy).max() < 0.01


def test_tiled_is_untiled_through_it_all() -> None:
    sizes = dict(network_size=lambda size: size, scales=(1.0, 1.5), flip=True)
    image = noise(150, 210)
    whole = predict(segmenter_with(**sizes), image)[0]
    tiled = predict(segmenter_with(**sizes, tiling=Tiling(size=(64, 64), overlap=16)), image)[0]
    np.testing.assert_allclose(tiled.probabilities, whole.probabilities, atol=2e-3)
    assert (tiled.labels == whole.labels).mean() > 0.999


def test_batches_of_many_sizes() -> None:
    """All come back, each as if it were alone; the network sees images of one size together."""
    images = [noise(*size, seed=i) for i, size in enumerate(
        [(40, 56), (30, 30), (40, 56), (80, 56), (30, 30), (40, 56), (20, 90), (40, 56)])]
    same = dict(network_size=lambda size: size)
    together = predict(segmenter_with(batch_size=3, **same), *images)
    assert together.keys() == set(range(8))
    for i, image in enumerate(images):
        (alone,) = predict(segmenter_with(batch_size=1, **same), image).values()
        assert together[i].labels.shape == image.shape[:2]
        assert np.array_equal(together[i].labels, alone.labels)


def test_sizes_that_only_one_scale_tells_apart() -> None:
    """Half of 80 and half of 81 pixels are 40."""
    images = [noise(80, 56), noise(81, 56, seed=1), noise(80, 56, seed=2)]
    same = dict(network_size=lambda size: size, scales=(0.5, 1.0))
    together = predict(segmenter_with(batch_size=2, **same), *images)
    for i, image in enumerate(images):
        (alone,) = predict(segmenter_with(batch_size=1, **same), image).values()
        assert np.array_equal(together[i].labels, alone.labels)


@pytest.mark.parametrize("name", [name for name in ACQUISITIONS if not needs(name)])
def test_white_is_equally_likely_and_black_is_certain(name: str) -> None:
    probabilities = torch.tensor([[1.0, 0.25, 0.7], [0.0, 0.25, 0.3], [0.0, 0.25, 0.0],
                                  [0.0, 0.25, 0.0]])[:, None]
    grey = grey_uncertainty(probabilities, name)[0].tolist()
    assert grey[:2] == [0, 255] and 0 < grey[2] < 255


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    monkeypatch.setattr(Local, "forward", exhausted)
    with pytest.raises(InputError, match="--batch_size, or --tile"):
        predict(segmenter_with(), noise(40, 56))
