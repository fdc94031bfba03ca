"""A split in memory: every image decoded once, at the size of the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.images import (
    check_same_size,
    list_samples,
    read_image,
    read_label,
    read_parallel,
    resize_image,
    resize_label,
)
from datasets.spec import DatasetSpec, Split


@dataclass(frozen=True, kw_only=True)
class LoadedSplit:
    """N decoded images.

    names: paths relative to the dataset's root, sorted.
    images: `(N, H, W, 3)` uint8 on the canvas of the largest grid; smaller ones sit top-left.
    sizes: `(N, 2)` int64, height and width of each image's grid.
    labels: per image the label map at its original size `(H0, W0)`, uint8, IGNORE is void.
    """

    names: list[str]
    images: np.ndarray
    sizes: np.ndarray
    labels: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> LoadedSplit:
        indices = list(indices)
        return LoadedSplit(names=[self.names[i] for i in indices], images=self.images[indices],
                           sizes=self.sizes[indices], labels=[self.labels[i] for i in indices])

    def grid_labels(self) -> np.ndarray:
        """All label maps on the grid, `(N, H, W)` uint8, IGNORE outside."""
        return np.stack([resize_label(label, tuple(size)) for label, size in
                         zip(self.labels, self.sizes.tolist(), strict=True)])

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Indices of all images, batch by batch; a batch has one grid size and one label size."""
        keys = np.array([(*size, *label.shape) for size, label in
                         zip(self.sizes.tolist(), self.labels, strict=True)])
        _, group = np.unique(keys, axis=0, return_inverse=True)
        for members in (np.flatnonzero(group == g) for g in range(group.max() + 1)):
            yield from (members[i : i + batch_size] for i in range(0, len(members), batch_size))


def load_split(spec: DatasetSpec, split: Split, *, dir_dataset: str | Path, grid: tuple[int, int],
               n_workers: int, limit: int | None = None,
               progress: Callable[[Iterable, int], Iterable]) -> LoadedSplit:
    """Read a split (the first `limit` images of it) with its label maps.

    Raises InputError as datasets/images.py does: the first file that cannot be used is named."""
    samples = list_samples(dir_dataset, split, suffixes=spec.image_suffixes)[:limit]
    images = np.empty((len(samples), *grid, 3), np.uint8)

    def read(index: int) -> np.ndarray:
        image, label = (read_image(samples[index].image), read_label(samples[index].label,
                                                                     spec=spec))
        check_same_size(samples[index], image, label)
        images[index] = resize_image(image, grid)
        return label

    labels = read_parallel(read, range(len(samples)), n_workers=n_workers, progress=progress)
    return LoadedSplit(names=[sample.name for sample in samples], images=images,
                       sizes=np.tile(np.array(grid, np.int64), (len(samples), 1)), labels=labels)
