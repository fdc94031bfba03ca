"""COCO-style JSON: every answered pixel is a one-keypoint annotation in the image file's pixels.

What COCO has no place for stands in keys of our own, which other readers pass over: the `asked`
pixel of an annotation (its grid and times), and `unanswered` beside `annotations`. `id` counts
through both in the order of asking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from annotation_tool.formats.file_pixels import file_pixel, file_sizes, named
from datasets.annotations import Annotation
from datasets.classes import VOID_NAME
from datasets.spec import ClassSet
from utils.errors import InputError
from utils.files import read_json, relative_name, write_json

_PIXEL, _TIMES = ("y", "x", "h", "w"), ("elapsed_time", "total_time")


def write_coco(path: Path, annotations: Sequence[Annotation], *, classes: ClassSet,
               dir_imgs: Path | None) -> None:
    """Categories count from 1 in the order of the classes; the last one is void."""
    names = list(dict.fromkeys(a.image for a in annotations))
    _, sizes = file_sizes(names, dir_imgs, where=path)
    image_id = {name: number for number, name in enumerate(names, 1)}
    category_id = {name: number for number, name in enumerate((*classes.class_names, VOID_NAME), 1)}
    answered, unanswered = [], []
    for number, a in enumerate(annotations, 1):
        y, x = file_pixel(a, sizes[a.image])
        entry = {"id": number, "image_id": image_id[a.image], "keypoints": [x, y, 2],
                 "asked": {key: getattr(a, key) for key in (*_PIXEL, *_TIMES)}}
        if a.label is None:
            unanswered.append(entry)
        else:
            answered.append(entry | {
                "category_id": category_id[a.label], "num_keypoints": 1, "bbox": [x, y, 1, 1],
                "segmentation": [[x, y, x + 1, y, x + 1, y + 1, x, y + 1]], "area": 1,
                "iscrowd": 0})
    write_json(path, {
        "info": {"description": f"single pixels of {classes.name}", "version": "1.0"},
        "licenses": [],
        "images": [{"id": image_id[name], "file_name": name, "width": w, "height": h}
                   for name, (h, w) in sizes.items()],
        "categories": [{"id": number, "name": name, "supercategory": "pixel",
                        "keypoints": ["pixel"], "skeleton": []}
                       for name, number in category_id.items()],
        "annotations": answered,
        "unanswered": unanswered,
    }, indent=None)


def read_coco(path: Path, *, classes: ClassSet, dir_imgs: Path | None) -> list[Annotation]:
    """The pixels of a file that `write_coco` has written, by their `id`. Raises InputError for
    other files, and if a keypoint is not where its grid pixel is."""
    content = read_json(path)
    found, moved = {}, []
    try:
        images = {entry["id"]: (relative_name(entry["file_name"], where=path),
                                (int(entry["height"]), int(entry["width"])))
                  for entry in content["images"]}
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        entries = [(entry, names[entry["category_id"]]) for entry in content["annotations"]]
        entries += [(entry, None) for entry in content.get("unanswered", ())]
        for entry, label in entries:
            annotation, size = _annotation(entry, label, images=images, where=path)
            if int(entry["id"]) in found:
                raise ValueError(f"two annotations have the id {entry['id']}")
            found[int(entry["id"])] = annotation
            y, x = file_pixel(annotation, size)
            if entry["keypoints"][:2] != [x, y]:
                moved.append(f"{annotation.image} ({annotation.y}, {annotation.x})")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError,
            RecursionError) as error:
        raise InputError(f"{path} is no COCO file that convert has written "
                         f"({type(error).__name__}: {str(error)[:100]})") from error
    if moved:
        raise InputError(f"{path}: {len(moved)} keypoints are not at their pixel: {named(moved)}; "
                         "pixels are chosen by the query, convert from the original again")
    return [found[number] for number in sorted(found)]


def _annotation(entry: dict, label: str | None, *, images: dict[object, tuple],
                where: Path) -> tuple[Annotation, tuple[int, int]]:
    """An entry's pixel, and the (height, width) of its image's file. Raises what bad content does.
    """
    name, size = images[entry["image_id"]]
    if "asked" not in entry:
        raise InputError(f"{where}: annotation {entry.get('id')} of {name} does not say which "
                         "pixel of the grid was asked; only files that convert has written can be "
                         "read")
    asked = {key: entry["asked"][key] for key in (*_PIXEL, *_TIMES)}
    if not (all(type(asked[key]) is int for key in _PIXEL)
            and all(0 <= asked[key] < math.inf for key in _TIMES)
            and isinstance(label, str | None)):
        raise ValueError(f"annotation {entry['id']} asks for {asked}")
    annotation = Annotation(image=name, label=label, **asked | {
        key: float(asked[key]) for key in _TIMES})
    if not (0 <= annotation.y < annotation.h and 0 <= annotation.x < annotation.w):
        raise InputError(f"{where}: {name} ({annotation.y}, {annotation.x}) is outside its grid of "
                         f"{annotation.h}x{annotation.w}")
    return annotation, size
