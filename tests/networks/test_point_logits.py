"""`network(x, points)` against the full map, and what the decoder's batch norm sees in training."""

from __future__ import annotations

import copy
import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPPPooling

from datasets.points import VOID
from networks import build_network
from networks.decoder import PointDecoder
from networks.deeplab import ImagePooling
from query import ACQUISITIONS, select_pixels
from tests.networks.sampling import awkward_points, check_gradients_at_points, sampled
from utils.losses import cross_entropy

NORMS = ("project_norm", "norm1", "norm2")
CONFIGURATIONS = [("mobilenetv2", 16), ("mobilenetv2", 8), ("resnet50", 16), ("resnet50", 8)]
N_CLASSES = 5


@functools.cache
@torch.no_grad()
def randomised_network(backbone: str, output_stride: int) -> nn.Module:
    """A network in eval mode without dropout whose batch norms have affine parameters and running
    statistics far from 1 and 0, but such that its logits differ by about one."""
    torch.manual_seed(0)
    network = build_network("deeplab", backbone=backbone, n_classes=N_CLASSES,
                            output_stride=output_stride)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.3)
        norm.momentum = 1.0  # one pass gives statistics of the right size
    network.train()(torch.randn(4, 3, 64, 64) + torch.randn(4, 3, 1, 1))
    for norm in norms:
        norm.momentum = 0.1
        norm.running_mean += 0.3 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.5, 2)
    network.decoder.classifier.weight.normal_(0, 0.04)
    return network.eval()


@pytest.fixture
def network() -> nn.Module:
    """A copy to train."""
    return copy.deepcopy(randomised_network("mobilenetv2", 16))


@pytest.mark.parametrize(("key", "size"), [
    *((key, size) for key in CONFIGURATIONS for size in ((90, 120), (61, 75))),
    *((("mobilenetv2", 16), size) for size in ((7, 5), (3, 2), (4, 30))),
])
@torch.no_grad()
def test_points_equal_the_sampled_full_map(key, size):
    network = randomised_network(*key)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    full = network(x)
    assert full.shape == (2, N_CLASSES, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    if size == (90, 120):
        assert 0.1 < full.std(dim=(0, 2, 3)).mean() < 10  # else 1e-4 would say nothing
    points = awkward_points(2, size)
    at_points = network(x, points)
    torch.testing.assert_close(at_points, sampled(full, points, size), atol=1e-4, rtol=0)


@torch.no_grad()
def test_points_equal_the_sampled_full_map_of_90x120():
    network = randomised_network("mobilenetv2", 16)
    x = torch.randn(1, 3, 360, 480, generator=torch.Generator().manual_seed(3))
    full = network(x)
    assert full.shape[2:] == (90, 120)
    points = awkward_points(1, (360, 480))
    at_points = network(x, points)
    torch.testing.assert_close(at_points, sampled(full, points, (360, 480)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_no_points(network, training):
    """`(B, 0, 2)` gives `(B, 0, C)`, and a loss of zero that can be propagated."""
    logits = network.train(training)(torch.randn(2, 3, 33, 41), torch.zeros(2, 0, 2))
    assert logits.shape == (2, 0, N_CLASSES)
    loss = cross_entropy(logits, torch.zeros(2, 0, dtype=torch.long), ignore_index=VOID)
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize("key", [("mobilenetv2", 8), ("resnet50", 16)])
def test_gradients_equal_those_through_the_full_map(key):
    network, size = randomised_network(*key), (29, 39)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(4))
    check_gradients_at_points(network, x, n_classes=N_CLASSES)


# --- batch norm in training -------------------------------------------------------------------


def running_statistics(decoder: PointDecoder) -> dict[str, Tensor]:
    return {f"{name}.{part}": getattr(getattr(decoder, name), f"running_{part}").clone()
            for name in NORMS for part in ("mean", "var")}


def statistics_of(decoder: PointDecoder, *features: Tensor, **kwargs) -> dict[str, Tensor]:
    """The batch's own statistics: what a momentum of 1 leaves in the running ones."""
    for name in NORMS:
        getattr(decoder, name).momentum = 1.0
    with torch.no_grad():
        decoder.train()
        decoder.at_points(*features, **kwargs) if kwargs else decoder(*features)
    return running_statistics(decoder)


def draw_points(size: tuple[int, int], n: int, *, seed: int, batch: int = 2) -> Tensor:
    """`(batch, n, 2)`, uniform on an image or map of `size`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, n, 2, generator=generator) * torch.tensor(size) - 0.5


def test_running_statistics_depend_on_the_statistics_points_alone(network):
    size = (29, 39)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(6))

    def after(points: Tensor, seed: int) -> dict[str, Tensor]:
        trained = copy.deepcopy(network).train()
        trained(x, points, statistics_points=draw_points(size, 24, seed=seed))
        assert trained.decoder.norm1.num_batches_tracked == 2  # one more than the calibration
        return running_statistics(trained.decoder)

    some = after(draw_points(size, 3, seed=0), seed=1)
    padded = after(torch.cat([draw_points(size, 40, seed=2), torch.zeros(2, 20, 2)], 1), seed=1)
    others = after(draw_points(size, 3, seed=0), seed=2)
    for name in some:
        torch.testing.assert_close(padded[name], some[name], atol=1e-5, rtol=1e-5)
        assert (others[name] - some[name]).abs().max() > 1e-3


def test_padding_changes_no_logits_and_no_gradients_in_training(network):
    size = (29, 39)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(7))
    points, statistics_points = draw_points(size, 5, seed=0), draw_points(size, 24, seed=1)
    labels = torch.randint(N_CLASSES, (2, 5), generator=torch.Generator().manual_seed(8))
    network.train()
    results = []
    for n_pads in (0, 37):
        logits = network(x, torch.cat([points, torch.zeros(2, n_pads, 2)], dim=1),
                         statistics_points=statistics_points)
        loss = cross_entropy(logits, F.pad(labels, (0, n_pads), value=VOID), ignore_index=VOID)
        results.append((logits[:, :5], *torch.autograd.grad(loss, network.decoder.parameters())))
    for padded, plain in zip(*reversed(results), strict=True):
        torch.testing.assert_close(padded, plain, atol=1e-5, rtol=1e-4)


def test_statistics_points_are_drawn_when_none_are_given(network):
    x, points = torch.randn(2, 3, 45, 59), draw_points((45, 59), 3, seed=0)
    network.train()
    first, second = (network(x, points) for _ in range(2))
    assert first.isfinite().all() and not torch.allclose(first, second)
    network.eval()
    torch.testing.assert_close(network(x, points), network(x, points), atol=0, rtol=0)


class WeightedDecoder:
    """The full decoder whose batch norm counts each pixel of the low map as often as it lies in a
    window of the statistics points, relative to how often uniform points would have it there: what
    `at_points` has to equal in training."""

    def __init__(self, decoder: PointDecoder, size: tuple[int, int], points: Tensor) -> None:
        self.decoder, self.size, self.points = decoder, size, points
        self.statistics: dict[str, Tensor] = {}

    def weights(self, window: int) -> Tensor:
        """`(B, 1, h, w)`; an inner pixel counts once for each window it lies in."""
        quarters = [torch.arange(4 * n) / 4 - 0.375 for n in self.size]
        dense = self.counts(torch.cartesian_prod(*quarters)[None], window)
        return self.counts(self.points, window) / dense * 16 * window**2

    def counts(self, points_of: Tensor, window: int) -> Tensor:
        """`(B, 1, h, w)`: windows of the 2x2 pixels around a point, grown to `window`."""
        counts, margin = torch.zeros(len(points_of), 1, *self.size), (window - 2) // 2
        for image, points in zip(counts, points_of.tolist(), strict=True):
            for point in points:
                first = [max(min(math.floor(max(p, 0)), n - 2), 0)
                         for p, n in zip(point, self.size, strict=True)]
                rows, columns = (slice(max(f - margin, 0), f + margin + 2) for f in first)
                image[:, rows, columns] += 1
        return counts

    def norm_relu(self, name: str, x: Tensor, window: int) -> Tensor:
        norm, counts = getattr(self.decoder, name), self.weights(window)
        n = counts.sum()
        mean = (x * counts).sum((0, 2, 3), keepdim=True) / n
        var = ((x - mean) ** 2 * counts).sum((0, 2, 3), keepdim=True) / n
        self.statistics |= {f"{name}.mean": mean.detach().flatten(),
                            f"{name}.var": var.detach().flatten() * n / (n - 1)}
        x = (x - mean) / (var + norm.eps).sqrt()
        return F.relu(x * norm.weight[:, None, None] + norm.bias[:, None, None])

    def __call__(self, low: Tensor, high: Tensor) -> Tensor:
        low = self.norm_relu("project_norm", self.decoder.project(low), 6)
        high = F.interpolate(high, size=self.size, mode="bilinear", align_corners=False)
        x = self.norm_relu("norm1", self.decoder.conv1(torch.cat([high, low], 1)), 4)
        return self.decoder.classifier(self.norm_relu("norm2", self.decoder.conv2(x), 2))


@pytest.mark.parametrize("size", [(12, 15), (3, 4), (1, 7)])
def test_training_equals_a_full_decoder_with_weighted_statistics(network, size):
    """Logits, running statistics and all gradients, also where windows reach over the border."""
    decoder = network.decoder.train()
    generator = torch.Generator().manual_seed(9)
    low = torch.randn(2, 24, *size, generator=generator, requires_grad=True)
    high = torch.randn(2, 256, *(math.ceil(n / 4) for n in size), generator=generator,
                       requires_grad=True)
    points = awkward_points(2, size)
    full = WeightedDecoder(decoder, size, draw_points(size, 24, seed=3))
    for name in NORMS:
        getattr(decoder, name).momentum = 1.0
    ours = decoder.at_points(low, high, points, full.points)
    expected = sampled(full(low, high), points, size)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    for name, value in running_statistics(decoder).items():
        torch.testing.assert_close(value, full.statistics[name], atol=1e-5, rtol=1e-4)
    random = torch.randn(ours.shape, generator=generator)
    inputs = [low, high, *decoder.parameters()]
    for gradient, reference in zip(*(torch.autograd.grad((logits * random).sum(), inputs)
                                     for logits in (ours, expected)), strict=True):
        assert (gradient - reference).norm() <= 1e-3 * reference.norm() + 1e-4


def image_with_a_noisy_half(size: tuple[int, int]) -> Tensor:
    """`(2, 3, *size)`: left half smooth, right half noise."""
    height, width = size
    generator = torch.Generator().manual_seed(10)
    ramp = torch.linspace(-1, 1, height)[:, None].expand(height, width).expand(2, 3, -1, -1)
    ramp = ramp * torch.tensor([1.0, -0.7])[:, None, None, None]
    noise = 1.5 * torch.randn(2, 3, *size, generator=generator)
    return torch.cat([ramp[..., : width // 2], noise[..., width // 2 :]], dim=-1)


def distance(ours: dict[str, Tensor], full: dict[str, Tensor]) -> float:
    """Largest over the two 3x3 convolutions of the mean error of a channel: of means in standard
    deviations, of variances relative."""
    errors = []
    for name in ("norm1", "norm2"):
        var = full[f"{name}.var"]
        errors += [((ours[f"{name}.mean"] - full[f"{name}.mean"]) / var.sqrt()).abs().mean().item(),
                   (ours[f"{name}.var"] / var - 1).abs().mean().item()]
    return max(errors)


@torch.no_grad()
def features_and_small_decoder(network: nn.Module,
                               x: Tensor) -> tuple[Tensor, Tensor, PointDecoder]:
    """The decoder's inputs for `x`, and a decoder of few channels: its statistics are cheap."""
    low, _, _, high = network.backbone(x)
    torch.manual_seed(12)
    decoder = PointDecoder(low_channels=24, high_channels=256, n_classes=N_CLASSES, channels=16,
                           dropout_p=0.0, mc_dropout_p=0.0)
    return low, network.aspp(high), decoder


def test_statistics_points_everywhere_give_the_full_decoders_statistics(network):
    """At every second pixel the 2x2 windows tile the map. The larger ones count border pixels less
    often, so this is close, not exact."""
    low, high, decoder = features_and_small_decoder(network, image_with_a_noisy_half((240, 320)))
    h, w = low.shape[2:]
    everywhere = torch.cartesian_prod(torch.arange(0, h, 2), torch.arange(0, w, 2)).float()
    everywhere = everywhere.expand(2, -1, -1)
    full = statistics_of(decoder, low, high)
    ours = statistics_of(decoder, low, high, points=torch.zeros(2, 1, 2),
                         statistics_points=everywhere)
    assert distance(ours, full) < 0.1
    upper_half = statistics_of(decoder, low, high, points=torch.zeros(2, 1, 2),
                               statistics_points=everywhere[:, : h * w // 8])
    assert distance(upper_half, full) > 0.2


@torch.no_grad()
def make_sure_of_the_left_half(decoder: PointDecoder, low: Tensor, high: Tensor) -> None:
    """Fit the classifier by least squares to class 0 on the left and random classes on the
    right, so that uncertain pixels are those on the right."""
    seen: list[Tensor] = []
    hook = decoder.classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    decoder.eval()(low, high)
    hook.remove()
    batch, channels, h, w = seen[0].shape
    target = torch.zeros(batch, h, w, dtype=torch.long)
    target[..., w // 2 :].random_(N_CLASSES, generator=torch.Generator().manual_seed(13))
    inputs = F.pad(seen[0].permute(0, 2, 3, 1).reshape(-1, channels), (0, 1), value=1.0)
    outputs = F.one_hot(target, N_CLASSES).float().flatten(0, 2)
    solution = 10 * torch.linalg.lstsq(inputs, outputs).solution  # (channels + 1, N_CLASSES)
    decoder.classifier.weight.copy_(solution[:-1].T[..., None, None])
    decoder.classifier.bias.copy_(solution[-1])


def test_statistics_are_fair_when_uncertain_pixels_are_asked(network):
    """100 margin-chosen pixels an image, 24 drawn: over many draws the statistics are the full
    decoder's. With the asked windows in them as well they would not be."""
    size = (360, 480)
    low, high, decoder = features_and_small_decoder(network, image_with_a_noisy_half(size))
    full = statistics_of(decoder, low, high)
    make_sure_of_the_left_half(decoder, low, high)
    with torch.no_grad():
        logits = F.interpolate(decoder(low, high), size=size, mode="bilinear")
    asked = torch.stack([torch.from_numpy(select_pixels(
        score.numpy(), n=100, top_n_percent=0, rng=np.random.default_rng(0)))
        for score in ACQUISITIONS["margin_sampling"](logits.softmax(dim=1))]).float()
    assert (asked[..., 1] >= size[1] // 2).float().mean() > 0.8
    asked = (asked + 0.5) / 4 - 0.5  # in pixels of the low map

    def mean_statistics(n_draws: int, *, with_asked: bool) -> dict[str, Tensor]:
        draws = [draw_points(low.shape[2:], 24, seed=seed) for seed in range(n_draws)]
        found = [statistics_of(decoder, low, high, points=asked, statistics_points=torch.cat(
            [drawn, asked] if with_asked else [drawn], dim=1)) for drawn in draws]
        return {name: torch.stack([one[name] for one in found]).mean(dim=0) for name in full}

    fair = distance(mean_statistics(24, with_asked=False), full)
    unfair = distance(mean_statistics(4, with_asked=True), full)
    assert fair < 0.08
    assert unfair > 4 * fair


# --- parts ------------------------------------------------------------------------------------


def test_image_pooling_is_torchvisions():
    """In float32 but for the last digits; the gradient is that of float64."""
    torch.manual_seed(12)
    theirs = ASPPPooling(8, 6)
    ours = ImagePooling(*copy.deepcopy(theirs))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(3, 8, 23, 30).contiguous(memory_format=torch.channels_last)
    for enabled, atol in ((True, 0), (False, 3e-7)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            pooled, expected = ours(x), theirs(x)
        torch.testing.assert_close(pooled, expected, rtol=0, atol=atol)
        assert pooled.is_contiguous(memory_format=torch.channels_last)  # as the branches beside it
    random = torch.randn(pooled.shape)
    exact = copy.deepcopy(theirs).double()
    for parameter, reference in zip(
            torch.autograd.grad((ours(x) * random).sum(), list(ours.parameters())),
            torch.autograd.grad((exact(x.double()) * random).sum(), list(exact.parameters())),
            strict=True):
        torch.testing.assert_close(parameter.double(), reference, rtol=1e-4, atol=1e-4)


def test_batch_without_labels_gives_an_attached_loss_of_zero(network):
    logits = network.train()(torch.randn(2, 3, 33, 41), draw_points((33, 41), 4, seed=0))
    loss = cross_entropy(logits, torch.full((2, 4), VOID), ignore_index=VOID)
    loss.backward()
    assert loss.item() == 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name
