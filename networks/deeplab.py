"""DeepLabv3+ (arXiv 1802.02611) that can be asked for logits at points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from networks.decoder import N_STATISTICS_POINTS, PointDecoder
from networks.windows import rescale_points


class ImagePooling(nn.Sequential):
    """torchvision's image pooling of ASPP, with its one value a channel repeated over the map
    instead of interpolated: the same numbers, but the gradient of an interpolation is added up in
    the map's own precision, thousands of bfloat16 into one on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = super().forward(x).expand(-1, -1, *x.shape[-2:])
        # What repeats its values has no layout, and `cat` would not be channels last after it.
        return pooled.contiguous(memory_format=torch.channels_last)


class DeepLabV3Plus(nn.Module):
    """`backbone`: see networks/backbones.py. ASPP rates 6, 12, 18 at output stride 16, doubled at
    8 (arXiv 1706.05587, section 3.3)."""

    output_stride = 16  # unless another one is asked for

    def __init__(self, *, backbone: nn.Module, n_classes: int, mc_dropout_p: float = 0.2) -> None:
        super().__init__()
        self.backbone = backbone
        rates = [rate * 16 // backbone.strides[-1] for rate in (6, 12, 18)]
        self.aspp = ASPP(backbone.channels[-1], rates, out_channels=256)
        self.aspp.convs[-1] = ImagePooling(*self.aspp.convs[-1])
        self.decoder = PointDecoder(low_channels=backbone.channels[0], high_channels=256,
                                    n_classes=n_classes, mc_dropout_p=mc_dropout_p)

    def forward(self, x: Tensor, points: Tensor | None = None, *,
                statistics_points: Tensor | None = None, at_all: bool = False) -> Tensor:
        """Images `(B, 3, H, W)` -> logits `(B, C, ceil(H / 4), ceil(W / 4))` in float32.

        With `points` `(B, P, 2)`, real-valued (y, x) in pixels of `x`: logits `(B, P, C)`, equal to
        bilinear sampling (`align_corners=False`, clamped) of that map, at the cost of small windows
        around the points. In training the decoder's batch norm then sees only the windows of
        `statistics_points` `(B, S, 2)`; without them, 24 an image are drawn uniformly. With
        `at_all` logits `(B, P + S, C)`: at those too."""
        return self.decode(self.backbone(x), x.shape[-2:], points,
                           statistics_points=statistics_points, at_all=at_all)

    def decode(self, features: Sequence[Tensor], size: tuple[int, int],
               points: Tensor | None = None, *, statistics_points: Tensor | None = None,
               at_all: bool = False) -> Tensor:
        """The same of the backbone's features of images of `size`: all that has dropout."""
        if points is None:
            return self.classify(self.embed(features), size)
        low, high = features[0], self.aspp(features[-1])
        if self.training and statistics_points is None:
            unit = torch.rand(len(low), N_STATISTICS_POINTS, 2, device=low.device)
            statistics_points = unit * unit.new_tensor(size) - 0.5
        sizes = dict(size_from=size, size_to=low.shape[-2:])
        if statistics_points is not None:
            statistics_points = rescale_points(statistics_points, **sizes)
        return self.decoder.at_points(low, high, rescale_points(points, **sizes),
                                      statistics_points, at_all=at_all)

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """The backbone's features -> `(B, 256, h, w)`, what the last dropout sees."""
        return self.decoder.embed(features[0], self.aspp(features[-1]))

    def classify(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """What `embed` returns of images of `size` -> logits: the last dropout and what follows."""
        return self.decoder.classify(x)
