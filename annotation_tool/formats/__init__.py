"""Formats of asked pixels and their answers, by name.

What all of them are read into and written from is a list of `datasets.annotations.Annotation`, each
pixel once: label None is asked but not answered, "void" is none of the classes.

A reader is called `read(path, classes=..., dir_imgs=...)`, a writer `write(path, annotations,
classes=..., dir_imgs=...)`; `dir_imgs` is None where no folder of images is given. Both raise
InputError for what they cannot take. A writer replaces what is at `path`: whether it may is the
caller's business, but a file in a folder that would be mistaken for one of its own is refused."""

from __future__ import annotations

from collections.abc import Callable

from annotation_tool.formats.coco import read_coco, write_coco
from annotation_tool.formats.png import write_png
from annotation_tool.formats.table import (
    read_csv_table,
    read_log_folder,
    read_query_pixels,
    write_csv_table,
    write_log_folder,
)
from annotation_tool.formats.via import read_via, write_via
from datasets.annotations import Annotation

READERS: dict[str, Callable[..., list[Annotation]]] = {
    "query": read_query_pixels,
    "logs": read_log_folder,
    "via": read_via,
    "csv": read_csv_table,
    "coco": read_coco,
}
WRITERS: dict[str, Callable[..., None]] = {
    "logs": write_log_folder,
    "via": write_via,
    "csv": write_csv_table,
    "coco": write_coco,
    "png": write_png,
}
