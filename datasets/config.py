"""A dataset of one's own, described in a YAML file (`--p_dataset_config my.yaml`):

    name: mine                  # the file's name if left out
    root: .                     # the dataset's folder, from this file; --dir_dataset wins
    classes:                    # names, or name, key and colour (datasets/classes.py)
      - {name: crop, key: c, colour: [0, 160, 0]}
      - weed
    ignore: 255                 # the value of void in label maps
    masks: indices              # or `colours`: label maps are pictures in the classes' colours
    void_colours: [[0, 0, 0]]   # with `colours`
    train: {images: images/train, labels: labels/train}
    val: {images: images/val, labels: labels/val}
    image_endings: [.jpg, .png]
    label_ending: .png
    recursive: false            # look into folders inside as well
    grid: [360, 480]            # resize every image to this height and width;
    longer_side: 400            # or to this longer side; with neither, images are taken as they are
    flags: {batch_size: 4, n_epochs: 50}   # defaults for flags of train.py

Only `classes` and `train` are needed, and in `train` only `images` if a person answers. Without
`val` there is no mIoU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.classes import is_byte, parse_classes, read_yaml
from datasets.spec import ClassInfo, DatasetSpec, Grid, Split
from utils.errors import InputError
from utils.files import relative_name


@dataclass(frozen=True)
class OwnDataset:
    """`spec`, the folder that it lies in, and defaults for flags."""

    spec: DatasetSpec
    root: Path
    flags: dict[str, object]


def read_config(path: str | Path) -> OwnDataset:
    """Raises InputError, naming the file and the entry, for anything but the form above."""
    path = Path(path)
    content = read_yaml(path)
    name = _text(path, content, "name", default=path.stem)
    if not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise InputError(f"{path}: name {name!r}: letters, digits, '-', '_' and '.' make a name")
    classes = parse_classes(path, content, name=name)
    endings = {"image_endings": _endings(path, content), "label_ending": _text(
        path, content, "label_ending", default=".png"), "recursive": _flag(path, content)}
    splits = {split: _split(path, split, content[split], endings) for split in ("train", "val")
              if content.get(split) is not None}
    if "train" not in splits:
        raise InputError(f"{path}: train is missing; expected `train: {{images: FOLDER, labels: "
                         "FOLDER}`")
    spec = DatasetSpec(name=name, classes=classes.classes, ignore_index=classes.ignore_index,
                       void_colours=_void_colours(path, content, classes.classes), splits=splits,
                       evaluation="val",
                       grid=_grid(path, content))
    return OwnDataset(spec, path.resolve().parent / _text(path, content, "root", default="."),
                      _flags(path, content))


def _flags(path: Path, content: dict) -> dict[str, object]:
    flags = content.get("flags") or {}
    if not isinstance(flags, dict) or not all(isinstance(flag, str) for flag in flags):
        raise InputError(f"{path}: flags {flags!r}: expected a mapping from flags of train.py to "
                         "values")
    for flag in ("dataset_name", "p_dataset_config", "dir_dataset", "dir_root"):
        if flag in flags:
            raise InputError(f"{path}: flags: {flag} says which dataset it is; this file does "
                             "(`name`, `root`)")
    return flags


def _text(path: Path, content: dict, key: str, *, default: str) -> str:
    value = content.get(key, default)
    if not isinstance(value, str) or not value:
        raise InputError(f"{path}: {key} {value!r}: expected text (put quotes around it)")
    return value


def _flag(path: Path, content: dict) -> bool:
    value = content.get("recursive", False)
    if not isinstance(value, bool):
        raise InputError(f"{path}: recursive {value!r}: expected true or false")
    return value


def _endings(path: Path, content: dict) -> tuple[str, ...]:
    value = content.get("image_endings", [".png", ".jpg", ".jpeg"])
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(
            isinstance(ending, str) and ending for ending in value):
        raise InputError(f"{path}: image_endings {value!r}: expected a list such as [.jpg, .png]")
    return tuple(value)


def _split(path: Path, name: str, entry: object, endings: dict) -> Split:
    if not isinstance(entry, dict) or "images" not in entry or entry.keys() - {"images", "labels"}:
        raise InputError(f"{path}: {name} {entry!r}: expected {{images: FOLDER, labels: FOLDER}}")
    folders = {}
    for key in ("images", "labels"):
        folder = entry.get(key)
        if folder is not None or key == "images":
            folder = relative_name(folder, where=f"{path}, {name}, {key}")
        folders[key] = folder
    if name == "val" and folders["labels"] is None:
        raise InputError(f"{path}: val needs labels to score against; add them or leave val out")
    return Split(**folders, **endings)


def _void_colours(path: Path, content: dict, classes: Sequence[ClassInfo]
                  ) -> tuple[tuple[int, int, int], ...] | None:
    masks = content.get("masks", "indices")
    if masks not in ("indices", "colours"):
        raise InputError(f"{path}: masks {masks!r}: expected indices or colours")
    if masks == "indices":
        if "void_colours" in content:
            raise InputError(f"{path}: void_colours has no meaning without `masks: colours`")
        return None
    colours = content.get("void_colours", [[0, 0, 0]])
    if not isinstance(colours, list) or not all(
            isinstance(colour, list) and len(colour) == 3 and all(map(is_byte, colour))
            for colour in colours):
        raise InputError(f"{path}: void_colours {colours!r}: expected a list of [red, green, blue]")
    void = tuple(tuple(colour) for colour in colours)
    meaning = dict.fromkeys(void, "void")
    for info in classes:
        other = meaning.setdefault(info.colour, info.name)
        if other != info.name:
            raise InputError(f"{path}: {other!r} and {info.name!r} have the same colour "
                             f"{list(info.colour)}; label maps could not tell them apart")
    return void


def _grid(path: Path, content: dict) -> Grid:
    size, longer_side = content.get("grid"), content.get("longer_side")
    if size is not None and longer_side is not None:
        raise InputError(f"{path}: grid and longer_side: give one of them")
    if size is not None and not (isinstance(size, list) and len(size) == 2
                                 and all(type(n) is int and n > 0 for n in size)):
        raise InputError(f"{path}: grid {size!r}: expected [height, width] in pixels")
    if longer_side is not None and not (type(longer_side) is int and longer_side > 0):
        raise InputError(f"{path}: longer_side {longer_side!r}: expected a number of pixels")
    return Grid(size=size and tuple(size), longer_side=longer_side)
