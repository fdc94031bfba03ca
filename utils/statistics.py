"""What a query looks like in numbers: `query_stats.json`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import pdist

from datasets.points import VOID, Points


def query_statistics(pixels: Sequence[np.ndarray], *, entropies: np.ndarray | None,
                     seconds: float) -> dict:
    """Of one round's query: per image the asked (y, x), `(n, 2)`.

    `spatial_spread`: mean distance in grid pixels between two asked pixels of an image
        (scipy's `pdist`), over the images with at least two; None if there is none.
    `mean_entropy`: of the network's prediction at the asked pixels, in nats; None without one.
    """
    spreads = [pdist(asked).mean() for asked in pixels if len(asked) > 1]
    return {
        "n_pixels": sum(len(asked) for asked in pixels),
        "spatial_spread": float(np.mean(spreads)) if spreads else None,
        "mean_entropy": None if entropies is None or not len(entropies)
        else float(entropies.mean()),
        "seconds": seconds,
    }


def answer_statistics(points: Points, *, n_images: int, class_names: Sequence[str]) -> dict:
    """Of one round's answers.

    `label_distribution`: share of each class among the answers that are not void.
    `classes_per_image`: mean number of different classes answered in an image.
    """
    known = points.label != VOID
    counts = np.bincount(points.label[known], minlength=len(class_names))
    pairs = np.unique(np.stack([points.image[known], points.label[known]]), axis=1)
    return {
        "n_answered": len(points),
        "n_void": points.n_void,
        "label_distribution": dict(zip(class_names, (counts / max(known.sum(), 1)).tolist(),
                                       strict=True)),
        "classes_per_image": pairs.shape[1] / n_images,
    }
