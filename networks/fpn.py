"""Semantic FPN: a feature pyramid whose levels are summed at stride 4 and classified.

Kirillov et al., "Panoptic Feature Pyramid Networks", arXiv 1901.02446, section 3.1 and figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from networks.windows import Windows, rescale_points

FINEST_STRIDE = 4


class PyramidDecoder(nn.Module):
    """Features of several strides -> logits of stride 4.

    Lateral 1x1 convolutions, top-down sums and 3x3 convolutions make a pyramid; each level is
    brought to stride 4 by stages of a 3x3 convolution, group norm, ReLU and, but for the finest
    level, bilinear doubling; the levels are summed and, after PixelPick's dropout, classified."""

    def __init__(self, *, in_channels: Sequence[int], strides: Sequence[int], n_classes: int,
                 channels: int = 128, norm_groups: int = 32, mc_dropout_p: float = 0.2) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(in_channels), channels)
        stage = partial(Conv2dNormActivation, channels, channels, kernel_size=3,
                        norm_layer=partial(nn.GroupNorm, norm_groups))
        self.levels = nn.ModuleList()
        for stride in strides:
            n_doublings = (stride // FINEST_STRIDE).bit_length() - 1
            self.levels.append(nn.ModuleList(stage() for _ in range(max(n_doublings, 1))))
        self.dropout = nn.Dropout(mc_dropout_p)
        self.classifier = nn.Conv2d(channels, n_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The backbone's features, finest first -> logits `(B, C, h, w)`, (h, w) of the finest."""
        return self.classify(self.embed(features))

    def at_points(self, features: Sequence[Tensor], points: Tensor) -> Tensor:
        """Logits `(B, P, C)` at `points` `(B, P, 2)`, given as (y, x) in pixels of the finest map:
        bilinear sampling of `forward`'s, clamped at its border.

        Group norm needs the mean of whole maps. So the levels are computed everywhere, and only
        dropout and the classifier are confined to the 2x2 pixels around each point."""
        summed = self.embed(features)  # (B, 128, h, w)
        windows = Windows(points, summed.shape[-2:], width=2)
        logits = self.classifier(self.dropout(windows.gather(summed))).float()  # (B * P, C, 2, 2)
        logits = (logits * windows.bilinear_weights).sum(dim=(2, 3))
        return logits.view(*points.shape[:2], logits.shape[1])

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """`(B, 128, h, w)`, what dropout and the classifier see."""
        pyramid = self.pyramid({str(i): level for i, level in enumerate(features)}).values()
        size = features[0].shape[-2:]
        return reduce(torch.add, (_to_size(x, stages, size=size)
                                  for x, stages in zip(pyramid, self.levels, strict=True)))

    def classify(self, x: Tensor) -> Tensor:
        """What `embed` returns -> logits `(B, C, h, w)` in float32."""
        return self.classifier(self.dropout(x)).float()


def _to_size(x: Tensor, stages: nn.ModuleList, *, size: tuple[int, int]) -> Tensor:
    """A level `(B, 128, h', w')` through its stages, the i-th before the last to `size` / 2^i,
    rounded up as the backbone's own maps are: `(B, 128, *size)`."""
    for i, stage in zip(reversed(range(len(stages))), stages, strict=True):
        x = stage(x)
        larger = tuple(-(-length // 2**i) for length in size)
        if larger != x.shape[-2:]:
            x = F.interpolate(x, size=larger, mode="bilinear", align_corners=False)
    return x


class FPN(nn.Module):
    """`backbone`: see networks/backbones.py. PixelPick's results with ResNets come from this
    network, with 128 channels and dilation to stride 8."""

    output_stride = 8  # unless another one is asked for

    def __init__(self, *, backbone: nn.Module, n_classes: int, mc_dropout_p: float = 0.2) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = PyramidDecoder(in_channels=backbone.channels, strides=backbone.strides,
                                      n_classes=n_classes, mc_dropout_p=mc_dropout_p)

    def forward(self, x: Tensor, points: Tensor | None = None, *,
                statistics_points: Tensor | None = None, at_all: bool = False) -> Tensor:
        """Images `(B, 3, H, W)` -> logits `(B, C, ceil(H / 4), ceil(W / 4))` in float32.

        With `points` `(B, P, 2)`, real-valued (y, x) in pixels of `x`: logits `(B, P, C)`, equal to
        bilinear sampling (`align_corners=False`, clamped) of that map. This saves next to nothing:
        the decoder runs on whole maps. `statistics_points` `(B, S, 2)` are taken as every network
        takes them and only looked at with `at_all`, for logits `(B, P + S, C)`: group norm has no
        statistics of a batch to be fair about."""
        if at_all:
            points = torch.cat([points, statistics_points], dim=1)
        return self.decode(self.backbone(x), x.shape[-2:], points)

    def decode(self, features: Sequence[Tensor], size: tuple[int, int],
               points: Tensor | None = None) -> Tensor:
        """The same of the backbone's features of images of `size`: all that has dropout."""
        if points is None:
            return self.classify(self.embed(features), size)
        points = rescale_points(points, size_from=size, size_to=features[0].shape[-2:])
        return self.decoder.at_points(features, points)

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """The backbone's features -> `(B, 128, h, w)`, what dropout sees."""
        return self.decoder.embed(features)

    def classify(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """What `embed` returns of images of `size` -> logits: dropout and what follows."""
        return self.decoder.classify(x)
