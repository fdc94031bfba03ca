"""The program's own formats: a query, an annotator's logs, all of it in one table (CSV)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from annotation_tool.asked import load_asked
from annotation_tool.formats.file_pixels import check_no_others
from datasets.annotations import COLUMNS, Annotation, log_path, log_text, read_logs, read_table
from datasets.queries import load_query
from datasets.spec import ClassSet
from utils.errors import InputError
from utils.files import csv_text, write_text


def read_query_pixels(path: Path, *, classes: ClassSet, dir_imgs: Path | None) -> list[Annotation]:
    """What a query asks, in its order, nothing answered. A bare query.npy needs the images that
    its masks belong to; of a query.json they are only looked for if `dir_imgs` is given."""
    if dir_imgs is not None:
        asked = [(image.name, image.size, image.pixels) for image in load_asked(path, dir_imgs)]
    else:
        path = path / "query.json" if path.is_dir() else path
        if path.suffix == ".npy":
            raise InputError(f"{path}: its masks belong to the images of a folder in sorted order; "
                             "give that folder with --dir_imgs")
        query = load_query(path)
        asked = zip(query.names, query.sizes.tolist(), query.pixels, strict=True)
    return [Annotation(image=name, y=y, x=x, h=h, w=w)
            for name, (h, w), pixels in asked for y, x in pixels.tolist()]


def read_log_folder(path: Path, *, classes: ClassSet, dir_imgs: Path | None) -> list[Annotation]:
    """The answers of an annotator's folder, log by log."""
    return read_logs(path)


def write_log_folder(path: Path, annotations: Sequence[Annotation], *, classes: ClassSet,
                     dir_imgs: Path | None) -> None:
    """One log per image (`a.png` and `a.jpg` share theirs), answered pixels only."""
    logs: dict[Path, list[Annotation]] = {}
    for a in annotations:
        if a.label is not None:
            logs.setdefault(log_path(path, a.image), []).append(a)
    if not logs:
        raise InputError(f"{path}: logs have answered pixels only, and none of the "
                         f"{len(annotations)} is answered; choose another format with --to")
    check_no_others(path, ".txt", mine=logs)
    for log, answers in logs.items():
        write_text(log, log_text(answers))


def read_csv_table(path: Path, *, classes: ClassSet, dir_imgs: Path | None) -> list[Annotation]:
    """The rows of one table with datasets.annotations.COLUMNS; an empty label is no answer."""
    return read_table(path)


def write_csv_table(path: Path, annotations: Sequence[Annotation], *, classes: ClassSet,
                    dir_imgs: Path | None) -> None:
    """All pixels in one table, in their order; seconds have three decimals, as in logs."""
    write_text(path, csv_text(COLUMNS, (
        (a.y, a.x, a.label or "", f"{a.elapsed_time:.3f}", f"{a.total_time:.3f}", a.h, a.w,
         int(a.slow), a.image) for a in annotations)))
