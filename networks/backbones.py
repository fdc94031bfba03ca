"""Backbones from torchvision.

The contract: a backbone is a module called on images `(B, 3, H, W)` that returns the features of
its four stages, the i-th `(B, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))`. `strides`
are 4, 8, 16, 32, those above the output stride replaced by it. `name` says which one it is in
messages; `layers_behind` are the prefixes of names in torchvision's state dict that belong to no
layer of it although they look so. Its own state dict has torchvision's names, so that
torchvision's weights fit.

Where a stage gives up its stride, the 3x3 convolutions behind it are dilated instead (DeepLab,
arXiv 1706.05587, section 3.1), so that pretrained filters keep seeing the same pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from utils.errors import InputError

OUTPUT_STRIDES = (8, 16)


def _stage_strides(output_stride: int) -> tuple[int, ...]:
    if output_stride not in OUTPUT_STRIDES:
        raise KeyError(f"output stride {output_stride}")
    return tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))


def _replace_stride_with_dilation(*stages: nn.Module) -> None:
    """Make the convolutions of successive stages, built with strides, dilated ones in place.

    As in torchvision's dilated ResNets, the convolution that gives up its stride keeps the dilation
    before it, and those behind it make up for the stride. Other than torchvision's this works for
    `BasicBlock` too, whose second 3x3 convolution is behind the stride of the first."""
    dilation = 1
    for module in nn.ModuleList(stages).modules():  # in the order of computation
        if not isinstance(module, nn.Conv2d):
            continue
        following = dilation
        if module.kernel_size == (3, 3):
            module.dilation = module.padding = (dilation, dilation)
            following *= module.stride[0]
        module.stride, dilation = (1, 1), following


def _trained_on_cpu(x: Tensor) -> bool:
    """Whether a convolution of `x` should suit oneDNN's backward pass (benchmarks/convolutions.py);
    it is exported as what it is."""
    return x.is_cpu and torch.is_grad_enabled() and not torch.compiler.is_exporting()


class DilatedDepthwise(nn.Conv2d):
    """A depthwise 3x3 convolution with padding = dilation = d, in training on the CPU computed on
    the d * d interleaved sub-images without dilation: the same sums, but oneDNN's backward pass of
    the dilated form takes ten times as long in bfloat16, twice in float32."""

    def __init__(self, weight: nn.Parameter, *, dilation: int) -> None:
        channels = weight.shape[0]
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation,
                         groups=channels, bias=False)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        if self.dilation == (1, 1) or not _trained_on_cpu(x):
            return super().forward(x)
        (d, _), (batch, channels, height, width) = self.dilation, x.shape
        x = F.pad(x, (0, -width % d, 0, -height % d))
        h, w = x.shape[2] // d, x.shape[3] // d
        x = x.permute(0, 2, 3, 1).reshape(batch, h, d, w, d, channels)
        x = x.permute(2, 4, 0, 1, 3, 5).reshape(d * d * batch, h, w, channels)
        x = F.conv2d(x.permute(0, 3, 1, 2), self.weight, padding=1, groups=channels)
        x = x.permute(0, 2, 3, 1).reshape(d, d, batch, h, w, channels)
        x = x.permute(2, 3, 0, 4, 1, 5).reshape(batch, d * h, d * w, channels)
        return x[:, :height, :width].contiguous().permute(0, 3, 1, 2)


class StridedDepthwise(nn.Conv2d):
    """A depthwise 3x3 convolution with stride 2, in training on the CPU computed in float32:
    oneDNN's backward pass of it takes six to sixteen times as long in bfloat16."""

    def __init__(self, weight: nn.Parameter) -> None:
        channels = weight.shape[0]
        super().__init__(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        if not _trained_on_cpu(x):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class MobileNetV2(nn.Module):
    """MobileNetv2 up to its last inverted residual: 24, 32, 96 and 320 channels (times
    `width_multiplier`)."""

    layers_behind = ("features.18.",)
    _stages = (slice(0, 4), slice(4, 7), slice(7, 14), slice(14, 18))  # of features

    def __init__(self, *, output_stride: int = 16, width_multiplier: int = 1) -> None:
        super().__init__()
        self.name = _name("mobilenetv2", width_multiplier)
        self.strides = _stage_strides(output_stride)
        self.features = models.mobilenet_v2(weights=None, width_mult=width_multiplier).features[:18]
        self.channels = tuple(self.features[stage][-1].out_channels for stage in self._stages)
        first_dilated = self._stages[self.strides.index(output_stride) + 1].start
        dilated = self.features[first_dilated:]
        _replace_stride_with_dilation(dilated)
        for block in dilated:
            depthwise = block.conv[1]  # convolution, batch norm, ReLU6
            depthwise[0] = DilatedDepthwise(depthwise[0].weight,
                                            dilation=depthwise[0].dilation[0])
        for block in self.features[1:first_dilated]:  # behind the stem
            if block.stride == 2:
                block.conv[1][0] = StridedDepthwise(block.conv[1][0].weight)
        for module in self.features.modules():
            if isinstance(module, nn.ReLU6):
                module.inplace = False  # in place, its input is copied for the backward pass

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = []
        for stage in self._stages:
            x = self.features[stage](x)
            features.append(x)
        return tuple(features)


class ResNet(nn.Module):
    """A torchvision ResNet without its classifier: 64, 128, 256 and 512 channels, with bottlenecks
    256, 512, 1024 and 2048.

    `width_multiplier` widens the 3x3 convolutions of bottlenecks as in Wide ResNets (arXiv
    1605.07146; torchvision's wide_resnet50_2 for 2). Raises InputError without bottlenecks."""

    layers_behind = ()

    def __init__(self, build: Callable[..., models.ResNet], *, output_stride: int = 16,
                 width_multiplier: int = 1) -> None:
        super().__init__()
        self.name = _name(build.__name__, width_multiplier)
        self.strides = _stage_strides(output_stride)
        try:
            resnet = build(weights=None, width_per_group=64 * width_multiplier)
        except ValueError as error:
            raise InputError(f"width multiplier {width_multiplier}: {build.__name__} has no "
                             "bottlenecks to widen; choose resnet50 or resnet101") from error
        for name, module in resnet.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, module)
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        self.channels = tuple(n * self.layer1[0].expansion for n in (64, 128, 256, 512))
        _replace_stride_with_dilation(*stages[self.strides.index(output_stride) + 1 :])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return tuple(features)


def _name(name: str, width_multiplier: int) -> str:
    return name if width_multiplier == 1 else f"{name} of width {width_multiplier}"


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mobilenetv2": MobileNetV2,
    "resnet18": partial(ResNet, models.resnet18),
    "resnet34": partial(ResNet, models.resnet34),
    "resnet50": partial(ResNet, models.resnet50),
    "resnet101": partial(ResNet, models.resnet101),
}

# Backbone -> width multiplier -> torchvision's weights of it.
IMAGENET_WEIGHTS: dict[str, dict[int, models.WeightsEnum]] = {
    "mobilenetv2": {1: models.MobileNet_V2_Weights.IMAGENET1K_V1},
    "resnet18": {1: models.ResNet18_Weights.IMAGENET1K_V1},
    "resnet34": {1: models.ResNet34_Weights.IMAGENET1K_V1},
    "resnet50": {1: models.ResNet50_Weights.IMAGENET1K_V1,
                 2: models.Wide_ResNet50_2_Weights.IMAGENET1K_V1},
    "resnet101": {1: models.ResNet101_Weights.IMAGENET1K_V1,
                  2: models.Wide_ResNet101_2_Weights.IMAGENET1K_V1},
}
