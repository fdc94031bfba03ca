"""A split in memory: every image decoded once, at the size of the grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.images import (
    IGNORE,
    Sample,
    check_same_size,
    image_size,
    list_samples,
    read_image,
    read_label,
    resize_image,
    resize_label,
)
from datasets.spec import DatasetSpec, Grid
from utils.errors import InputError
from utils.progress import track
from utils.seeds import random_generator


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

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the largest grid."""
        return self.images.shape[1:3]

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> LoadedSplit:
        indices = list(indices)
        return LoadedSplit(names=[self.names[i] for i in indices], images=self.images[indices],
                           sizes=self.sizes[indices],
                           labels=self.labels and [self.labels[i] for i in indices])

    def grid_labels(self) -> np.ndarray:
        """All label maps on the grid, `(N, H, W)` uint8; smaller ones sit top-left, IGNORE is
        beside them."""
        labels = np.full(self.images.shape[:3], IGNORE, np.uint8)
        for canvas, label, (height, width) in zip(labels, self.labels, self.sizes.tolist(),
                                                  strict=True):
            canvas[:height, :width] = resize_label(label, (height, width))
        return labels

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Indices of all images, batch by batch; a batch has one grid size and one label size."""
        keys = self.sizes
        if self.labels is not None:
            keys = np.hstack([keys, [label.shape for label in self.labels]])
        _, group = np.unique(keys, axis=0, return_inverse=True)
        for members in (np.flatnonzero(group == g) for g in range(group.max() + 1)):
            yield from (members[i : i + batch_size] for i in range(0, len(members), batch_size))


def load_split(spec: DatasetSpec, split: str, *, dir_dataset: str | Path, grid: Grid,
               n_workers: int, limit: int | None = None, n_images: int | None = None,
               seed: int = 0, with_labels: bool = True) -> LoadedSplit:
    """Read a split in `n_workers` threads, with a progress bar: all of it, its first `limit`
    images, or `n_images` of it, drawn by `seed` (fewer are a part of more).

    Raises InputError as datasets/images.py does: the first file that cannot be used is named."""
    samples = list_samples(dir_dataset, spec.splits[split], with_labels=with_labels)[:limit]
    if n_images is not None:
        if n_images > len(samples):
            raise InputError(f"--n_images {n_images}: {dir_dataset} has {len(samples)} images to "
                             "train on")
        drawn = random_generator(seed, "images").permutation(len(samples))[:n_images]
        samples = [samples[i] for i in sorted(drawn)]
    # Threads are enough: Pillow decodes outside the interpreter's lock.
    with ThreadPoolExecutor(max(n_workers, 1)) as pool:
        try:
            sizes = np.array(_grid_sizes(samples, grid, pool), np.int64)
            images = np.zeros((len(samples), *sizes.max(axis=0), 3), np.uint8)

            def read(index: int) -> np.ndarray | None:
                sample, label, (height, width) = samples[index], None, sizes[index].tolist()
                image = read_image(sample.image)
                if sample.label is not None:
                    label = read_label(sample.label, spec=spec)
                    check_same_size(sample, image, label)
                images[index, :height, :width] = resize_image(image, (height, width))
                return label

            labels = list(track(pool.map(read, range(len(samples))), len(samples),
                                description=f"reading {split}", unit="image"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return LoadedSplit(names=[sample.name for sample in samples], images=images, sizes=sizes,
                       labels=labels if with_labels else None)


def _grid_sizes(samples: Sequence[Sample], grid: Grid, pool: ThreadPoolExecutor
                ) -> list[tuple[int, int]]:
    if grid.size is not None:
        return [grid.of(grid.size)] * len(samples)
    return [grid.of(size) for size in pool.map(lambda sample: image_size(sample.image), samples)]
