"""The contract of backbones, for every one and every output stride; widths; initial weights;
its depthwise convolutions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from networks import BACKBONES, IMAGENET_WEIGHTS, NETWORKS, OUTPUT_STRIDES, build_network
from networks.backbones import DilatedDepthwise, StridedDepthwise
from networks.weights import load_backbone_weights
from utils.errors import InputError

CHANNELS = {"mobilenetv2": (24, 32, 96, 320), "resnet18": (64, 128, 256, 512),
            "resnet34": (64, 128, 256, 512), "resnet50": (256, 512, 1024, 2048),
            "resnet101": (256, 512, 1024, 2048)}
TORCHVISION = {
    ("mobilenetv2", 1): models.mobilenet_v2, ("resnet18", 1): models.resnet18,
    ("resnet34", 1): models.resnet34, ("resnet50", 1): models.resnet50,
    ("resnet101", 1): models.resnet101, ("resnet50", 2): models.wide_resnet50_2,
    ("resnet101", 2): models.wide_resnet101_2,
}
CLASSIFIERS = ("fc.", "classifier.", "features.18.")
WITHOUT_BOTTLENECKS = ("resnet18", "resnet34")


def torchvision_model(name: str, width: int = 1) -> nn.Module:
    """In eval mode, with running statistics other than 0 and 1."""
    torch.manual_seed(0)
    model = TORCHVISION[name, width](weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def stage_outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Of torchvision's own network, of strides 4, 8, 16 and 32."""
    if isinstance(model, models.MobileNetV2):
        stages = [model.features[a:b] for a, b in ((0, 4), (4, 7), (7, 14), (14, 18))]
    else:
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        stages = [nn.Sequential(stem, model.layer1), model.layer2, model.layer3, model.layer4]
    outputs = []
    for stage in stages:
        x = stage(x)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("output_stride", OUTPUT_STRIDES)
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_torchvisions_weights_give_torchvisions_features(name, output_stride):
    """Dilation in the place of stride: every second or fourth pixel is what it was with stride."""
    backbone, model = BACKBONES[name](output_stride=output_stride).eval(), torchvision_model(name)
    x = torch.randn(1, 3, 65, 70, generator=torch.Generator().manual_seed(1))
    expected = stage_outputs(model, x)
    assert not torch.allclose(backbone(x)[0], expected[0], atol=1e-3)
    load_backbone_weights(backbone, model.state_dict(), source="a.pth")
    strides = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
    assert backbone.strides == strides and backbone.channels == CHANNELS[name]
    for features, reference, stride, channels, full_stride in zip(
            backbone(x), expected, strides, CHANNELS[name], (4, 8, 16, 32), strict=True):
        assert features.shape == (1, channels, math.ceil(65 / stride), math.ceil(70 / stride))
        step = full_stride // stride
        torch.testing.assert_close(features[..., ::step, ::step], reference, rtol=0,
                                   atol=1e-4 * reference.abs().max().item())


@pytest.mark.parametrize(("name", "width"), TORCHVISION)
def test_names_and_shapes_are_torchvisions(name, width):
    with torch.device("meta"):
        state = BACKBONES[name](output_stride=8, width_multiplier=width).state_dict()
        expected = TORCHVISION[name, width](weights=None).state_dict()
    shapes = {key: tensor.shape for key, tensor in expected.items()
              if not key.startswith(CLASSIFIERS)}
    assert {key: tensor.shape for key, tensor in state.items()} == shapes


@pytest.mark.parametrize("size", [(7, 5), (3, 2), (64, 96)])
@pytest.mark.parametrize("name", ["mobilenetv2", "resnet18", "resnet50"])
@torch.no_grad()
def test_sizes_are_rounded_up(name, size):
    backbone = BACKBONES[name](output_stride=8).eval()
    for features, stride in zip(backbone(torch.zeros(1, 3, *size)), backbone.strides, strict=True):
        assert features.shape[2:] == tuple(math.ceil(n / stride) for n in size)


# --- widths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_wide_network(network):
    torch.manual_seed(0)
    wide = build_network(network, backbone="resnet50", n_classes=3, width_multiplier=3).eval()
    assert wide.backbone.layer1[0].conv2.weight.shape == (192, 192, 3, 3)
    assert wide.backbone.channels == CHANNELS["resnet50"]
    assert wide(torch.zeros(1, 3, 9, 13)).shape == (1, 3, 3, 4)


@torch.no_grad()
def test_mobilenetv2_is_wider_everywhere():
    wide = BACKBONES["mobilenetv2"](width_multiplier=2).eval()
    assert wide.channels == (48, 64, 192, 640)
    for features, channels in zip(wide(torch.zeros(1, 3, 9, 13)), wide.channels, strict=True):
        assert features.shape[1] == channels


@pytest.mark.parametrize("name", WITHOUT_BOTTLENECKS)
def test_blocks_without_bottlenecks_have_one_width(name):
    with pytest.raises(InputError, match=f"^width multiplier 2: {name} .* resnet50 or resnet101$"):
        build_network("FPN", backbone=name, n_classes=3, width_multiplier=2)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_width_that_torchvision_releases_can_be_built(name):
    assert 1 in IMAGENET_WEIGHTS[name]
    for width, weights in IMAGENET_WEIGHTS[name].items():
        expected = TORCHVISION[name, width].__name__
        assert type(weights).__name__.lower().startswith(f"{expected}_weights")


# --- networks of them -------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_every_network_with_every_backbone(network, name):
    for output_stride in (None, *OUTPUT_STRIDES):
        built = build_network(network, backbone=name, n_classes=3, output_stride=output_stride)
        assert built.backbone.strides[-1] == (output_stride or {"deeplab": 16, "FPN": 8}[network])
        x, points = torch.zeros(2, 3, 13, 18), torch.rand(2, 4, 2) * 12
        assert built.eval()(x).shape == (2, 3, 4, 5)
        assert built(x, points).shape == (2, 4, 3)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["mobilenetv2", "resnet18"])
def test_a_seed_gives_the_same_network(network, name):
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        built = build_network(network, backbone=name, n_classes=3)
        return torch.cat([parameter.flatten() for parameter in built.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


# --- depthwise convolutions ----------------------------------------------------------------------


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("size", [(9, 11), (8, 8), (7, 4), (3, 2), (1, 1)])
def test_dilated_depthwise_is_a_dilated_convolution(size, dilation):
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(2, 6, *size, generator=generator, requires_grad=True)
    weight = nn.Parameter(torch.randn(6, 1, 3, 3, generator=generator))
    ours = DilatedDepthwise(weight, dilation=dilation)(x)
    expected = F.conv2d(x, weight, padding=dilation, dilation=dilation, groups=6)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    random = torch.randn(ours.shape, generator=generator)
    for gradient, reference in zip(*(torch.autograd.grad((out * random).sum(), [x, weight])
                                     for out in (ours, expected)), strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-4, rtol=1e-5)


def test_strided_depthwise_is_a_strided_convolution_in_float32():
    generator = torch.Generator().manual_seed(12)
    x = torch.randn(2, 6, 9, 7, generator=generator)
    layer = StridedDepthwise(nn.Parameter(torch.randn(6, 1, 3, 3, generator=generator)))
    expected = F.conv2d(x, layer.weight, stride=2, padding=1, groups=6)
    torch.testing.assert_close(layer(x), expected)
    rounded = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(rounded)
    assert out.dtype == torch.bfloat16
    exact = F.conv2d(rounded.float(), layer.weight, stride=2, padding=1, groups=6)
    torch.testing.assert_close(out, exact.bfloat16(), atol=0, rtol=0)
    gradients = [torch.autograd.grad(y.float().sum(), [rounded, layer.weight])
                 for y in (out, exact)]
    for gradient, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, reference, atol=0.02, rtol=0.01)


def test_mobilenets_strides_are_trained_in_float32():
    """As many as there are behind the stem above the output stride."""
    found = [module for module in build_network("deeplab", backbone="mobilenetv2",
                                                n_classes=3).modules()
             if isinstance(module, StridedDepthwise)]
    assert len(found) == 3
