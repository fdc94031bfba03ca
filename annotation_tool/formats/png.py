"""Indexed PNG: per image a label map of the grid's size in the colours of the classes.

A pixel has its class index, or 255 (grey) where it has no class: not asked, not answered, void."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from annotation_tool.formats.file_pixels import check_no_others
from datasets.annotations import Annotation
from datasets.classes import VOID_NAME
from datasets.images import IGNORE
from datasets.spec import ClassSet
from utils.errors import InputError
from utils.files import relative_name, write_atomically


def write_png(path: Path, annotations: Sequence[Annotation], *, classes: ClassSet,
              dir_imgs: Path | None) -> None:
    """`<path>/<image path without suffix>.png` for each image, those without an answer included.

    Raises InputError for images that would share a file, for an image that is asked on two grids,
    and where a picture that is no label map would be replaced."""
    images: dict[Path, list[Annotation]] = {}
    for a in annotations:
        name = PurePosixPath(relative_name(a.image, where=path)).with_suffix(".png")
        images.setdefault(path / name, []).append(a)
    check_no_others(path, ".png", mine=images)
    for file, pixels in images.items():
        _check_one_map(file, pixels)
    index_of = {name: index for index, name in enumerate(classes.class_names)}
    for file, pixels in images.items():
        label_map = np.full((pixels[0].h, pixels[0].w), IGNORE, np.uint8)
        for a in pixels:
            if a.label not in (None, VOID_NAME):
                label_map[a.y, a.x] = index_of[a.label]
        image = Image.fromarray(label_map)
        image.putpalette(palette(classes))
        write_atomically(file, lambda out, image=image: image.save(out, format="PNG"))


def palette(classes: ClassSet) -> bytes:
    """256 RGB colours by index: those of the classes, and grey that is none of theirs."""
    colours = [info.colour for info in classes.classes]
    grey = next((v for v in range(224, 0, -1) if (v, v, v) not in colours), 224)
    return bytes(np.array(colours + [(grey,) * 3] * (256 - len(colours)), np.uint8))


def _check_one_map(file: Path, pixels: Sequence[Annotation]) -> None:
    first = pixels[0]
    for a in pixels:
        if a.image != first.image:
            raise InputError(f"{first.image} and {a.image} would both be {file}; convert them one "
                             "at a time")
        if (a.h, a.w) != (first.h, first.w):
            raise InputError(f"{a.image} is asked on two grids, {first.h}x{first.w} and "
                             f"{a.h}x{a.w}; a PNG has one: convert them one at a time")
    if os.path.exists(file) and not _is_indexed(file):
        raise InputError(f"{file} is no indexed PNG; it is not replaced, choose another --output")


def _is_indexed(file: Path) -> bool:
    try:
        with Image.open(file) as image:
            return image.mode == "P"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
