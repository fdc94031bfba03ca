"""Backbones from torchvision.

The contract: a backbone is a module with `low_channels`, `high_channels` and `layers_behind` (the
prefixes of the names in a state dict that belong to no layer of it); called on images
`(B, 3, H, W)` it returns `(low, high)`: features of stride 4, `(B, low_channels, ceil(H / 4),
ceil(W / 4))`, and features of the output stride s (16 or 8), `(B, high_channels, ceil(H / s),
ceil(W / s))`. Its state dict has torchvision's names, so that torchvision's weights fit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

OUTPUT_STRIDES = (8, 16)


class DilatedDepthwise(nn.Conv2d):
    """A depthwise 3x3 convolution with padding = dilation = d, on the CPU computed on the d * d
    interleaved sub-images without dilation: the same sums, but oneDNN's backward pass of the
    dilated form takes several times as long in bfloat16."""

    def __init__(self, weight: nn.Parameter, *, dilation: int) -> None:
        channels = weight.shape[0]
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation,
                         groups=channels, bias=False)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu or self.dilation == (1, 1):
            return super().forward(x)
        (d, _), (batch, channels, height, width) = self.dilation, x.shape
        x = F.pad(x, (0, -width % d, 0, -height % d))
        h, w = x.shape[2] // d, x.shape[3] // d
        x = x.permute(0, 2, 3, 1).reshape(batch, h, d, w, d, channels)
        x = x.permute(2, 4, 0, 1, 3, 5).reshape(d * d * batch, h, w, channels)
        x = F.conv2d(x.permute(0, 3, 1, 2), self.weight, padding=1, groups=channels)
        x = x.permute(0, 2, 3, 1).reshape(d, d, batch, h, w, channels)
        x = x.permute(2, 3, 0, 4, 1, 5).reshape(batch, d * h, d * w, channels)
        return x[:, :height, :width].permute(0, 3, 1, 2)


class MobileNetV2(nn.Module):
    """MobileNetv2 up to its last inverted residual: low 24 channels, high 320."""

    low_channels, high_channels = 24, 320
    layers_behind = ("features.18.", "classifier.")
    _low_end = 4  # features[:4] ends the 24-channel stage at stride 4
    _stages = {16: range(14, 18), 8: range(7, 18)}  # blocks that lose their stride

    def __init__(self, *, output_stride: int = 16) -> None:
        super().__init__()
        self.features = models.mobilenet_v2(weights=None).features[:18]
        dilation = 1
        for index in self._stages[output_stride]:
            depthwise = self.features[index].conv[1]  # convolution, batch norm, ReLU6
            # As in torchvision's dilated ResNets, the block that gives up its stride keeps the
            # dilation before it, and the blocks behind it make up for the stride.
            following = dilation * depthwise[0].stride[0]
            depthwise[0] = DilatedDepthwise(depthwise[0].weight, dilation=dilation)
            dilation = following

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.features[: self._low_end](x)
        return low, self.features[self._low_end :](low)


class ResNet50(nn.Module):
    """ResNet50 without its classifier: low 256 channels, high 2048."""

    low_channels, high_channels = 256, 2048
    layers_behind = ("fc.",)

    def __init__(self, *, output_stride: int = 16) -> None:
        super().__init__()
        resnet = models.resnet50(
            weights=None, replace_stride_with_dilation=[False, output_stride == 8, True])
        for name, module in resnet.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, module)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        low = self.layer1(x)
        return low, self.layer4(self.layer3(self.layer2(low)))


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mobilenetv2": MobileNetV2,
    "resnet50": ResNet50,
}

IMAGENET_WEIGHTS: dict[str, models.WeightsEnum] = {
    "mobilenetv2": models.MobileNet_V2_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
}
