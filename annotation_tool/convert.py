"""Asked pixels and their answers from one format into another.

    python -m annotation_tool.convert --from logs --input annotation_tool/logs/camvid_ann \
        --to via --output ann.json --dir_imgs data/CamVid
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from annotation_tool.class_flags import add_class_flags, chosen_classes
from annotation_tool.formats import READERS, WRITERS
from annotation_tool.store import JOURNAL
from datasets.annotations import Annotation
from datasets.classes import VOID_NAME
from datasets.spec import ClassSet
from utils.errors import InputError, run_program
from utils.parsing import Parser

_FOLDERS = ("logs", "png")  # the formats that are many files
_MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # Pillow reads no larger image


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    p = Parser(prog="python -m annotation_tool.convert", description=__doc__.partition("\n")[0])
    p.add_argument("--from", dest="source", required=True, choices=tuple(READERS),
                   help="query: query.json, its folder, or query.npy; logs: an annotator's folder; "
                        "via: a VIA 3 project; csv: one table; coco: COCO-style JSON")
    p.add_argument("--to", dest="target", required=True, choices=tuple(WRITERS),
                   help="logs and png are folders; logs and png hold answered pixels only")
    p.add_argument("--input", required=True)
    p.add_argument("--output", required=True)
    add_class_flags(p)
    p.add_argument("--dir_imgs", help="the images' folder; needed to write via and coco, whose "
                                      "coordinates are the files' own, and to read a query.npy or "
                                      "a VIA project that was not written here")
    p.add_argument("--overwrite", action="store_true", help="replace what is at --output")
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    source, target = Path(args.input), Path(args.output)
    dir_imgs = None if args.dir_imgs is None else Path(args.dir_imgs)
    classes = chosen_classes(args.dataset_name, args.classes)
    if not os.path.exists(source):
        raise InputError(f"no file or folder {source}; give what to convert with --input")
    check_output(target, source=source, dir_imgs=dir_imgs, is_folder=args.target in _FOLDERS,
                 overwrite=args.overwrite)
    annotations = READERS[args.source](source, classes=classes, dir_imgs=dir_imgs)
    check_annotations(annotations, classes=classes, where=source)
    WRITERS[args.target](target, annotations, classes=classes, dir_imgs=dir_imgs)
    n_answered = sum(a.label is not None for a in annotations)
    n_open = len(annotations) - n_answered
    print(f"{target}: {n_answered} answered pixels" + (
        "" if not n_open else f"; {n_open} unanswered ones are left out"
        if args.target in _FOLDERS else f" and {n_open} unanswered ones"))
    return 0


def check_output(target: Path, *, source: Path, dir_imgs: Path | None, is_folder: bool,
                 overwrite: bool) -> None:
    """Raises InputError if writing to `target` could spoil images, an annotator's work or the
    input, or would replace something without `overwrite`."""
    place = target.resolve()
    if dir_imgs is not None:
        images = dir_imgs.resolve()
        if place.is_relative_to(images) or (is_folder and images.is_relative_to(place)):
            raise InputError(f"--output {target} and the images in {dir_imgs} would be in one "
                             "folder; choose another place")
    is_log = is_folder or place.suffix == ".txt"
    if place == source.resolve() or (is_log and place.is_relative_to(source.resolve())):
        raise InputError(f"--output {target} is in the input {source}; choose another place")
    try:
        kept = [folder for folder in (place, *place.parents) if (folder / JOURNAL).exists()]
        is_there, is_file = place.exists(), place.is_file()
        has_content = place.stat().st_size > 0 if is_file else is_there and any(place.iterdir())
        if is_folder and overwrite and not kept:
            kept = [path.parent for path in place.rglob(JOURNAL)]
    except OSError as error:
        raise InputError(f"--output {target}: {error.strerror}; choose another place") from error
    if kept:
        raise InputError(f"--output {target}: {kept[0]} is an annotator's folder, which only the "
                         "annotation tool writes to; choose another place")
    if is_there and is_file == is_folder:
        raise InputError(f"--output {target} is a {'file' if is_file else 'folder'}, expected a "
                         f"{'folder' if is_folder else 'file'}; choose another place")
    if has_content and not overwrite:
        raise InputError(f"--output {target} exists; choose another place, or replace it with "
                         "--overwrite")


def check_annotations(annotations: Sequence[Annotation], *, classes: ClassSet,
                      where: Path) -> None:
    """Raises InputError if there is none, for a label that is no class, a pixel that stands there
    twice, and a grid larger than any image."""
    if not annotations:
        raise InputError(f"{where}: there is no pixel in it")
    known, seen = {None, VOID_NAME, *classes.class_names}, set()
    for a in annotations:
        what = None
        if a.label not in known:
            what = (f"has the label {a.label[:100]!r}, which is no class of {classes.name}; give "
                    "--dataset_name or --classes")
        elif a.pixel in seen:
            what = "stands there twice; keep one of its answers"
        elif a.h * a.w > _MAX_PIXELS:
            what = f"is on a grid of {a.h}x{a.w}, larger than any image that can be read"
        if what:
            raise InputError(f"{where}: {a.image} ({a.y}, {a.x}) {what}")
        seen.add(a.pixel)


if __name__ == "__main__":
    run_program(main)
