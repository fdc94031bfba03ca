"""Is one group of runs better than another? Differences at equal budgets, over the seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_rel

from utils.run_groups import Group

LEVEL = 0.05  # of significance
_EQUAL = 1e-9  # metrics.csv has six decimals: what differs less is the same number
EXPLAINED = (
    "difference ± its standard error over the seeds. Groups with at least two seeds in common are "
    f"compared seed by seed: p is that of the paired t-test, and from {LEVEL:g} on one cannot tell "
    "(no correction for many comparisons). Others are compared by their means, unpaired and "
    "without p: under two standard errors one cannot tell.")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The other minus the first. `n_pairs`: seeds in common, 0 where the means are compared; then
    `p` is None, and `error` too where a group has one seed."""

    difference: float
    error: float | None
    p: float | None
    n_pairs: int

    @property
    def verdict(self) -> str:
        if self.error is None:
            return "one seed"
        unsure = (abs(self.difference) < 2 * self.error if self.p is None else self.p >= LEVEL)
        if unsure or self.difference == 0:
            return "cannot tell"
        return "higher" if self.difference > 0 else "lower"


def compare(first: Mapping[int, float], other: Mapping[int, float]) -> Comparison:
    """Of values by seed, at least one each."""
    seeds = sorted(first.keys() & other.keys())
    if len(seeds) < 2:
        a, b = list(first.values()), list(other.values())
        error = math.sqrt(sum(statistics.variance(x) / len(x) for x in (a, b))) \
            if min(len(a), len(b)) > 1 else None
        return Comparison(difference=statistics.mean(b) - statistics.mean(a), error=error, p=None,
                          n_pairs=0)
    a, b = (np.array([values[seed] for seed in seeds]) for values in (first, other))
    mean = float(np.mean(b - a))
    if np.ptp(b - a) < _EQUAL:  # the test's t is 0 / 0, or infinite
        same = abs(mean) < _EQUAL
        return Comparison(difference=0.0 if same else mean, error=0.0, p=float(same),
                          n_pairs=len(seeds))
    return Comparison(difference=mean, p=float(ttest_rel(b, a).pvalue), n_pairs=len(seeds),
                      error=float(np.std(b - a, ddof=1)) / math.sqrt(len(seeds)))


def compare_groups(first: Group, other: Group, metric: str) -> dict[float, Comparison]:
    """By budget, for all that both have reached."""
    return {budget: compare(first.by_seed(metric, budget), other.by_seed(metric, budget))
            for budget in first.budgets if budget in other.budgets}


# --- as text and JSON ---------------------------------------------------------------------------

HEADER = ("difference", "p", "pairs", "verdict")


def cells(found: Comparison, *, decimals: int = 1) -> list[str]:
    """For the columns of HEADER; the difference in percent."""
    difference = f"{100 * found.difference:+.{decimals}f}"
    if found.error is None:
        return [difference, "", "", found.verdict]
    return [f"{difference} ± {100 * found.error:.{decimals}f}", _p(found.p),
            str(found.n_pairs or "unpaired"), found.verdict]


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def as_json(found: Comparison) -> dict:
    """Fractions; p with three significant digits."""
    return {"difference": round(found.difference, 5),
            "standard_error": None if found.error is None else round(found.error, 5),
            "p": None if found.p is None else float(f"{found.p:.3g}"),
            "pairs": found.n_pairs, "verdict": found.verdict}
