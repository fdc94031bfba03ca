"""What a dataset *is*: classes, colours, keys, ignore value, file layout, grid. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClassInfo:
    """One class: `colour` is RGB in 0..255, `key` the annotation tool's key for it."""

    name: str
    key: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Folders of one split, relative to the dataset's root; files correspond by name."""

    images: str
    labels: str


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """What can be answered.

    name: of the dataset.
    classes: in the order of their indices 0 .. C-1.
    ignore_index: value of *void* in the label files.
    """

    name: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.classes)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(ClassSet):
    """A dataset as facts.

    name, aliases: what `--dataset_name` accepts.
    grid: (height, width) in pixels on which pixels are asked and the network is trained,
        before `--downsample`.
    train, evaluation: the split that is labelled, and the one the model is scored on.
    """

    aliases: tuple[str, ...] = ()
    grid: tuple[int, int]
    train: Split
    evaluation: Split
    image_suffixes: tuple[str, ...] = (".png",)
