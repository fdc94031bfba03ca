"""A split in memory: every image decoded once, at the size of the grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.images import (
    check_same_size,
    list_samples,
    read_image,
    read_label,
    resize_image,
    resize_label,
)
from datasets.spec import DatasetSpec, Split
from utils.progress import track


@dataclass(frozen=True, kw_only=True)
class LoadedSplit:
    """N decoded images.

    names: paths relative to the dataset's root, sorted.
    images: `(N, H, W, 3)` uint8 on the canvas of the largest grid; smaller ones sit top-left.
    sizes: `(N, 2)` int64, height and width of each image's grid.
    labels: per image the label map at its original size `(H0, W0)`, uint8, IGNORE is void; None
        if the split was read without them.
    """

    names: list[str]
    images: np.ndarray
    sizes: np.ndarray
    labels: list[np.ndarray] | None

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> LoadedSplit:
        indices = list(indices)
        return LoadedSplit(names=[self.names[i] for i in indices], images=self.images[indices],
                           sizes=self.sizes[indices],
                           labels=self.labels and [self.labels[i] for i in indices])

    def grid_labels(self) -> np.ndarray:
        """All label maps on the grid, `(N, H, W)` uint8; the grids must have one size."""
        return np.stack([resize_label(label, tuple(size)) for label, size in
                         zip(self.labels, self.sizes.tolist(), strict=True)])

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Indices of all images, batch by batch; a batch has one grid size and one label size."""
        keys = self.sizes
        if self.labels is not None:
            keys = np.hstack([keys, [label.shape for label in self.labels]])
        _, group = np.unique(keys, axis=0, return_inverse=True)
        for members in (np.flatnonzero(group == g) for g in range(group.max() + 1)):
            yield from (members[i : i + batch_size] for i in range(0, len(members), batch_size))


def load_split(spec: DatasetSpec, split: Split, *, dir_dataset: str | Path, grid: tuple[int, int],
               n_workers: int, limit: int | None = None, with_labels: bool = True) -> LoadedSplit:
    """Read a split (the first `limit` images of it) in `n_workers` threads, with a progress bar.

    Raises InputError as datasets/images.py does: the first file that cannot be used is named."""
    samples = list_samples(dir_dataset, split, suffixes=spec.image_suffixes,
                           with_labels=with_labels)[:limit]
    images = np.empty((len(samples), *grid, 3), np.uint8)

    def read(index: int) -> np.ndarray | None:
        sample, label = samples[index], None
        image = read_image(sample.image)
        if sample.label is not None:
            label = read_label(sample.label, spec=spec)
            check_same_size(sample, image, label)
        images[index] = resize_image(image, grid)
        return label

    # Threads are enough: Pillow decodes outside the interpreter's lock.
    with ThreadPoolExecutor(max(n_workers, 1)) as pool:
        try:
            labels = list(track(pool.map(read, range(len(samples))), len(samples),
                                description=f"reading {split.images}", unit="image"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return LoadedSplit(names=[sample.name for sample in samples], images=images,
                       sizes=np.tile(np.array(grid, np.int64), (len(samples), 1)),
                       labels=labels if with_labels else None)
