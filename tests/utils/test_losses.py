"""Cross-entropy: weighted, adjusted, focal, at points and on maps, against values by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.images import IGNORE
from datasets.points import VOID
from datasets.stored import Canvas
from utils.losses import CrossEntropy, balanced, class_counts, cross_entropy

CPU = torch.device("cpu")
N_CLASSES = 4
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 4.0])
LOSSES = {
    "plain": cross_entropy,
    "weighted": CrossEntropy(weights=WEIGHTS),
    "adjusted": CrossEntropy(offsets=torch.tensor([0.5, -1.0, 0.0, 2.0])),
    "focal": CrossEntropy(focal=2.0),
    "all": CrossEntropy(weights=WEIGHTS, offsets=-WEIGHTS, focal=0.5),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def points(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits `(3, 5, C)` and labels `(3, 5)`, two of them void."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 5, N_CLASSES, generator=generator)
    labels = torch.randint(N_CLASSES, (3, 5), generator=generator)
    labels[0, 0] = labels[2, 3] = VOID
    return logits.requires_grad_(), labels


def by_hand(logits: Tensor, labels: Tensor, *, weights: Tensor, offsets: Tensor,
            focal: float) -> float:
    """One label after another."""
    above = below = 0.0
    for row, label in zip(logits.detach().flatten(0, 1) + offsets, labels.flatten().tolist(),
                          strict=True):
        if label == VOID:
            continue
        p = (row[label].exp() / row.exp().sum()).item()
        above -= weights[label].item() * (1 - p) ** focal * np.log(p)
        below += weights[label].item()
    return above / below


@every_loss
def test_weighted_mean_by_hand(loss: CrossEntropy) -> None:
    logits, labels = points()
    expected = by_hand(logits, labels, focal=loss.focal,
                       weights=torch.ones(N_CLASSES) if loss.weights is None else loss.weights,
                       offsets=torch.zeros(N_CLASSES) if loss.offsets is None else loss.offsets)
    assert loss(logits, labels, ignore_index=VOID).item() == pytest.approx(expected, rel=1e-5)


def test_adjusting_is_adding_to_the_logits_and_focal_0_is_plain() -> None:
    logits, labels = points()
    plain = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=VOID)
    for loss, of in ((cross_entropy, logits), (CrossEntropy(focal=0.0), logits),
                     (LOSSES["adjusted"], logits - LOSSES["adjusted"].offsets)):
        torch.testing.assert_close(loss(of, labels, ignore_index=VOID), plain)


@every_loss
def test_pieces_over_the_whole_weight_have_the_gradient_of_the_batch(loss: CrossEntropy) -> None:
    logits, labels = points()
    whole = loss(logits, labels, ignore_index=VOID)
    expected, = torch.autograd.grad(whole, logits)
    pieces = [slice(0, 1), slice(1, 3)]
    total = sum(loss.weight_of(labels[piece], ignore_index=VOID) for piece in pieces)
    parts = [loss(logits[piece], labels[piece], ignore_index=VOID, total=total)
             for piece in pieces]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), logits)[0], expected)


@every_loss
def test_maps_are_as_points_at_all_their_pixels(loss: CrossEntropy) -> None:
    logits, labels = points()
    labels_map = labels.where(labels != VOID, IGNORE)[:, None]  # (3, 1, 5)
    of_map = loss(logits.transpose(1, 2)[:, :, None], labels_map, ignore_index=IGNORE)
    torch.testing.assert_close(of_map, loss(logits, labels, ignore_index=VOID))
    small = torch.randn(2, N_CLASSES, 3, 4)
    labels_map = torch.randint(N_CLASSES, (2, 6, 8))
    large = F.interpolate(small, size=(6, 8), mode="bilinear").flatten(2).transpose(1, 2)
    torch.testing.assert_close(loss(small, labels_map, ignore_index=IGNORE),
                               loss(large, labels_map.flatten(1), ignore_index=VOID))


@every_loss
def test_void_changes_nothing_and_without_labels_it_is_zero(loss: CrossEntropy) -> None:
    logits, labels = points()
    other = torch.where((labels == VOID)[..., None], 100 * torch.randn_like(logits), logits)
    assert loss(other, labels, ignore_index=VOID) == loss(logits, labels, ignore_index=VOID)
    nothing = loss(logits, torch.full_like(labels, VOID), ignore_index=VOID)
    assert nothing == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()


@pytest.mark.parametrize("focal", [0.5, 1.0, 2.0])
def test_focal_of_a_certain_network_has_a_gradient(focal: float) -> None:
    """Where 1 - p is zero in float32; void there as well."""
    logits = torch.tensor([[[200.0, 0, 0, 0], [200.0, 0, 0, 0], [0, 0, 0, 0]]], requires_grad=True)
    labels = torch.tensor([[0, VOID, 1]])
    loss = CrossEntropy(focal=focal)(logits, labels, ignore_index=VOID)
    loss.backward()
    assert logits.grad.isfinite().all() and logits.grad[0, 2].any()


# --- from labels --------------------------------------------------------------------------------


def test_classes_are_counted_without_void() -> None:
    labels = np.array([[0, 1, 1], [3, VOID, 1]])
    assert class_counts(labels, n_classes=N_CLASSES).tolist() == [1, 3, 0, 1]
    maps = np.random.default_rng(0).choice([0, 1, 3, IGNORE], size=(70, 4, 5)).astype(np.uint8)
    counted = class_counts(Canvas(lambda i: maps[i], shape=maps.shape, n_threads=1),
                           n_classes=N_CLASSES)
    assert counted.tolist() == [(maps == c).sum() for c in range(N_CLASSES)]
    assert class_counts(maps, n_classes=N_CLASSES).tolist() == counted.tolist()
    assert class_counts(np.zeros(0, np.int64), n_classes=2).tolist() == [0, 0]


def test_weights_are_powers_of_the_frequencies_of_mean_one() -> None:
    labels = np.repeat([0, 1, 3, VOID], [16, 4, 4, 7])[None]
    loss = balanced(labels, n_classes=N_CLASSES, device=CPU, class_balance=0.5)
    mean = (16 * 0.25 + 8 * 0.5) / 24
    assert loss.weights.tolist() == pytest.approx(
        [0.25 / mean, 0.5 / mean, 1 / mean, 0.5 / mean])  # class 2 as if it had one label
    known = torch.from_numpy(labels)
    assert loss.weight_of(known, ignore_index=VOID).item() == pytest.approx(24)
    assert loss.offsets is None and loss.focal == 0


def test_offsets_are_smoothed_frequencies() -> None:
    loss = balanced(np.array([[0, 0, 1]]), n_classes=3, device=CPU, logit_adjustment=2.0, focal=1.5)
    assert loss.offsets.tolist() == pytest.approx((2 * np.log([3 / 6, 2 / 6, 1 / 6])).tolist())
    assert loss.weights is None and loss.focal == 1.5


def test_without_flags_it_is_plain_and_without_labels_finite() -> None:
    assert balanced(np.zeros((2, 3), int), n_classes=3, device=CPU) == CrossEntropy()
    logits = torch.randn(1, 2, 3, requires_grad=True)
    none = np.full((1, 2), VOID)
    loss = balanced(none, n_classes=3, device=CPU, class_balance=0.5, logit_adjustment=1.0)
    value = loss(logits, torch.from_numpy(none), ignore_index=VOID)
    value.backward()
    assert value == 0 and not logits.grad.any()
