"""Differences of groups, against formulas written out and against made-up experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from utils.comparison import LEVEL, as_json, cells, compare


def seeds(*values: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, first))


@pytest.mark.parametrize(("a", "b", "difference", "error", "verdict"), [
    # Variances 0.0002 and 0.0002 of two each: error sqrt(0.0001 + 0.0001) = 0.01414.
    ((0.40, 0.42), (0.43, 0.45), 0.03, 0.0141421, "higher"),
    ((0.43, 0.45), (0.40, 0.42), -0.03, 0.0141421, "lower"),
    ((0.40, 0.42), (0.42, 0.44), 0.02, 0.0141421, "cannot tell"),
    ((0.4, 0.4), (0.4, 0.4), 0.0, 0.0, "cannot tell"),
    ((0.4, 0.4), (0.41, 0.41), 0.01, 0.0, "higher"),
    ((0.4,), (0.41, 0.41), 0.01, None, "one seed"),
])
def test_without_pairs(a, b, difference: float, error: float | None, verdict: str) -> None:
    """One seed in common is no pair to compare by either."""
    for first in (len(a), len(a) - 1):
        found = compare(seeds(*a), seeds(*b, first=first))
        assert found.difference == pytest.approx(difference)
        assert found.error == (None if error is None else pytest.approx(error, abs=1e-6))
        assert (found.verdict, found.p, found.n_pairs) == (verdict, None, 0)


def test_two_degrees_of_freedom() -> None:
    """Differences 0.01, 0.02, 0.03: error 0.01 / sqrt(3), t = sqrt(12); with two degrees of freedom
    p = 1 - t / sqrt(2 + t^2) = 0.0742. The fourth seed is in one group only."""
    found = compare(seeds(0.3, 0.5, 0.4, 0.9), {2: 0.43, 0: 0.31, 1: 0.52})
    assert found.difference == pytest.approx(0.02)
    assert found.error == pytest.approx(0.01 / math.sqrt(3))
    assert found.p == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))
    assert (found.n_pairs, found.verdict) == (3, "cannot tell")
    assert cells(found) == ["+2.0 ± 0.6", "0.074", "3", "cannot tell"]


def test_what_all_seeds_share_is_not_spread() -> None:
    """Seeds differ by ten times what the groups do: pairs tell, means could not."""
    a, b = seeds(0.2, 0.3, 0.4, 0.5), seeds(0.211, 0.309, 0.41, 0.512)
    found, back = compare(a, b), compare(b, a)
    assert found.p < 0.001 and found.verdict == "higher" and cells(found)[1] == "< 0.001"
    assert back.verdict == "lower" and back.difference == -found.difference
    assert compare(a, {seed + 9: value for seed, value in b.items()}).verdict == "cannot tell"


@pytest.mark.parametrize(("b", "difference", "p", "verdict"), [
    ((0.1, 0.2, 0.3), 0.0, 1.0, "cannot tell"),
    ((0.2, 0.3, 0.4), 0.1, 0.0, "higher"),  # not the same floating-point number for each seed
])
@pytest.mark.filterwarnings("error")
def test_the_same_difference_for_each_seed(b, difference: float, p: float, verdict: str) -> None:
    found = compare(seeds(0.1, 0.2, 0.3), seeds(*b))
    assert found.difference == pytest.approx(difference) and found.error == 0
    assert (found.p, found.verdict) == (p, verdict)
    assert as_json(found) == {"difference": difference, "standard_error": 0.0, "p": p, "pairs": 3,
                              "verdict": verdict}


def test_chance_is_found_out_as_often_as_promised() -> None:
    """Of 1000 pairs of groups that do not differ, about 5 % seem to: 50 ± 7."""
    values = np.random.default_rng(0).normal(size=(1000, 2, 5))
    found = [compare(seeds(*a), seeds(*b)) for a, b in values.tolist()]
    assert 30 < sum(one.p < LEVEL for one in found) < 70
