"""What the average teaches at unlabelled points, against values by hand."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import train
from datasets.augment import Augmentation
from datasets.batches import Batch, TrainingSet, training_batches
from networks import build_network
from utils.losses import cross_entropy
from utils.optimisation import Average
from utils.teacher import TARGETS, Teacher

P = torch.tensor([[[0.9, 0.1, 0.0], [0.4, 0.35, 0.25], [0.7, 0.2, 0.1]]])  # (1, S, C)


class Says(nn.Module):
    """A network that says P."""

    def forward(self, images: Tensor, points: Tensor) -> Tensor:
        return P.log()


def teacher(**changes: object) -> Teacher:
    return Teacher(**(dict(network=Says(), autocast=nullcontext, progress=lambda: 1.0, weight=1.0,
                           targets="hard", threshold=0.5, class_weights=None) | changes))


BATCH = Batch(images=torch.zeros(1, 3, 2, 2), labels=torch.zeros(1, 1, dtype=torch.long),
              weak_images=torch.zeros(1, 3, 2, 2), statistics_points=torch.zeros(1, 3, 2))
LOGITS = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [-1.0, 0.5, 2.0]]])


def entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p if x)


def test_hard_targets() -> None:
    """Trusted in proportion to what is above the threshold."""
    targets, trust = TARGETS["hard"](P, threshold=0.5)
    assert targets.tolist() == [[[1, 0, 0]] * 3]
    assert trust[0].tolist() == pytest.approx([0.8, 0, 0.4])
    log_p = LOGITS[0].log_softmax(dim=-1)[:, 0].tolist()
    expected = -(0.8 * log_p[0] + 0.4 * log_p[2]) / 3
    assert teacher().loss(BATCH, LOGITS).item() == pytest.approx(expected)


def test_soft_targets() -> None:
    """Trusted by their entropy."""
    targets, trust = TARGETS["soft"](P, threshold=0.1)
    certainty = [1 - entropy(p) / math.log(3) for p in P[0].tolist()]
    expected_trust = [max(c - 0.1, 0) / 0.9 for c in certainty]
    assert torch.equal(targets, P) and expected_trust[1] == 0 < expected_trust[2]
    assert trust[0].tolist() == pytest.approx(expected_trust, abs=1e-6)
    losses = -(P * LOGITS.log_softmax(dim=-1)).sum(-1)[0]
    expected = sum(t * x for t, x in zip(expected_trust, losses.tolist(), strict=True)) / 3
    assert teacher(targets="soft", threshold=0.1).loss(BATCH, LOGITS).item() == pytest.approx(
        expected, rel=1e-5)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.2, 0.4, 0.9])
def test_the_weight_grows(progress: float) -> None:
    full = teacher().loss(BATCH, LOGITS).item()
    part = teacher(progress=lambda: progress, weight=3.0).loss(BATCH, LOGITS).item()
    assert part == pytest.approx(3 * full * math.exp(-5 * max(1 - progress / 0.4, 0) ** 2))


def test_classes_weigh_as_the_labels_do() -> None:
    """By what the teacher says; their mean over the points is 1."""
    says = torch.tensor([[[0.9, 0.1, 0.0], [0.1, 0.8, 0.1]]]).log()
    network = Says()
    network.forward = lambda images, points: says
    weighted = teacher(network=network, threshold=0.0, class_weights=torch.tensor([1.0, 3.0, 9.0]))
    losses = -LOGITS[0].log_softmax(dim=-1)
    expected = (1 * 0.9 * losses[0, 0] + 3 * 0.8 * losses[1, 1]) / 4
    assert weighted.loss(BATCH, LOGITS[:, :2]).item() == pytest.approx(expected.item())


# --- with a network -----------------------------------------------------------------------------


def batches(*, with_weak: bool = True, **augmentation: object) -> list[Batch]:
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), np.uint8)
    data = TrainingSet(names=["a", "b"], sizes=np.full((2, 2), (24, 32)),
                       images=torch.from_numpy(images), points=torch.full((2, 3, 2), 11.0),
                       labels=torch.tensor([[0, 1, 2], [1, 1, -1]]), device=torch.device("cpu"))
    recipe = Augmentation(crop=(24, 32), mean=(0.4,) * 3, std=(0.3,) * 3, **augmentation)
    return list(training_batches(data, augmentation=recipe, batch_size=2, key=(0,),
                                 n_statistics_points=5, with_weak=with_weak))


def test_weak_images_have_the_same_geometry_and_their_own_colours() -> None:
    """They are the batch without jitter, grey and blur, whose draws stay what they are."""
    (strong,), (plain,) = batches(jitter_p=1.0), batches(jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    assert torch.equal(strong.weak_images, plain.images)
    assert torch.equal(plain.weak_images, plain.images)
    assert not torch.allclose(strong.images, strong.weak_images, atol=0.1)
    for name in ("points", "labels", "statistics_points"):
        assert torch.equal(getattr(strong, name), getattr(plain, name))
    (without,) = batches(with_weak=False, jitter_p=1.0)
    assert without.weak_images is None and torch.equal(without.images, strong.images)


@pytest.mark.parametrize(("name", "backbone"), [("deeplab", "mobilenetv2"), ("FPN", "resnet18")])
def test_the_gradient_reaches_the_student_alone(name: str, backbone: str) -> None:
    """Of a batch without a single label, so that nothing else has one."""
    torch.manual_seed(0)
    network = build_network(name, backbone=backbone, n_classes=3)
    average = Average(network, decay=0.9)
    before = {key: value.clone() for key, value in average.module.state_dict().items()}
    batch, = batches()
    batch.labels.fill_(-1)
    loss = train.backward(
        network.train(), batch, torch.tensor(0), loss=cross_entropy,
        forward=train.forward_of(nullcontext, at_all=True),
        teacher=teacher(network=average.module, threshold=0.0))
    assert loss.isfinite() and loss > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert sum(p.grad.abs().sum() for p in network.parameters()) > 0
    assert all(p.grad is None for p in average.module.parameters())
    after = average.module.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_logits_at_all_points_are_those_of_both() -> None:
    """In eval mode, where they are what each kind of points alone gives."""
    network = build_network("deeplab", backbone="mobilenetv2", n_classes=3).eval()
    (batch,) = batches()
    with torch.no_grad():
        both = network(batch.images, batch.points, statistics_points=batch.statistics_points,
                       at_all=True)
        apart = [network(batch.images, p) for p in (batch.points, batch.statistics_points)]
    torch.testing.assert_close(both, torch.cat(apart, dim=1))
