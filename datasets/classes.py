"""A set of classes from a YAML file, with keys and colours for those that give none.

    classes:
      - name: sky
        key: k
        colour: [128, 128, 128]
      - road            # its key and its colour are assigned
    ignore: 255         # the value of void in label files; 255 if left out
"""

from __future__ import annotations

import colorsys
import string
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.spec import ClassInfo, ClassSet
from utils.errors import InputError

VOID_NAME = "void"  # of the answer "none of these" in files; no class may be called so
KEYS = string.ascii_lowercase + string.digits
# What a dataset's file may have (datasets/config.py); the annotation tool reads the first two.
ENTRIES = frozenset({"classes", "ignore", "name", "root", "train", "val", "masks", "void_colours",
                     "image_endings", "label_ending", "recursive", "grid", "longer_side", "flags"})


def read_classes(path: str | Path, *, name: str) -> ClassSet:
    """For the annotation tool: the classes of such a file, or of a dataset's
    (datasets/config.py), each with a key. Raises InputError, naming file and class."""
    classes = parse_classes(path, read_yaml(path), name=name)
    check_keys(classes.classes, where=str(path))
    return classes


def read_yaml(path: str | Path) -> dict:
    """Raises InputError if it cannot be read, or is no mapping with a list of `classes`."""
    try:
        import yaml  # the annotation tool starts without it
    except ImportError as error:
        raise InputError(f"{path} needs PyYAML to be read: pip install PyYAML") from error
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise InputError(f"{path}: expected `classes:` with a list of names, or of name, key and "
                         "colour")
    unknown = content.keys() - ENTRIES
    if unknown:
        raise InputError(f"{path}: unknown entry {min(map(str, unknown))!r}; known are "
                         f"{', '.join(sorted(ENTRIES))}")
    return content


def parse_classes(path: str | Path, content: dict, *, name: str) -> ClassSet:
    """The classes of a file's content. Keys are "" where none is left. Raises InputError."""
    ignore = content.get("ignore", 255)
    if not is_byte(ignore):
        raise InputError(f"{path}: ignore {ignore!r} is no integer in 0..255")
    entries = [_entry(path, number, entry) for number, entry in enumerate(content["classes"], 1)]
    keys, colours = _assign_keys(entries), _assign_colours(entries)
    classes = tuple(ClassInfo(name=entry["name"], key=key, colour=colour)
                    for entry, key, colour in zip(entries, keys, colours, strict=True))
    _check_names(classes, where=str(path))
    if ignore < len(classes):
        raise InputError(f"{path}: ignore {ignore} is the index of class "
                         f"{classes[ignore].name!r}; choose another value")
    return ClassSet(name=name, classes=classes, ignore_index=ignore)


def _check_names(classes: Sequence[ClassInfo], *, where: str) -> None:
    if not 1 <= len(classes) <= 254:
        raise InputError(f"{where}: {len(classes)} classes; 1 to 254 are possible")
    for info in classes:
        if info.name == VOID_NAME:
            raise InputError(f"{where}: {VOID_NAME!r} is the answer \"none of these\" and no name "
                             "for a class")
    _check_different(classes, "name", lambda info: info.name, where=where)


def check_keys(classes: Sequence[ClassInfo], *, where: str) -> None:
    """Raises InputError, naming the classes, if two share a key, one has none, or a key is none of
    the letters and digits (all other keys are the annotation tool's own)."""
    for info in classes:
        if not info.key:
            raise InputError(f"{where}: no key is left for class {info.name!r}; there are "
                             f"{len(KEYS)} letters and digits for {len(classes)} classes")
        if len(info.key) != 1 or info.key.lower() not in KEYS:
            raise InputError(f"{where}: class {info.name!r} has the key {info.key!r}; keys are "
                             "single letters a-z and digits, the others are reserved")
    _check_different(classes, "key", lambda info: info.key.lower(), where=where)


def _check_different(classes: Sequence[ClassInfo], what: str, of: Callable[[ClassInfo], str], *,
                     where: str) -> None:
    first: dict[str, ClassInfo] = {}
    for info in classes:
        other = first.setdefault(of(info), info)
        if other is not info:
            raise InputError(f"{where}: {other.name!r} and {info.name!r} have the same {what} "
                             f"{of(info)!r}; give one of them another")


def is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _entry(path: str | Path, number: int, entry: object) -> dict:
    if not isinstance(entry, dict):
        entry = {"name": entry}
    unknown = entry.keys() - {"name", "key", "colour"}
    if unknown:
        raise InputError(f"{path}: class {number} has an unknown entry {min(map(str, unknown))!r}; "
                         "known are name, key and colour")
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InputError(f"{path}: class {number} has the name {name!r}; expected text on one line "
                         "(put quotes around numbers, yes and no)")
    key = entry.get("key")
    if key is not None and not (isinstance(key, str) or is_byte(key)):
        raise InputError(f"{path}: class {name!r} has the key {key!r}; put it in quotes")
    colour = entry.get("colour")
    if colour is not None and not (isinstance(colour, list) and len(colour) == 3
                                   and all(map(is_byte, colour))):
        raise InputError(f"{path}: class {name!r} has the colour {colour!r}; expected three "
                         "integers in 0..255: [red, green, blue]")
    return {"name": name.strip(), "key": None if key is None else str(key), "colour": colour}


def _assign_keys(entries: Sequence[dict]) -> list[str]:
    """A key for each class: its own; else the first free letter of its name, else any free one,
    else "" (a network can learn more classes than a keyboard has keys)."""
    taken = {entry["key"].lower() for entry in entries if entry["key"]}
    keys = []
    for entry in entries:
        key = entry["key"]
        if key is None:
            free = (c for c in entry["name"].lower() + KEYS if c in KEYS and c not in taken)
            key = next(free, "")
            taken.add(key)
        keys.append(key)
    return keys


def _assign_colours(entries: Sequence[dict]) -> list[tuple[int, int, int]]:
    """Their own, else hues spread evenly around the circle, every other one darker."""
    spread = [colorsys.hsv_to_rgb(i / len(entries), 0.75, (0.95, 0.65)[i % 2])
              for i in range(len(entries))]
    return [tuple(entry["colour"] or (round(255 * c) for c in colour))
            for entry, colour in zip(entries, spread, strict=True)]
