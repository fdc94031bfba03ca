"""Checkpoints of PixelPick's authors: names and shapes, and their arithmetic written out by hand,
read from the state dict under their names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Expansion, channels, blocks, stride, dilation: MobileNetv2 at output stride 16.
STAGES = ((1, 16, 1, 1, 1), (6, 24, 2, 2, 1), (6, 32, 3, 2, 1), (6, 64, 4, 2, 1), (6, 96, 3, 1, 1),
          (6, 160, 3, 1, 1), (6, 320, 1, 1, 2))
BOTTLENECKS = (3, 4, 6, 3)  # ResNet50


class _Drawing(dict):
    """A state dict whose entries are drawn; batch norm is made unlike the identity."""

    def conv(self, name: str, *shape: int, bias: bool = False) -> None:
        fan_in = shape[1] * shape[2] ** 2
        self[f"{name}.weight"] = torch.randn(shape[0], shape[1], shape[2], shape[2]) * (
            2 / fan_in) ** 0.5
        if bias:
            self[f"{name}.bias"] = torch.randn(shape[0]) * 0.1

    def norm(self, name: str, n: int, *, batch: bool = True) -> None:
        self[f"{name}.weight"] = torch.rand(n) + 0.5
        self[f"{name}.bias"] = torch.randn(n) * 0.3
        if batch:
            self[f"{name}.running_mean"] = torch.randn(n) * 0.1
            self[f"{name}.running_var"] = torch.rand(n) + 0.5
            self[f"{name}.num_batches_tracked"] = torch.tensor(7)


def blocks() -> list[tuple[int, int, int, int, int]]:
    """Of MobileNetv2: channels in, hidden, out, stride, dilation; the i-th is features.{i + 1}."""
    found, n_in = [], 32
    for expansion, n_out, n_blocks, stride, dilation in STAGES:
        for i in range(n_blocks):
            found.append((n_in, expansion * n_in, n_out, stride if i == 0 else 1, dilation))
            n_in = n_out
    return found


def deeplab_state(n_classes: int) -> dict[str, Tensor]:
    state = _Drawing()
    state.conv("backbone.features.0.0", 32, 3, 3)
    state.norm("backbone.features.0.1", 32)
    for index, (n_in, hidden, n_out, _, _) in enumerate(blocks(), start=1):
        convs = [(hidden, n_in, 1), (hidden, 1, 3), (n_out, hidden, 1)][hidden == n_in:]
        for i, shape in enumerate(convs):
            state.conv(f"backbone.features.{index}.conv.{3 * i}", *shape)
            state.norm(f"backbone.features.{index}.conv.{3 * i + 1}", shape[0])
    for name, value in list(state.items()):  # registered twice
        part = "low" if int(name.split(".")[2]) < 4 else "high"
        state[name.replace("features", f"{part}_level_features", 1)] = value
    for i, size in enumerate((1, 3, 3, 3), start=1):
        state.conv(f"aspp.aspp{i}.atrous_conv", 256, 320, size)
        state.norm(f"aspp.aspp{i}.bn", 256)
    for conv, norm, shape in (
            ("aspp.global_avg_pool.1", "aspp.global_avg_pool.2", (256, 320, 1)),
            ("aspp.conv1", "aspp.bn1", (256, 1280, 1)),
            ("low_level_conv.0", "low_level_conv.1", (48, 24, 1)),
            ("seg_head.segment_head.0", "seg_head.segment_head.1", (256, 304, 3)),
            ("seg_head.segment_head.4", "seg_head.segment_head.5", (256, 256, 3))):
        state.conv(conv, *shape)
        state.norm(norm, shape[0])
    state.conv("seg_head.classifier", n_classes, 256, 1, bias=True)
    return dict(state)


def fpn_state(n_classes: int) -> dict[str, Tensor]:
    state, n_in = _Drawing(), 64
    state.conv("encoder.base.prefix.conv1", 64, 3, 7)
    state.norm("encoder.base.prefix.bn1", 64)
    for layer, n_blocks in enumerate(BOTTLENECKS, start=1):
        width = 32 * 2 ** layer
        for i in range(n_blocks):
            name = f"encoder.base.layer{layer}.{i}"
            for j, shape in enumerate(((width, n_in, 1), (width, width, 3), (4 * width, width, 1)),
                                      start=1):
                state.conv(f"{name}.conv{j}", *shape)
                state.norm(f"{name}.bn{j}", shape[0])
            if i == 0:
                state.conv(f"{name}.downsample.0", 4 * width, n_in, 1)
                state.norm(f"{name}.downsample.1", 4 * width)
            n_in = 4 * width
    for k in range(4):  # from the coarsest
        state.conv(f"decoder.lat_layer_{k}", 256, 2048 // 2 ** k, 1, bias=True)
        for j in range(2 if k == 3 else 3):
            name = f"decoder.upsample_blocks_{k}.{j}.block"
            state.conv(f"{name}.0", 128, 128 if j else 256, 3, bias=True)
            state.norm(f"{name}.1", 128, batch=False)
    state.conv("decoder.classifier", n_classes, 128, 1, bias=True)
    return dict(state)


# --- the arithmetic ---------------------------------------------------------------------------


class Arithmetic:
    """Layers in evaluation, read from a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self._state = state

    def conv(self, x: Tensor, name: str, **kwargs: int) -> Tensor:
        return F.conv2d(x, self._state[f"{name}.weight"], self._state.get(f"{name}.bias"), **kwargs)

    def norm(self, x: Tensor, name: str) -> Tensor:
        get = (self._state[f"{name}.{part}"][:, None, None]
               for part in ("weight", "bias", "running_mean", "running_var"))
        weight, bias, mean, var = get
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def deeplab_logits(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """`(B, 3, H, W)`, H and W multiples of 8 -> `(B, C, H, W)`."""
    net, low = Arithmetic(state), None
    y = net.norm(net.conv(x, "backbone.features.0.0", stride=2, padding=1),
                 "backbone.features.0.1").clamp(0, 6)
    for index, (n_in, hidden, n_out, stride, dilation) in enumerate(blocks(), start=1):
        name = f"backbone.features.{index}.conv"
        z, place = F.pad(y, [dilation] * 4), 0
        if hidden != n_in:
            z, place = net.norm(net.conv(z, f"{name}.0"), f"{name}.1").clamp(0, 6), 3
        z = net.conv(z, f"{name}.{place}", stride=stride, dilation=dilation, groups=hidden)
        z = net.norm(z, f"{name}.{place + 1}").clamp(0, 6)
        z = net.norm(net.conv(z, f"{name}.{place + 3}"), f"{name}.{place + 4}")
        y = y + z if stride == 1 and n_in == n_out else z
        low = y if index == 3 else low
    parts = [net.norm(net.conv(y, f"aspp.aspp{i}.atrous_conv", padding=rate if i > 1 else 0,
                               dilation=rate), f"aspp.aspp{i}.bn").relu()
             for i, rate in enumerate((1, 6, 12, 18), start=1)]
    pooled = net.conv(y.mean(dim=(2, 3), keepdim=True), "aspp.global_avg_pool.1")
    parts.append(net.norm(pooled, "aspp.global_avg_pool.2").relu().expand_as(parts[0]))
    y = net.norm(net.conv(torch.cat(parts, dim=1), "aspp.conv1"), "aspp.bn1").relu()
    low = net.norm(net.conv(low, "low_level_conv.0"), "low_level_conv.1").relu()
    y = torch.cat([corner_aligned(y, low.shape[-2:]), low], dim=1)
    for i in (0, 4):
        y = net.norm(net.conv(y, f"seg_head.segment_head.{i}", padding=1),
                     f"seg_head.segment_head.{i + 1}").relu()
    return corner_aligned(net.conv(y, "seg_head.classifier"), x.shape[-2:])


def corner_aligned(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear: the first and last pixels of both sizes coincide."""
    for axis, length in zip((2, 3), size, strict=True):
        n = x.shape[axis]
        source = torch.arange(length, dtype=torch.float64) * (n - 1) / (length - 1)
        distance = source[:, None] - torch.arange(n)
        weights = (1 - distance.abs()).clamp(min=0).float()  # (length, n)
        x = torch.movedim(torch.movedim(x, axis, -1) @ weights.T, -1, axis)
    return x


def fpn_logits(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """`(B, 3, H, W)`, H and W multiples of 8 -> `(B, C, H, W)`."""
    net, maps = Arithmetic(state), []
    y = net.conv(x, "encoder.base.prefix.conv1", stride=2, padding=3)
    y = F.max_pool2d(net.norm(y, "encoder.base.prefix.bn1").relu(), 3, stride=2, padding=1)
    for layer, n_blocks in enumerate(BOTTLENECKS, start=1):
        for i in range(n_blocks):
            name, stride = f"encoder.base.layer{layer}.{i}", 2 if (layer, i) == (2, 0) else 1
            # Dilated to stride 8: 2 in layer 3, 4 in layer 4, the first block as the layer before.
            dilation = {3: 1 if i == 0 else 2, 4: 2 if i == 0 else 4}.get(layer, 1)
            z = net.norm(net.conv(y, f"{name}.conv1"), f"{name}.bn1").relu()
            z = net.conv(z, f"{name}.conv2", stride=stride, padding=dilation, dilation=dilation)
            z = net.norm(z, f"{name}.bn2").relu()
            z = net.norm(net.conv(z, f"{name}.conv3"), f"{name}.bn3")
            if i == 0:
                y = net.norm(net.conv(y, f"{name}.downsample.0", stride=stride),
                             f"{name}.downsample.1")
            y = (y + z).relu()
        maps.append(y)
    above, total = 0, 0
    for k, level in enumerate(reversed(maps)):
        y = net.conv(level, f"decoder.lat_layer_{k}")
        if k:
            y = y + F.interpolate(above, size=y.shape[-2:], mode="bilinear")
        above = y
        for j in range(2 if k == 3 else 3):
            name = f"decoder.upsample_blocks_{k}.{j}.block"
            y = net.conv(y, f"{name}.0", padding=1)
            y = F.group_norm(y, 32, state[f"{name}.1.weight"], state[f"{name}.1.bias"]).relu()
            y = F.interpolate(y, scale_factor=2, mode="bilinear")
        total = total + y
    return net.conv(total, "decoder.classifier")
