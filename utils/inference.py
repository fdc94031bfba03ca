"""A network on whole images: logits, a committee's probabilities, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.augment import normalise
from datasets.images import IGNORE
from datasets.prefetch import fetched
from datasets.split import LoadedSplit
from utils.acquisition import Committee
from utils.device import upload
from utils.distributed import sum_over_ranks
from utils.dropout import keyed_dropout, only_last_drops
from utils.metrics import ConfusionMatrix
from utils.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Runs networks over splits, in batches on `device`, normalising with `mean` and `std`. Images
    are never augmented.

    share: (k, n): over the k-th of n shares of a split's images only."""

    device: torch.device
    batch_size: int
    mean: Sequence[float]
    std: Sequence[float]
    share: tuple[int, int] = (0, 1)

    @torch.no_grad()
    def logits(self, network: nn.Module, split: LoadedSplit, *, to_labels: bool,
               exact: bool = False) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Batches of image indices `(B,)` and logits `(B, C, H, W)` in float32: at the size of the
        label maps with `to_labels`, else at the size of the grid.
        With `exact` a GPU multiplies in float32 as well, not in TF32."""
        with _evaluating(network):
            for index, x in self._batches(split):
                size = split.labels[index[0]].shape if to_labels else x.shape[-2:]
                with _multiplying(exact=exact):
                    logits = network(x)
                yield index, resized(logits, size=size)

    @torch.no_grad()
    def logits_map(self, network: nn.Module, images: np.ndarray) -> Tensor:
        """Images `(B, H, W, 3)` uint8 -> the network's own logits `(B, C, ceil(H / 4), ceil(W /
        4))` in float32; `resized` brings them to another size."""
        with _evaluating(network), _multiplying(exact=False):
            return network(self._normalised(upload(images, self.device))).float()

    @torch.no_grad()
    def committees(self, network: nn.Module, split: LoadedSplit, *, n_passes: int,
                   key: Sequence[int | str], layers: str = "all",
                   temperature: float = 1.0) -> Iterator[tuple[np.ndarray, Committee]]:
        """Batches of image indices `(B,)` and what `n_passes` passes say, at the size of the grid
        and in float32, their logits divided by `temperature`. The dropout that `layers` of
        MC_LAYERS chooses is active, all else in eval mode. What is dropped depends on `key`, the
        image's name and the pass, not on the batch. What is the same in all passes is computed
        once: the backbone, and all up to the last dropout if only that is active."""
        of_head = only_last_drops(network, layers)

        def passes(index: np.ndarray, x: Tensor) -> Iterator[Tensor]:
            size = x.shape[-2:]
            with _multiplying(exact=True):
                shared = network.backbone(x)
                if of_head:
                    shared = network.embed(shared)
            for number in range(n_passes):
                seeds = [seed_of(*key, split.names[i], number) for i in index]
                with keyed_dropout(network, seeds, layers=layers), _multiplying(exact=True):
                    logits = (network.classify if of_head else network.decode)(shared, size)
                yield (resized(logits, size=size) / temperature).softmax(dim=1)

        with _evaluating(network):
            for index, x in self._batches(split):
                yield index, Committee.of(passes(index, x))

    def _batches(self, split: LoadedSplit) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Image indices `(B,)` and normalised images `(B, 3, H, W)`."""
        batches = list(split.batches(self.batch_size, share=self.share))
        read = fetched(split.images, split.label_batches(batches), self.device)
        for index, images in zip(batches, read, strict=True):
            height, width = split.sizes[index[0]]
            yield index, self._normalised(images[:, :height, :width])

    def _normalised(self, images: Tensor) -> Tensor:
        """`(B, H, W, 3)` uint8 -> `(B, 3, H, W)` as the network takes them."""
        return normalise(images.permute(0, 3, 1, 2).float() / 255, mean=self.mean, std=self.std)

    def evaluate(self, network: nn.Module, split: LoadedSplit, *, n_classes: int,
                 autocast: Callable[[], AbstractContextManager]) -> np.ndarray:
        """Confusion matrix `(C, C)` of a split against its label maps at their own resolution: of
        the shares of all processes together."""
        confusion = ConfusionMatrix(n_classes, ignore_index=IGNORE, device=self.device)
        with autocast():
            for index, logits in self.logits(network, split, to_labels=True):
                labels = upload(np.stack([split.labels[i] for i in index]), self.device)
                confusion.update(logits.argmax(dim=1), labels)
        return sum_over_ranks(torch.from_numpy(confusion.compute())).numpy()


def _multiplying(*, exact: bool) -> AbstractContextManager:
    """How a GPU multiplies float32: with `exact` in float32, else in TF32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=not exact)


def resized(logits: Tensor, *, size: Sequence[int]) -> Tensor:
    """Logits `(B, C, h, w)` -> `(B, C, *size)` in float32."""
    return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """The network in eval mode; afterwards every module is again in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
