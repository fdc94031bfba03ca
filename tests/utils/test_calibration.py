"""Calibration of hand-made predictions whose error can be worked out on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from utils.calibration import Calibration, pooled, reliability_of

VOID = 255


def accumulated(confidence: list[float], right: list[bool], *, void: list[bool] | None = None,
                batches: int = 1) -> Calibration:
    """Two classes; class 0 is predicted with `confidence`, as a column of pixels."""
    first = torch.tensor(confidence)
    probabilities = torch.stack([first, 1 - first])[None, :, :, None]  # (1, 2, P, 1)
    labels = (~torch.tensor(right)).byte()[None, :, None]
    if void:
        labels[torch.tensor(void)[None, :, None]] = VOID
    found = Calibration(ignore_index=VOID, device=torch.device("cpu"))
    for part, of_part in zip(probabilities.chunk(batches, 2), labels.chunk(batches, 1),
                             strict=True):
        found.update(part, of_part)
    return found


def test_right_as_often_as_sure() -> None:
    found = accumulated([0.75] * 4, [True, True, True, False]).compute()
    assert found.error == pytest.approx(0, abs=1e-6)
    assert found.mean_accuracy == 0.75 and found.count.sum() == 4


def test_overconfident_by_hand() -> None:
    # 0.9 in (13/15, 14/15], half of them right; 0.6 in (8/15, 9/15], all right; void is not there.
    found = accumulated([0.9] * 4 + [0.6] * 2 + [0.99], [True, False] * 2 + [True] * 2 + [False],
                        void=[False] * 6 + [True]).compute()
    assert np.flatnonzero(found.count).tolist() == [8, 13]
    assert found.accuracy[[8, 13]].tolist() == [1, 0.5]
    assert found.confidence[[8, 13]] == pytest.approx([0.6, 0.9], abs=1e-6)
    assert found.error == pytest.approx((4 * 0.4 + 2 * 0.4) / 6, abs=1e-6)
    assert found.mean_confidence == pytest.approx(0.8, abs=1e-6)


def test_bins_are_open_below_and_certainty_is_in_the_last() -> None:
    found = accumulated([1.0, 0.5001], [True, True]).compute()
    assert found.count[14] == 1 and found.count[7] == 1


def test_batches_do_not_matter_and_parts_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = (0.5 + torch.rand(64, generator=generator) / 2).tolist()
    right = (torch.rand(64, generator=generator) < 0.7).tolist()
    whole, pieces = (accumulated(confidence, right, batches=n) for n in (1, 8))
    assert torch.equal(whole.sums, pieces.sums)
    halves = [accumulated(confidence[part], right[part]).sums.numpy()
              for part in (slice(32), slice(32, None))]
    assert reliability_of(sum(halves)).error == whole.compute().error


def test_nothing_is_not_a_number() -> None:
    assert math.isnan(accumulated([0.9], [True], void=[True]).compute().error)


def test_pooled_is_that_of_all_pixels() -> None:
    """Two bins are empty in one part or the other, most in both."""
    parts = [Calibration(ignore_index=255, device=torch.device("cpu")) for _ in range(2)]
    both = Calibration(ignore_index=255, device=torch.device("cpu"))
    for part, sure in zip(parts, ((0.9, 0.6, 0.6), (0.9, 0.3)), strict=True):
        confidence = torch.tensor(sure)
        probabilities = torch.stack([confidence, *[(1 - confidence) / 4] * 4])[None, :, None]
        labels = torch.tensor([0, 1, 0][:len(sure)])[None, None]
        part.update(probabilities, labels)
        both.update(probabilities, labels)
    found, expected = pooled([part.compute() for part in parts]), both.compute()
    assert found.count.tolist() == expected.count.tolist() and found.count.sum() == 5
    np.testing.assert_allclose(found.accuracy, expected.accuracy)
    np.testing.assert_allclose(found.confidence, expected.confidence)
    assert found.error == pytest.approx(expected.error)
