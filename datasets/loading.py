"""The two splits of a training: prepared, then loaded."""

from __future__ import annotations

import sys
from pathlib import Path

from datasets.caches import Cache
from datasets.images import has_files
from datasets.prepare import prepare
from datasets.spec import DatasetSpec
from datasets.split import LoadedSplit, load_split
from utils.distributed import main_first


def load_both(spec: DatasetSpec, *, dir_dataset: str | Path, downsample: int, n_workers: int,
              cache: Cache, with_labels: bool, eval_full: bool, n_images: int | None, seed: int,
              limit: int | None) -> tuple[LoadedSplit, LoadedSplit | None]:
    """The images to train on, of which `n_images` are drawn by the seed, and the validation set if
    there is one; of each at most the first `limit`. Of several processes the main one prepares.

    with_labels: whether the former need label maps; if not, a validation set is optional.
    eval_full: evaluate on the data set's own label maps, not on those of its reduced copy.
    Raises InputError."""
    preparing = dict(dir_dataset=dir_dataset, downsample=downsample, n_workers=n_workers)
    with main_first():
        folder = prepare(spec, splits={"train": with_labels}, **preparing)
    val = spec.splits.get(spec.evaluation)
    has_val = val is not None and (with_labels or has_files(dir_dataset, val)
                                   or has_files(folder, val))
    if has_val and not eval_full:
        with main_first():
            prepare(spec, splits={spec.evaluation: True}, **preparing)
    reading = dict(grid=spec.grid.divided(downsample), n_workers=n_workers, limit=limit,
                   cache=cache)
    train = load_split(spec, "train", dir_dataset=folder, with_labels=with_labels,
                       n_images=n_images, seed=seed, **reading)
    if not has_val:
        print(f"no validation set with label maps in {dir_dataset}: no mIoU will be reported",
              file=sys.stderr)
        return train, None
    return train, load_split(spec, spec.evaluation, **reading,
                             dir_dataset=dir_dataset if eval_full else folder)
