"""Augmentation of a whole batch on its device: one `grid_sample` for scale, crop and flip, the
points moved by the same map, then colour, each image with draws of its own.

Source and output pixels are related by `out = (u + .5) * scale - .5 - offset`, where u is the
source coordinate, mirrored first if the image is flipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.images import IGNORE
from datasets.points import VOID
from utils.device import constant, upload_together

# Luma of ITU-R BT.601, as torchvision's and Pillow's grey.
_GREY = (0.299, 0.587, 0.114)
# The jitters' places in `Draw.factors`: brightness, contrast, saturation are blends with black,
# with the mean grey, with grey (shares of grey and mean grey); the hue is turned.
_BLENDED_WITH = np.array([(0, 0), (0, 1), (1, 0)], np.float32)
_HUE = 3
_BLUR_TAPS = 13


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The recipe of a dataset's augmentation.

    crop: (height, width) of the output. A scaled image that is smaller is padded right and bottom
        with the mean colour; a larger one is cropped at a uniform place.
    scale, blur_sigma: ranges of uniform draws; sigma is in pixels.
    jitter: brightness, contrast and saturation factors are drawn from [max(0, 1 - j), 1 + j], the
        hue's turn from [-j, j] of a full circle, and applied in random order, with `jitter_p`.
    mean, std: of the normalisation, for images in 0..1.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip_p: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def draw(self, rng: np.random.Generator, size: Sequence[int], *,
             n_statistics_points: int = 0) -> Draw:
        """The draws for one image of `size` (h, w)."""
        scale = rng.uniform(*self.scale)
        scaled = np.array(size) * scale
        offset = rng.uniform(size=2) * np.maximum(scaled - self.crop, 0)
        flip = rng.uniform() < self.flip_p
        jittered = rng.uniform() < self.jitter_p
        spread = np.array(self.jitter)
        factors = rng.uniform(np.maximum(0, 1 - spread), 1 + spread)
        factors[3] -= 1
        order = rng.permutation(4)
        grey = rng.uniform() < self.grey_p
        blurred = rng.uniform() < self.blur_p
        sigma = rng.uniform(*self.blur_sigma)
        visible = np.minimum(self.crop, scaled)
        statistics_points = rng.uniform(size=(n_statistics_points, 2)) * visible - 0.5
        return Draw(scale=scale, offset=offset, flip=flip, factors=factors,
                    order=order if jittered else np.full(4, -1), grey=grey,
                    sigma=sigma if blurred else 0.0, statistics_points=statistics_points)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What was drawn for one image; or, stacked, for a batch (every field with a leading B).

    scale (); offset (2,) in output pixels; flip (); factors (4,) of brightness, contrast,
    saturation, hue; order (4,) in which they apply, -1 for none; grey (); sigma () of the blur, 0
    for none; statistics_points (S, 2), uniform on the visible part of the image."""

    scale: np.ndarray
    offset: np.ndarray
    flip: np.ndarray
    factors: np.ndarray
    order: np.ndarray
    grey: np.ndarray
    sigma: np.ndarray
    statistics_points: np.ndarray

    @staticmethod
    def stack(draws: Sequence[Draw]) -> Draw:
        return Draw(**{field.name: np.stack([getattr(draw, field.name) for draw in draws])
                       for field in fields(Draw)})


class Warp:
    """The geometric map of a batch: `sizes` `(B, 2)` of the source images and their draws."""

    def __init__(self, draw: Draw, *, sizes: np.ndarray, crop: tuple[int, int],
                 device: torch.device) -> None:
        self._crop, self._device = crop, device
        self._sizes, scale, self._offset, self._flip = upload_together(
            [*(np.asarray(a, np.float32) for a in (sizes, draw.scale, draw.offset)), draw.flip],
            device)
        self._scale = scale[:, None]

    def points(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, P, 2)` (y, x) and `(B, P)` -> the same in the output; a point outside the crop
        becomes VOID. Coordinates are clamped to the centres of the outermost pixels."""
        mirrored = self._sizes[:, None, 1] - 1 - points[..., 1]
        x = torch.where(self._flip[:, None], mirrored, points[..., 1])
        moved = torch.stack([points[..., 0], x], dim=-1)
        moved = (moved + 0.5) * self._scale[:, :, None] - 0.5 - self._offset[:, None]
        (y, x), (height, width) = moved.unbind(dim=-1), self._crop
        inside = (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
        clamped = torch.stack([y.clamp(0, height - 1), x.clamp(0, width - 1)], dim=-1)
        return clamped, labels.where(inside, VOID)

    def images(self, images: Tensor, *, fill: Tensor) -> Tensor:
        """`(B, H, W, 3)` uint8 -> `(B, 3, *crop)` float32 in 0..1. Each image is continued by its
        own border for interpolation; what lies outside it becomes `fill` `(3,)`."""
        y, x, outside = self._source()
        height, width = images.shape[1:3]
        grid = torch.stack([
            ((x * 2 + 1) / width - 1)[:, None, :].expand(-1, self._crop[0], -1),
            ((y * 2 + 1) / height - 1)[:, :, None].expand(-1, -1, self._crop[1]),
        ], dim=-1)
        source = images.permute(0, 3, 1, 2).float().div_(255)
        warped = F.grid_sample(source, grid, mode="bilinear", padding_mode="border",
                               align_corners=False)
        return torch.where(outside[:, None], fill[:, None, None], warped)

    def labels(self, labels: Tensor) -> Tensor:
        """`(B, H, W)` uint8 -> `(B, *crop)` int64, the nearest label; IGNORE outside."""
        y, x, outside = self._source()
        batch = torch.arange(len(labels), device=self._device)[:, None, None]
        nearest = labels[batch, y.round().long()[:, :, None], x.round().long()[:, None, :]].long()
        return nearest.masked_fill(outside, IGNORE)

    def _source(self) -> tuple[Tensor, Tensor, Tensor]:
        """Source rows `(B, h)`, columns `(B, w)`, both clamped to the image, and which output
        pixels `(B, h, w)` lie outside it."""
        source, outside = [], []
        for axis, length in enumerate(self._crop):
            out = torch.arange(length, device=self._device, dtype=torch.float32)
            u = (out + 0.5 + self._offset[:, axis, None]) / self._scale - 0.5
            size = self._sizes[:, axis, None]
            outside.append((u < -0.5) | (u >= size - 0.5))
            u = u.clamp(min=torch.zeros_like(size), max=size - 1)
            if axis == 1:
                u = torch.where(self._flip[:, None], size - 1 - u, u)
            source.append(u)
        return *source, outside[0][:, :, None] | outside[1][:, None, :]


def colour(images: Tensor, draw: Draw) -> Tensor:
    """Jitter, grey and blur of `(B, 3, H, W)` in 0..1, in place, each image by its own draws, in
    this order (the augmentation of SimCLR, arXiv 2002.05709, appendix A).

    All but hue and blur are blends; the images' blends are done side by side, before and after the
    hue, so that a batch launches hardly more kernels than one image."""
    shares = _shares(draw)
    turned = np.flatnonzero((draw.order == _HUE).any(axis=1))
    blurred = np.flatnonzero(draw.sigma > 0)
    (before, after), turn, sigma, turned, blurred = upload_together(
        [shares, draw.factors[turned, _HUE].astype(np.float32),
         draw.sigma[blurred].astype(np.float32), turned, blurred], images.device)
    _blend_in_turn(images, shares[0], before)
    _replace(images, turned, partial(_turn_hue, turn=turn))
    _blend_in_turn(images, shares[1], after)
    _replace(images, blurred, partial(gaussian_blur, sigma=sigma))
    return images


def _shares(draw: Draw) -> np.ndarray:
    """`(2, 5, B, 3)` float32: the blends of each image before and after the hue's turn, as shares
    of the image itself, its grey and its mean grey; where it has none, (1, 0, 0)."""
    n_images, n_steps = draw.order.shape
    shares = np.zeros((2, n_steps + 1, n_images, 3), np.float32)
    shares[..., 0] = 1
    is_hue, jittered = draw.order == _HUE, (draw.order >= 0).any(axis=1)
    hue_at = np.where(is_hue.any(axis=1), is_hue.argmax(axis=1), -1)
    for step in range(n_steps):
        i = np.flatnonzero((draw.order[:, step] >= 0) & ~is_hue[:, step])
        op, after = draw.order[i, step], (step > hue_at[i]).astype(int)
        factor = draw.factors[i, op].astype(np.float32)[:, None]
        place = step - after * (hue_at[i] + 1)
        shares[after, place, i] = np.hstack([factor, (1 - factor) * _BLENDED_WITH[op]])
    i = np.flatnonzero(draw.grey)
    shares[1, np.where(jittered[i], n_steps - 1 - hue_at[i], 0), i] = 0, 1, 0
    return shares


def _blend_in_turn(images: Tensor, shares: np.ndarray, uploaded: Tensor) -> None:
    """`(B, 3, H, W)` in place by `shares` `(n, B, 3)`, `uploaded` as well; skips what changes
    nothing."""
    for share, weights in zip(shares, uploaded, strict=True):
        blended = np.flatnonzero((share != (1, 0, 0)).any(axis=1))
        if not len(blended):
            continue
        there = slice(blended[0], blended[-1] + 1)  # between them (1, 0, 0) does no harm
        x, (own, greys, means) = images[there], weights[there, :, None, None, None].unbind(dim=1)
        with_grey, with_mean = share[:, 1:].any(axis=0)
        if with_grey or with_mean:
            grey = _grey(x)  # (b, 1, H, W)
            mean = grey.mean(dim=(2, 3), keepdim=True) * means if with_mean else None
            x *= own
            x += grey.mul_(greys) if with_grey else mean
            if with_grey and with_mean:
                x += mean
        else:
            x *= own
        x.clamp_(0, 1)


def _replace(images: Tensor, members: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Put what `change` makes of the `members` `(M,)` of a batch into their places."""
    if len(members) == len(images):
        images.copy_(change(images))
    elif len(members):
        images[members] = change(images[members])


def normalise(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(B, 3, H, W)` in 0..1 -> zero mean and unit variance by the recipe's figures, laid out
    channels last."""
    mean, std = (constant(tuple(values), images.device)[:, None, None] for values in (mean, std))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _grey(images: Tensor) -> Tensor:
    """`(B, 3, H, W)` -> `(B, 1, H, W)`."""
    weights = constant(_GREY, images.device)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def _turn_hue(images: Tensor, *, turn: Tensor) -> Tensor:
    """Turn the hue of `(B, 3, H, W)` by `turn` `(B,)`, a fraction of the circle, keeping value and
    saturation of HSV.

    With value V, chroma C and hue h in sixths of the circle, channel n in (5, 3, 1) of RGB is
    V - C * clamp(min(k, 4 - k), 0, 1), k = (n + h) mod 6 ("HSL and HSV", Wikipedia)."""
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)
    chroma = value - images.amin(dim=1)
    safe = chroma.clamp(min=1e-8)
    hue = torch.where(value == red, (green - blue) / safe,
                      torch.where(value == green, (blue - red) / safe + 2,
                                  (red - green) / safe + 4))
    hue += 6 * turn[:, None, None]
    k = torch.stack([hue + n for n in (5, 3, 1)], dim=1).remainder_(6)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur `(B, 3, H, W)` with a standard deviation of `sigma` `(B,)` pixels for each image, by
    two passes of 13 taps, reflected at the border."""
    batch, channels, height, width = images.shape
    reach = _BLUR_TAPS // 2
    taps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None]).square())
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    x = images.reshape(1, batch * channels, height, width)
    for axis in (2, 3):
        shape = [batch * channels, 1, 1, 1]
        shape[axis] = _BLUR_TAPS
        # "reflect" needs more pixels than it adds; a tiny image repeats its border instead.
        mode = "reflect" if x.shape[axis] > reach else "replicate"
        padding = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        x = F.conv2d(F.pad(x, padding, mode=mode), kernel.view(shape), groups=batch * channels)
    return x.view(batch, channels, height, width)
