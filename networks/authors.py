"""The networks as PixelPick's authors compute them (arXiv 2104.06394), for their checkpoints.

They differ from ours in arithmetic, not only in names, and are for prediction alone. What is meant
by "the authors": github.com/NoelShin/PixelPick, the state of the paper. Images are padded to
multiples of 8 by reflection at the right and the bottom, as the authors do in validation on PASCAL
VOC (CamVid and Cityscapes need none; what is too narrow to be reflected repeats its last pixels),
and logits come at the images' own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import Conv2dNormActivation

from networks.backbones import MobileNetV2, ResNet
from networks.deeplab import DeepLabV3Plus
from utils.errors import InputError

_MULTIPLE = 8


def _padded(x: Tensor) -> Tensor:
    """Images `(B, C, H, W)`, H and W brought to multiples of 8."""
    height, width = x.shape[-2:]
    bottom, right = -height % _MULTIPLE, -width % _MULTIPLE
    reflects = bottom < height and right < width
    return F.pad(x, (0, right, 0, bottom), mode="reflect" if reflects else "replicate")


_enlarged = partial(F.interpolate, mode="bilinear", align_corners=True)


def _without_points(points: Tensor | None) -> None:
    if points is not None:
        raise InputError("a converted checkpoint of the authors is for prediction; to train, build "
                         "deeplab or FPN and start its backbone from the file with --weights FILE")


class FixedPaddingMobileNetV2(MobileNetV2):
    """MobileNetv2 whose blocks pad their *input* with zeros ("fixed padding"): the expanding
    convolution, batch norm and ReLU6 make something else of these zeros before the depthwise
    convolution sees them. Of the stages behind stride 16 only the last block is dilated."""

    def __init__(self, *, output_stride: int = 16, width_multiplier: int = 1) -> None:
        super().__init__(output_stride=output_stride, width_multiplier=width_multiplier)
        blocks = self.features[1:]
        for block in blocks:
            depthwise = block.conv[-3]  # convolution, batch norm, ReLU6
            n, stride = depthwise[0].out_channels, depthwise[0].stride
            depthwise[0] = nn.Conv2d(n, n, 3, stride=stride, groups=n, bias=False,
                                     dilation=2 if block is blocks[-1] else 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.features[0](_padded(x)), []
        for block in self.features[1:]:
            margin = block.conv[-3][0].dilation[0]
            y = block.conv(F.pad(x, [margin] * 4))
            x = x + y if block.use_res_connect else y
            maps.append(x)
        return tuple(maps[stage.stop - 2] for stage in self._stages)


class OriginalDeepLab(DeepLabV3Plus):
    """The authors' DeepLabv3+: maps are enlarged with `align_corners=True`."""

    backbones = {"mobilenetv2": FixedPaddingMobileNetV2}

    def decode(self, features: Sequence[Tensor], size: tuple[int, int],
               points: Tensor | None = None, *, statistics_points: Tensor | None = None,
               at_all: bool = False) -> Tensor:
        """-> logits `(B, C, *size)` in float32. Raises InputError if given points."""
        _without_points(points)
        return self.classify(self.embed(features), size)

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        low = features[0]  # (B, 24, h, w)
        return self.decoder.embed(low, _enlarged(self.aspp(features[-1]), size=low.shape[-2:]))

    def classify(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        logits = self.decoder.classify(x)
        whole = [4 * length for length in logits.shape[-2:]]
        return _enlarged(logits, size=whole)[..., :size[0], :size[1]]


class PaddedResNet(ResNet):
    """A ResNet on images padded to multiples of 8."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return super().forward(_padded(x))


class _FullSizeDecoder(nn.Module):
    """Features of strides 4, 8, 8, 8 -> logits at the images' size: lateral 1x1 convolutions to 256
    channels, top-down sums, and for each level stages of 3x3 convolution, group norm, ReLU and
    doubling up to stride 1, where the levels are summed and classified."""

    def __init__(self, *, in_channels: Sequence[int], strides: Sequence[int],
                 n_classes: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, 256, 1) for channels in in_channels)
        self.levels = nn.ModuleList()
        for stride in strides:
            n_doublings = stride.bit_length() - 1
            self.levels.append(nn.ModuleList(
                Conv2dNormActivation(128 if i else 256, 128, bias=True,
                                     norm_layer=partial(nn.GroupNorm, 32))
                for i in range(n_doublings)))
        self.classifier = nn.Conv2d(128, n_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        enlarge = partial(F.interpolate, mode="bilinear", align_corners=False)
        above, total = None, 0
        for x, lateral, stages in reversed(list(zip(features, self.laterals, self.levels,
                                                    strict=True))):
            x = lateral(x)
            above = x = x if above is None else x + enlarge(above, size=x.shape[-2:])
            for stage in stages:
                x = enlarge(stage(x), scale_factor=2)
            total = total + x
        return self.classifier(total).float()


class OriginalFPN(nn.Module):
    """The authors' FPN, which has no dropout (`mc_dropout_p` is not looked at) and computes its
    decoder's last stages at the images' size."""

    output_stride = 8
    backbones = {name: partial(PaddedResNet, getattr(models, name))
                 for name in ("resnet18", "resnet34", "resnet50", "resnet101")}

    def __init__(self, *, backbone: nn.Module, n_classes: int, mc_dropout_p: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = _FullSizeDecoder(in_channels=backbone.channels, strides=backbone.strides,
                                        n_classes=n_classes)

    def forward(self, x: Tensor, points: Tensor | None = None, *,
                statistics_points: Tensor | None = None) -> Tensor:
        """Images `(B, 3, H, W)` -> logits `(B, C, H, W)` in float32. Raises InputError if given
        points."""
        return self.decode(self.backbone(x), x.shape[-2:], points)

    def decode(self, features: Sequence[Tensor], size: tuple[int, int],
               points: Tensor | None = None) -> Tensor:
        _without_points(points)
        return self.decoder(features)[..., :size[0], :size[1]]
