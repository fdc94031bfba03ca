"""A network on whole images: logits, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.augment import normalise
from datasets.images import IGNORE
from datasets.split import LoadedSplit
from utils.device import upload
from utils.metrics import ConfusionMatrix


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Runs networks over splits, in batches on `device`, normalising with `mean` and `std`."""

    device: torch.device
    batch_size: int
    mean: Sequence[float]
    std: Sequence[float]

    @torch.no_grad()
    def logits(self, network: nn.Module, split: LoadedSplit, *, to_labels: bool,
               exact: bool = False) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Batches of image indices `(B,)` and logits `(B, C, H, W)` in float32: at the size of the
        label maps with `to_labels`, else at the size of the grid. Images are never augmented.
        With `exact` a GPU multiplies in float32 as well, not in TF32."""
        training = network.training
        network.eval()
        try:
            for index in split.batches(self.batch_size):
                height, width = split.sizes[index[0]]
                images = upload(split.images[index, :height, :width], self.device)
                x = normalise(images.permute(0, 3, 1, 2).float() / 255, mean=self.mean,
                              std=self.std)
                size = split.labels[index[0]].shape if to_labels else x.shape[-2:]
                with torch.backends.cudnn.flags(enabled=True, allow_tf32=not exact):
                    logits = network(x).float()
                yield index, F.interpolate(logits, size=size, mode="bilinear",
                                           align_corners=False)
        finally:
            network.train(training)

    def evaluate(self, network: nn.Module, split: LoadedSplit, *, n_classes: int,
                 autocast: Callable[[], AbstractContextManager]) -> np.ndarray:
        """Confusion matrix `(C, C)` of a split against its label maps at their own resolution."""
        confusion = ConfusionMatrix(n_classes, ignore_index=IGNORE, device=self.device)
        with autocast():
            for index, logits in self.logits(network, split, to_labels=True):
                labels = upload(np.stack([split.labels[i] for i in index]), self.device)
                confusion.update(logits.argmax(dim=1), labels)
        return confusion.compute()
