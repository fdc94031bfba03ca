"""A trained network on images of any size: to the size it was trained on, and back to their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from datasets.images import resize_image
from datasets.spec import Grid
from utils.acquisition import ACQUISITIONS
from utils.errors import InputError
from utils.inference import Predictor, resized
from utils.tiles import Tiling

# What `--size` may say, as a function of the training's grid and an image's size.
SIZES: dict[str, Callable[[Grid, tuple[int, int]], tuple[int, int]]] = {
    "fit": Grid.fitted,
    "grid": Grid.of,
    "image": lambda _, size: size,
}
_BAND_VALUES = 2**25  # logits at an image's own size are made in bands of rows of so many: 128 MB
_WAITING_BATCHES = 2  # of images of other sizes than the last one's


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image on its way: `key` is whose it is, `image` `(H, W, 3)` its pixels (None if they are
    not needed any more), `size` (height, width) its own, `views` what the network sees of it, one
    `(h, w, 3)` for each scale; all uint8."""

    key: object
    image: np.ndarray | None
    size: tuple[int, int]
    views: list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """At the image's own size: `labels` `(H, W)` uint8 class indices; if they were asked for,
    `probabilities` `(C, H, W)` float16 and `uncertainty` `(H, W)` uint8, whose 255 is that of
    equally likely classes and 0 that of a certain one."""

    labels: np.ndarray
    probabilities: np.ndarray | None = None
    uncertainty: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """How images are predicted.

    network_size: of an image's size, the size at which the network sees it.
    scales, flip: test-time augmentation; the probabilities of the image at `scales` times that
        size, and of its mirror images, are averaged.
    tiling: larger images are cut into tiles.
    uncertainty: one of ACQUISITIONS that needs nothing but probabilities.
    keep_image: whether the pixels are needed with the prediction."""

    network: nn.Module
    predictor: Predictor
    autocast: Callable[[], AbstractContextManager]
    network_size: Callable[[tuple[int, int]], tuple[int, int]]
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    tiling: Tiling | None = None
    uncertainty: str | None = None
    with_probabilities: bool = False
    keep_image: bool = False

    def prepare(self, image: np.ndarray, *, key: object) -> Prepared:
        """Of an image `(H, W, 3)` uint8; what threads can do beforehand."""
        size = image.shape[:2]
        seen = self.network_size(size)
        views = [resize_image(image, tuple(max(round(length * scale), 1) for length in seen))
                 for scale in self.scales]
        return Prepared(key=key, image=image if self.keep_image else None, size=size, views=views)

    def predict(self, images: Iterable[Prepared]) -> Iterator[tuple[Prepared, Prediction]]:
        """Every image with its prediction; images of one size in the order they come in. Raises
        InputError if the device has too little memory."""
        try:
            for batch in self._batches(images):
                maps = list(self._maps([image.views for image in batch]))
                for i, image in enumerate(batch):
                    yield image, self._finished([of_batch[i] for of_batch in maps], image.size)
        except torch.OutOfMemoryError as error:
            raise InputError(f"the device's memory is too small ({str(error).splitlines()[0]}); "
                             "give a smaller --batch_size, or --tile HEIGHT WIDTH") from error

    def _batches(self, images: Iterable[Prepared]) -> Iterator[list[Prepared]]:
        """Images whose views have the same sizes together; one that needs tiles goes alone."""
        waiting: dict[tuple[tuple[int, ...], ...], list[Prepared]] = {}
        for image in images:
            sizes = tuple(view.shape for view in image.views)  # rounded, one may not tell another
            group = waiting.setdefault(sizes, [])
            group.append(image)
            if len(group) == self.predictor.batch_size or self._tiled(image.views):
                yield waiting.pop(sizes)
            elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * self.predictor.batch_size:
                yield waiting.pop(next(iter(waiting)))
        yield from waiting.values()

    def _tiled(self, views: Sequence[np.ndarray]) -> bool:
        return self.tiling is not None and any(self.tiling.needed(view.shape[:2])
                                               for view in views)

    def _maps(self, views: Sequence[Sequence[np.ndarray]]) -> Iterator[Tensor]:
        """The logits maps `(B, C, h, w)` of each scale and of its mirror image (turned back)."""
        for of_scale in zip(*views, strict=True):
            images = np.stack(of_scale)
            yield self._map(images)
            if self.flip:
                yield self._map(np.ascontiguousarray(images[:, :, ::-1])).flip(-1)

    def _map(self, images: np.ndarray) -> Tensor:
        """`(B, h, w, 3)` -> `(B, C, ceil(h / 4), ceil(w / 4))`."""
        def run(images: np.ndarray) -> Tensor:
            with self.autocast():
                return self.predictor.logits_map(self.network, images)

        if self.tiling is None or not self.tiling.needed(images.shape[1:3]):
            return run(images)
        return torch.stack([self.tiling.logits_map(image, run, batch_size=self.predictor.batch_size)
                            for image in images])

    @torch.no_grad()
    def _finished(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Prediction:
        """Of an image of `size` by its logits maps `(C, h, w)`."""
        n_classes, (height, width) = maps[0].shape[0], size
        labels = np.empty(size, np.uint8)
        uncertainty = np.empty(size, np.uint8) if self.uncertainty else None
        probabilities = (np.empty((n_classes, *size), np.float16) if self.with_probabilities
                         else None)
        step = max(_BAND_VALUES // (n_classes * width), 1)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            logits = [resized_rows(of_view, size=size, rows=rows, device=self.predictor.device)
                      for of_view in maps]  # (C, rows, W) each
            # Of a single view the logits decide: probabilities of 1 in float32 may be ties.
            mean = logits[0]
            if len(logits) > 1 or uncertainty is not None or probabilities is not None:
                mean = sum(view.softmax(dim=0) for view in logits) / len(logits)
            decides = mean if len(logits) > 1 else logits[0]
            labels[rows] = decides.argmax(dim=0).byte().cpu().numpy()
            if probabilities is not None:
                probabilities[:, rows] = mean.half().cpu().numpy()
            if uncertainty is not None:
                uncertainty[rows] = grey_uncertainty(mean, self.uncertainty).cpu().numpy()
        return Prediction(labels=labels, probabilities=probabilities, uncertainty=uncertainty)


def resized_rows(logits: Tensor, *, size: tuple[int, int], rows: slice,
                 device: torch.device) -> Tensor:
    """Rows of `resized(logits, size=size)`: of logits `(C, h, w)` the rows `(C, n, W)`, without the
    others being computed."""
    if rows == slice(0, size[0]):  # all: the very numbers of a validation
        return resized(logits[None].to(device), size=size)[0]
    # As F.interpolate finds its two rows, in its precision.
    n = logits.shape[1]
    source = torch.arange(rows.start, rows.stop, dtype=torch.float32) + 0.5
    source = (source * (n / size[0]) - 0.5).clamp(min=0)
    above = source.long().clamp(max=n - 1)
    below = (above + 1).clamp(max=n - 1)
    first = int(above[0])
    needed = logits[:, first:int(below[-1]) + 1].to(device)
    wide = resized(needed[None], size=(needed.shape[1], size[1]))[0]  # (C, k, W)
    share = (source - above).to(device)[:, None]
    return wide[:, (above - first).to(device)] * (1 - share) \
        + wide[:, (below - first).to(device)] * share


def grey_uncertainty(probabilities: Tensor, name: str) -> Tensor:
    """`(C, H, W)` -> `(H, W)` uint8 by the acquisition function `name`: 0 is its score of a certain
    class, 255 that of equally likely ones."""
    n = len(probabilities)
    certain = torch.zeros(1, n, 1, 1)
    certain[:, 0] = 1
    low, high = (ACQUISITIONS[name](known).item()
                 for known in (certain, torch.full((1, n, 1, 1), 1 / n)))
    scores = ACQUISITIONS[name](probabilities[None])[0].float()
    grey = (scores - low) / max(high - low, 1e-12)
    return (255 * grey).round().clamp(0, 255).byte()
