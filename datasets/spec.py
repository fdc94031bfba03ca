"""What a dataset *is*: classes, colours, keys, ignore value, file layout, grid. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class ClassInfo:
    """One class: `colour` is RGB in 0..255, `key` the annotation tool's key for it."""

    name: str
    key: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """What can be answered, and how label files say it.

    name: of the dataset.
    classes: in the order of their indices 0 .. C-1.
    ignore_index: value of *void* in the label files.
    label_ids: the class index (None is void) of every value that may occur in the label files,
        where these are not the indices themselves.
    void_colours: label files are RGB images in the classes' colours, and in these for void;
        None: they hold indices.
    """

    name: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    label_ids: Mapping[int, int | None] | None = None
    void_colours: tuple[tuple[int, int, int], ...] | None = None

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.classes)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where the files of a split are, relative to the dataset's root.

    An image and its label map correspond by their path inside `images` and `labels` without the
    ending: `images/a/b_left.png` and `labels/a/b_ids.png` by `a/b` for the endings `_left.png` and
    `_ids.png`. `recursive`: folders inside are searched too. `listed`: a text file with one such
    path a line; only these belong to the split. `labels` is None where there are none.
    """

    images: str
    labels: str | None
    image_endings: tuple[str, ...] = (".png",)
    label_ending: str = ".png"
    recursive: bool = False
    listed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """On which pixels images are asked and trained: each resized to `size` (height, width), or so
    that its longer side is `longer_side`; by neither, as it is. Then divided by `downsample`."""

    size: tuple[int, int] | None = None
    longer_side: int | None = None
    downsample: int = 1

    def of(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the grid of an image of this size."""
        height, width = self.size or image_size
        if self.size is None and self.longer_side is not None:
            factor = self.longer_side / max(image_size)
            height, width = round(height * factor), round(width * factor)
        return max(height // self.downsample, 1), max(width // self.downsample, 1)

    def fitted(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """As `of`, but an image of another aspect ratio than a fixed `size` keeps its own, and gets
        as many pixels as `size` has."""
        if self.size is None:
            return self.of(image_size)
        factor = math.sqrt(math.prod(self.size) / math.prod(image_size))
        size = tuple(max(round(length * factor), 1) for length in image_size)
        return replace(self, size=size).of(image_size)

    def divided(self, factor: int) -> Grid:
        return replace(self, downsample=self.downsample * factor)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(ClassSet):
    """A dataset as facts.

    aliases: what `--dataset_name` accepts besides the name.
    splits: by name; `train` is the one that is labelled.
    evaluation: the name of the split that models are scored on.
    grid: before `--downsample`.
    reduced_copy: the files are so large that a copy at `--downsample` is written beside them once
        (datasets/reduced.py).
    """

    aliases: tuple[str, ...] = ()
    splits: Mapping[str, Split] = field(default_factory=dict)
    evaluation: str = "val"
    grid: Grid = Grid()
    reduced_copy: bool = False

    def to_dict(self) -> dict:
        """As plain values; see `spec_from_dict`."""
        return asdict(self)


def spec_from_dict(content: dict) -> DatasetSpec:
    """A spec from what `DatasetSpec.to_dict` gave, also by way of JSON. Raises TypeError, KeyError
    or ValueError for other content."""
    label_ids = content["label_ids"]
    return DatasetSpec(**_with_tuples(content) | {
        "classes": tuple(ClassInfo(**_with_tuples(info)) for info in content["classes"]),
        "splits": {name: Split(**_with_tuples(split)) for name, split in content["splits"].items()},
        "grid": Grid(**_with_tuples(content["grid"])),
        "label_ids": label_ids and {int(id_): index for id_, index in label_ids.items()}})


def _with_tuples(values: dict) -> dict:
    """JSON knows lists only."""
    def of(value: object) -> object:
        return tuple(map(of, value)) if isinstance(value, list | tuple) else value

    return {name: of(value) for name, value in values.items()}
