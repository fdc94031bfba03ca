"""What has to be done with a dataset's files before they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datasets.reduced import reduced_copy
from datasets.spec import DatasetSpec
from datasets.voc_files import prepare_augmented, prepare_voc

# By the list that a split's files are in: what makes sure that it is there.
_GETTING: dict[str, Callable[[str | Path], None]] = {
    "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt": prepare_voc,
    "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": prepare_voc,
    "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt": prepare_augmented,
}


def prepare(spec: DatasetSpec, *, dir_dataset: str | Path, downsample: int, n_workers: int,
            splits: dict[str, bool]) -> Path:
    """The folder to read the splits (name -> whether with label maps) from: the dataset's own, or
    its reduced copy, which is written if it is not there. Downloads what can be. Raises InputError.
    """
    for split in splits:
        get = _GETTING.get(spec.splits[split].listed)
        if get is not None:
            get(dir_dataset)
    if not spec.reduced_copy or downsample == 1:
        return Path(dir_dataset)
    return reduced_copy(spec, dir_dataset, factor=downsample, splits=splits, n_workers=n_workers)
