"""What a query looks like in numbers: `query_stats.json`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import pdist

from datasets.points import VOID, Points


def query_statistics(points: Points, *, n_images: int, class_names: Sequence[str],
                     entropies: np.ndarray | None, seconds: float) -> dict:
    """Of one round's answers.

    `label_distribution`: share of each class among the answers that are not void.
    `classes_per_image`: mean number of different classes answered in an image.
    `spatial_spread`: mean distance in grid pixels between two asked pixels of an image
        (scipy's `pdist`), over the images with at least two; None if there is none.
    `mean_entropy`: of the network's prediction at the asked pixels, in nats; None without one.
    """
    known = points.label != VOID
    counts = np.bincount(points.label[known], minlength=len(class_names))
    order = np.argsort(points.image, kind="stable")
    y, x, label = points.y[order], points.x[order], points.label[order]
    ends = np.cumsum(np.bincount(points.image, minlength=n_images))
    of_image = [slice(start, end) for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)]
    spreads = [pdist(np.stack([y[s], x[s]], axis=1)).mean() for s in of_image
               if s.stop - s.start > 1]
    return {
        "n_pixels": len(points),
        "n_void": points.n_void,
        "label_distribution": dict(zip(class_names, (counts / max(known.sum(), 1)).tolist(),
                                       strict=True)),
        "classes_per_image": float(np.mean([len(set(label[s].tolist()) - {VOID})
                                            for s in of_image])),
        "spatial_spread": float(np.mean(spreads)) if spreads else None,
        "mean_entropy": None if entropies is None or not len(entropies)
        else float(entropies.mean()),
        "seconds": seconds,
    }
