"""Which pixels of an image are asked, given how much each would teach, and how many of each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

_FLOOR, _CAP = 0.25, 4.0  # of an image's even share, in a global allocation
_N_QUANTILES = 256


def select_pixels(scores: np.ndarray, *, n: int, top_n_percent: float, reverse_order: bool = False,
                  rng: np.random.Generator, name: str = "the image", min_distance: float = 0.0,
                  asked: np.ndarray | None = None) -> np.ndarray:
    """Choose `n` pixels of an image: `(n, 2)` int64 (y, x) in the order of asking.

    scores: `(H, W)`, higher = ask first; -inf is excluded and never chosen.
    top_n_percent: a fraction of the image, 0.05 for 5 %. The n are drawn uniformly from that many
        pixels of highest score; with `reverse_order` that many are drawn uniformly first, and the
        n of highest score among them are taken. 0 takes the n of highest score of all.
    min_distance: in pixels; what is nearer to a pixel chosen before, or to one of `asked`
        `(m, 2)`, is passed over, unless there are too few others.

    Each pixel gets a random key, and "uniformly drawn" means those of smallest key: a last-bit
    difference in one score then moves at most that pixel's choice. Fewer free pixels than `n` are
    all chosen, with a warning. Raises ValueError for scores that are NaN or +inf."""
    flat = scores.ravel()
    if np.isnan(flat).any() or np.isposinf(flat).any():
        raise ValueError("acquisition scores are not finite")
    free = np.flatnonzero(~np.isneginf(flat))
    if len(free) < n:
        warnings.warn(f"{name}: only {len(free)} pixels are left to ask for, not {n}", stacklevel=2)
    values, keys = flat[free], rng.random(len(flat))[free]
    pool = min(max(n, round(top_n_percent * len(flat))), len(free))
    n = min(n, len(free))
    n_ordered = None if min_distance else n  # passing over may go through all of them
    if top_n_percent == 0:
        order = _highest(values, n_ordered, keys)
    elif reverse_order:
        drawn = _smallest(keys, pool)
        order = drawn[_highest(values[drawn], n_ordered, keys[drawn])]
    else:
        top = np.arange(len(free)) if pool == len(free) else _top(values, pool, keys)
        order = top[_smallest(keys[top], n_ordered)]
    order = free[order]
    if min_distance:
        order = _apart(order, scores.shape, n=n, min_distance=min_distance, asked=asked)
    return np.stack(np.unravel_index(order, scores.shape), axis=1).astype(np.int64)


def _apart(order: np.ndarray, size: tuple[int, int], *, n: int, min_distance: float,
           asked: np.ndarray | None) -> np.ndarray:
    """Of flat indices `(m,)` into an image of `size` the first `n` that keep their distance from
    those before and from `asked`; then, if they are too few, the first of the rest."""
    near, reach = np.zeros(size, bool), math.ceil(min(min_distance, max(size)))
    is_near = near.ravel()  # the same memory

    def keep_off(y: int, x: int) -> None:
        y0, x0 = max(y - reach, 0), max(x - reach, 0)
        part = near[y0:y + reach + 1, x0:x + reach + 1]
        rows, columns = np.ogrid[y0:y0 + part.shape[0], x0:x0 + part.shape[1]]
        part |= (rows - y) ** 2 + (columns - x) ** 2 < min_distance ** 2

    for y, x in [] if asked is None else asked.tolist():
        keep_off(y, x)
    chosen: list[int] = []
    left = order[~is_near[order]]
    while len(left) and len(chosen) < n:
        chosen.append(int(left[0]))
        keep_off(*divmod(chosen[-1], size[1]))
        left = left[~is_near[left]]
    rest = order[~np.isin(order, chosen)][:n - len(chosen)] if len(chosen) < n else order[:0]
    return np.concatenate([np.array(chosen, np.int64), rest])


def _top(values: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Indices of the `n` highest values, in no order; among equals those of smaller key."""
    if n == 0:
        return np.zeros(0, np.int64)
    threshold = np.partition(values, len(values) - n)[len(values) - n]
    above, equal = np.flatnonzero(values > threshold), np.flatnonzero(values == threshold)
    return np.concatenate([above, equal[np.argsort(keys[equal])[:n - len(above)]]])


def _highest(values: np.ndarray, n: int | None, keys: np.ndarray) -> np.ndarray:
    """The same, highest first; the smaller key goes first among equals. None: all of them."""
    top = _top(values, len(values) if n is None else n, keys)
    return top[np.lexsort((keys[top], -values[top]))]


def _smallest(keys: np.ndarray, n: int | None) -> np.ndarray:
    """Indices of the `n` smallest keys, smallest first. None: all of them."""
    found = np.arange(len(keys))
    if n is not None and n < len(keys):
        found = np.argpartition(keys, n)[:n]
    return found[np.argsort(keys[found], kind="stable")]


# --- what is rare, and where it is worth more ---------------------------------------------------


def rarity(class_counts: np.ndarray, *, power: float) -> np.ndarray:
    """How much a pixel of each class counts, `(C,)` in (0, 1], by the number of labels `(C,)` so
    far: (1 + number) to the power of minus `power`, 1 for the rarest class."""
    labels = 1.0 + class_counts
    return (labels / labels.min()) ** -power  # not all zero, however large the power


def favouring_rare(scores: np.ndarray, predictions: np.ndarray,
                   weights: np.ndarray) -> np.ndarray:
    """Scores `(H, W)` -> the fraction of the image's pixels that score at most as high, times the
    weight `(C,)` of the class that is predicted there, `(H, W)`; of equals the mean. What is not
    finite stays."""
    ranks = rankdata(scores).reshape(scores.shape) / scores.size
    return np.where(np.isfinite(scores), ranks * weights[predictions], scores)


def quantiles(scores: np.ndarray) -> np.ndarray:
    """`(257,)` float64: how many scores are not -inf, and quantiles of those (of none: -inf)."""
    free = scores[~np.isneginf(scores)]
    if not len(free):
        return np.r_[0, np.full(_N_QUANTILES, -np.inf)]
    return np.r_[len(free), np.quantile(free, (np.arange(_N_QUANTILES) + 0.5) / _N_QUANTILES)]


def _even(found: np.ndarray, *, n: int, top_n_percent: float) -> np.ndarray:
    return np.full(len(found), n)


def _global(found: np.ndarray, *, n: int, top_n_percent: float) -> np.ndarray:
    """A quarter of `n` for each image; the rest in proportion to how many it has of the pixels of
    highest score of the whole data set (5 % of all where `top_n_percent` is 0), up to four times
    `n`."""
    n_free, values = found[:, 0], found[:, 1:]
    mass = np.repeat(n_free / _N_QUANTILES, _N_QUANTILES).reshape(values.shape)
    wanted = (top_n_percent or 0.05) * mass.sum()
    order = np.argsort(-values, axis=None, kind="stable")
    reached = np.cumsum(mass.ravel()[order])
    threshold = values.ravel()[order[min(np.searchsorted(reached, wanted), len(order) - 1)]]
    above, equal = mass * (values > threshold), mass * (values == threshold)
    part = (wanted - above.sum()) / max(equal.sum(), np.finfo(float).tiny)
    gain = (above + part * equal).sum(axis=1)
    at_most = np.minimum(n_free, round(_CAP * n))
    return _shared(gain, total=n * len(found), at_least=np.minimum(at_most, round(_FLOOR * n)),
                   at_most=at_most)


def _shared(gain: np.ndarray, *, total: int, at_least: np.ndarray,
            at_most: np.ndarray) -> np.ndarray:
    """`total` in whole numbers `(N,)` within the bounds, above the lower ones in proportion to
    `gain` where there is room; less than `total` if the upper bounds add up to less."""
    total = min(total, at_most.sum())
    given, gain = at_least.astype(float), gain + 1e-9 * max(gain.max(), 1.0)  # none: evenly
    while total - given.sum() > 1e-6:
        weights = gain * (given < at_most)
        given = np.minimum(given + (total - given.sum()) * weights / weights.sum(), at_most)
    whole = np.floor(given + 1e-6)
    remainder = np.where(whole < at_most, given - whole, -1)
    whole[np.argsort(-remainder, kind="stable")[:round(total - whole.sum())]] += 1
    return whole.astype(np.int64)


# Name -> `quantiles` of the images' scores (N, 257), n an image on average, the fraction that is
# drawn from -> how many to ask of each, (N,).
ALLOCATIONS: dict[str, Callable[..., np.ndarray]] = {"image": _even, "global": _global}


def most_of_an_image(allocate: str, *, n: int) -> int:
    """How many pixels of one image an allocation may ask for."""
    return n if allocate == "image" else round(_CAP * n)
