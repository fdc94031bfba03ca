"""Backbones from torchvision.

The contract: a backbone is a module with `low_channels`, `high_channels` and `layers_behind` (the
prefixes of the names in a state dict that belong to no layer of it); called on images
`(B, 3, H, W)` it returns `(low, high)`: features of stride 4, `(B, low_channels, ceil(H / 4),
ceil(W / 4))`, and features of the output stride s (16 or 8), `(B, high_channels, ceil(H / s),
ceil(W / s))`. Its state dict has torchvision's names, so that torchvision's weights fit.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torchvision import models

OUTPUT_STRIDES = (8, 16)


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
            depthwise = next(m for m in self.features[index].modules()
                             if isinstance(m, nn.Conv2d) and m.groups > 1)
            # As in torchvision's dilated ResNets, the block that gives up its stride keeps the
            # dilation before it, and the blocks behind it make up for the stride.
            following = dilation * depthwise.stride[0]
            depthwise.stride = (1, 1)
            depthwise.dilation = depthwise.padding = (dilation, dilation)
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
