"""VIA 3 projects (VGG Image Annotator, data format 3.1.1): points with the classes to select from.

A point of ours has its whole story in its id, which VIA keeps whatever happens to the point:

    image2of7_pixel3of10_y12x34_grid360x480_file12x34

is the 3rd of the 10 pixels of the 2nd of 7 images: (12, 34) on a grid of 360x480, under which lies
the pixel (12, 34) of the file. What has been moved, deleted or added in VIA is therefore noticed.
The names of deleted points stand in `pixelpick.asked`, which VIA keeps as well.

A project without such ids is somebody else's: its points are asked on the image files' own pixels.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from annotation_tool.formats.file_pixels import by_image, file_pixel, file_sizes, named
from annotation_tool.formats.via_project import (
    BY_ADDRESS,
    FORMAT,
    IMAGE,
    POINT,
    SELECT,
    Entry,
    PixelId,
    Project,
    load_project,
)
from annotation_tool.keys import display_name
from datasets.annotations import Annotation
from datasets.classes import VOID_NAME
from datasets.queries import Query
from datasets.spec import ClassSet
from utils.errors import InputError
from utils.files import read_json, relative_name, write_json

_ATTRIBUTE = "1"  # the id of the one with the classes

# --- writing ------------------------------------------------------------------------------------


def write_via(path: Path, annotations: Sequence[Annotation], *, classes: ClassSet,
              dir_imgs: Path | None) -> None:
    """A project of one file that VIA 3 opens; it shows the images where `dir_imgs` is now (in VIA,
    the location prefix of a file changes that). VIA has no place for times."""
    pixels = by_image(annotations)
    names = list(pixels)
    root, sizes = file_sizes(names, dir_imgs, where=path)
    options = _options(classes)
    key_of = {name: key for key, name in options.items()}
    metadata = {}
    for number, name in enumerate(names, 1):
        for index, a in enumerate(pixels[name], 1):
            y, x = file_pixel(a, sizes[name])
            own = PixelId(number, len(names), index, len(pixels[name]), a.y, a.x, a.h, a.w, y, x)
            metadata[str(own)] = {"vid": str(number), "flg": 0, "z": [], "xy": [POINT, x, y],
                                  "av": {_ATTRIBUTE: key_of[a.label]} if a.label else {}}
    vids = [str(number) for number in range(1, len(names) + 1)]
    prefixes = {"1": "", "2": "", str(BY_ADDRESS): root.resolve().as_uri() + "/", "4": ""}
    write_json(path, {
        "project": {
            "pid": "__VIA_PROJECT_ID__", "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__", "pname": path.stem,
            "data_format_version": FORMAT, "creator": "PixelPick annotation tool",
            "created": int(time.time() * 1000), "vid_list": vids},
        "config": {
            "file": {"loc_prefix": prefixes},
            "ui": {"file_content_align": "center", "file_metadata_editor_visible": True,
                   "spatial_metadata_editor_visible": True,
                   "spatial_region_label_attribute_id": _ATTRIBUTE}},
        "attribute": {_ATTRIBUTE: {
            "aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": SELECT,
            "desc": f"class of the pixel ({classes.name})", "default_option_id": "",
            # VIA shows them as HTML.
            "options": {key: html.escape(display_name(name), quote=False)
                        for key, name in options.items()}}},
        # VIA takes `src` for an address and decodes `fname`.
        "file": {vid: {"fid": vid, "fname": name.replace("%", "%25"), "type": IMAGE,
                       "loc": BY_ADDRESS, "src": _address(name)}
                 for vid, name in zip(vids, names, strict=True)},
        "metadata": metadata,
        "view": {vid: {"fid_list": [vid]} for vid in vids},
        "pixelpick": {"asked": [[name, [[a.y, a.x] for a in pixels[name]]] for name in names]},
    }, indent=None)


def _options(classes: ClassSet) -> dict[str, str]:
    """Class names by the keys of the options; that of void is longer than any class's key."""
    return {info.key: info.name for info in classes.classes} | {VOID_NAME: VOID_NAME}


def _address(name: str) -> str:
    for character in "%#?":
        name = name.replace(character, f"%{ord(character):02X}")
    return name


# --- reading ------------------------------------------------------------------------------------


def is_via(path: Path) -> bool:
    """Whether a JSON file is a VIA project. Raises InputError if it is no JSON."""
    try:
        with open(path, "rb") as file:
            if re.match(rb'\s*\{\s*"format"', file.read(100)):  # a query.json, maybe a large one
                return False
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    content = read_json(path)
    return isinstance(content, dict) and (content.keys() >= {"project", "metadata"}
                                          or "_via_img_metadata" in content)


def query_of_via(path: Path, root: Path) -> Query:
    """What a project's points ask, answered ones included. `root` is the folder of the images,
    whose sizes are needed for projects that are not ours. Raises InputError as `read_via` does,
    and for an image with points on two grids."""
    found = by_image([a for _, a in _pixels(load_project(Path(path)), root)])
    sizes = {}
    for name, asked in found.items():
        sizes[name] = asked[0].h, asked[0].w
        if any((a.h, a.w) != sizes[name] for a in asked):
            raise InputError(f"{path}: {name} is asked on two grids; a query has one for each "
                             "image")
    return Query(names=list(found), sizes=np.array(list(sizes.values()), np.int64).reshape(-1, 2),
                 pixels=[np.array([(a.y, a.x) for a in asked], np.int64)
                         for asked in found.values()],
                 strategy="via", seed=0)


def read_via(path: Path, *, classes: ClassSet, dir_imgs: Path | None) -> list[Annotation]:
    """The points of a project, image by image.

    Raises InputError, with number and names, if points of ours were moved out of their pixel,
    deleted or added, if options were renamed or are no class, for shapes that are no points, and
    for files whose path could lead out of a folder of images."""
    project = load_project(path)
    pixels = _pixels(project, dir_imgs)
    labels_of = _own_labels if any(entry.own for entry, _ in pixels) else _labels_by_name
    labels = labels_of(project, [entry for entry, _ in pixels], classes)
    return [replace(a, label=label) for (_, a), label in zip(pixels, labels, strict=True)]


def _pixels(project: Project, root: Path | None) -> list[tuple[Entry, Annotation]]:
    """Points with the pixels they ask, labels not yet looked at."""
    if not project.entries:
        raise InputError(f"{project.path}: there is no point in it")
    if not any(entry.own for entry in project.entries):
        return _foreign_pixels(project, root)
    _check_ids(project)
    own = sorted((entry for entry in project.entries if entry.own), key=lambda entry: entry.own)
    moved = [str(e) for e in own if e.pixel != (e.own.file_y, e.own.file_x)]
    added = [str(entry) for entry in project.entries if not entry.own]
    deleted, n_deleted = _deleted(project, own)
    problems = [f"{n} {what} in VIA ({named(items, total=n)})" for what, items, n in
                (("moved", moved, len(moved)), ("deleted", deleted, n_deleted),
                 ("added", added, len(added))) if n]
    if problems:
        raise InputError(f"{project.path}: points were changed: {', '.join(problems)}; which "
                         "pixels are asked is up to the query: put them back, or convert the "
                         "original again")
    return [(entry, Annotation(image=entry.image, y=entry.own.y, x=entry.own.x, h=entry.own.h,
                               w=entry.own.w)) for entry in own]


def _check_ids(project: Project) -> None:
    """Raises InputError if ids of ours contradict each other, themselves, or their image."""
    n_images, n_of, seen = set(), {}, set()
    for entry in project.entries:
        own = entry.own
        if own is None:
            continue
        n_images.add(own.n_images)
        if (len(n_images) > 1 or n_of.setdefault(own.image, own.n) != own.n
                or (own.image, own.index) in seen or entry.vid != str(own.image)
                or not (1 <= own.image <= own.n_images and 1 <= own.index <= own.n
                        and own.y < own.h and own.x < own.w)):
            raise InputError(f"{project.path}: the point {entry.id} of {entry.image} does not "
                             "belong here; ids and images have to stay as convert wrote them, one "
                             "project in one file")
        seen.add((own.image, own.index))


def _deleted(project: Project, own: Sequence[Entry]) -> tuple[list[str], int]:
    """The first few points that are gone, by name, and how many there are; an image of which all
    points are gone counts once. The numbers in ids may be huge: no loop runs up to them."""
    present: dict[int, set[int]] = {}
    n_of = {}
    for entry in own:
        present.setdefault(entry.own.image, set()).add(entry.own.index)
        n_of[entry.own.image] = entry.own.n

    def gone() -> Iterator[str]:
        for image, indices in present.items():
            for index in _missing(indices, n_of[image]):
                yield _asked(project, image, index)
        for image in _missing(present, own[0].own.n_images):
            yield f"all of {_asked(project, image, None)}"

    n = sum(n_of[image] - len(indices) for image, indices in present.items())
    return list(islice(gone(), 3)), n + own[0].own.n_images - len(present)


def _missing(present: set[int] | dict[int, set[int]], n: int) -> Iterator[int]:
    return (number for number in range(1, n + 1) if number not in present)


def _asked(project: Project, image: int, index: int | None) -> str:
    """What a deleted point or image was, as far as the project still tells."""
    name = project.names.get(str(image), f"image {image}")
    try:
        told, pixels = project.content["pixelpick"]["asked"][image - 1]
        name = relative_name(told, where=project.path)
        return name if index is None else "{} ({:d}, {:d})".format(name, *pixels[index - 1])
    except (KeyError, IndexError, TypeError, ValueError, InputError):
        return name if index is None else f"{name}, its point {index}"


def _foreign_pixels(project: Project, root: Path | None) -> list[tuple[Entry, Annotation]]:
    path = project.path
    others = [str(entry) for entry in project.entries if entry.pixel is None]
    if others:
        raise InputError(f"{path}: {len(others)} shapes are no points: {named(others)}; delete "
                         "them, or make them points")
    names = list(dict.fromkeys(entry.image for entry in project.entries))
    _, sizes = file_sizes(names, root, where=path)
    found = []
    for entry in project.entries:
        (y, x), (h, w) = entry.pixel, sizes[entry.image]
        if not (0 <= y < h and 0 <= x < w):
            raise InputError(f"{path}: the point {entry} is outside its image of {h}x{w} pixels")
        found.append((entry, Annotation(image=entry.image, y=y, x=x, h=h, w=w)))
    order = {name: number for number, name in enumerate(names)}
    return sorted(found, key=lambda pixel: order[pixel[1].image])


# --- labels -------------------------------------------------------------------------------------


def _own_labels(project: Project, entries: Sequence[Entry],
                classes: ClassSet) -> list[str | None]:
    """By the keys of the options, whatever their order."""
    expected, shown = _options(classes), _texts(project, _ATTRIBUTE)
    renamed = [f"{key!r} is {shown[key]!r}, not {display_name(name)!r}"
               for key, name in expected.items()
               if shown is not None and shown.get(key, display_name(name)) != display_name(name)]
    if shown is None or renamed:
        what = f"options were renamed: {named(renamed)}" if renamed else "its options are gone"
        raise InputError(f"{project.path}: {what}; put them back as they were, or give the classes "
                         "that it was made for (--dataset_name, --classes)")
    return _labels(project, entries, [entry.values.get(_ATTRIBUTE, "") for entry in entries],
                   known=expected, hint="keys of options have to stay as convert wrote them")


def _labels_by_name(project: Project, entries: Sequence[Entry],
                    classes: ClassSet) -> list[str | None]:
    """By the texts of the options, which are names of classes; or by the text that was typed."""
    used = list(dict.fromkeys(aid for entry in entries
                              for aid, value in entry.values.items() if value))
    if len(used) > 1:
        raise InputError(f"{project.path}: its points have values of {len(used)} attributes; keep "
                         "the one with the classes")
    names = {name: name for name in (*classes.class_names, VOID_NAME)}
    names[display_name(VOID_NAME)] = VOID_NAME
    if not used:
        return [None] * len(entries)
    texts = _texts(project, used[0]) or {}
    values = [entry.values.get(used[0], "") for entry in entries]
    return _labels(project, entries, [texts.get(value, value) for value in values], known=names,
                   hint=f"known are {', '.join(classes.class_names)} and {VOID_NAME}")


def _texts(project: Project, attribute: str) -> dict[str, str] | None:
    """The texts of an attribute's options by their keys; None if it has none."""
    try:
        options = project.content["attribute"][attribute]["options"]
        return {key: html.unescape(text) for key, text in options.items()
                if isinstance(text, str)} or None
    except (KeyError, TypeError, AttributeError):
        return None


def _labels(project: Project, entries: Sequence[Entry], values: Sequence[str], *,
            known: dict[str, str], hint: str) -> list[str | None]:
    """What is known for each point's value; None for an empty one."""
    wrong = [f"{entry}: {value[:50]!r}" for entry, value in zip(entries, values, strict=True)
             if value and value not in known]
    if wrong:
        raise InputError(f"{project.path}: {len(wrong)} points have an option that is no class: "
                         f"{named(wrong)}; {hint}")
    return [known[value] if value else None for value in values]
