"""VIA 3 projects for tests: one of ours, one of somebody else's, and ways to change them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from annotation_tool.formats.via import read_via, write_via
from datasets.annotations import Annotation
from datasets.classes import VOID_NAME
from datasets.spec import ClassInfo, ClassSet

CLASSES = ClassSet(name="mine", ignore_index=255, classes=(
    ClassInfo(name="sky", key="k", colour=(0, 0, 255)),
    ClassInfo(name="<b>road</b> & co, wet", key="1", colour=(128, 64, 128)),
    ClassInfo(name="größe", key="0", colour=(1, 2, 3)),
))
ODD = 'in/größe, "50%" #1?.png'
FILES = {"a b.png": (40, 60), ODD: (17, 33), "c.jpg": (9, 9)}  # (height, width)
GRIDS = {"a b.png": (20, 30), ODD: (34, 50), "c.jpg": (9, 9)}
LABELS = ("sky", None, VOID_NAME, "<b>road</b> & co, wet", "größe")

Edit = Callable[[dict], object]


def write_images(root: Path) -> Path:
    for name, (h, w) in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((h, w, 3), np.uint8)).save(root / name)
    return root


def asked() -> list[Annotation]:
    """Five pixels of each image, corners included, each with another label."""
    found = []
    for name, (h, w) in GRIDS.items():
        pixels = [(h - 1, w - 1), (0, 0), (h // 2, 1), (3, w - 2), (4, 4)]
        found += [Annotation(image=name, y=y, x=x, h=h, w=w, label=label)
                  for (y, x), label in zip(pixels, LABELS, strict=True)]
    return found


def write_project(path: Path, dir_imgs: Path) -> Path:
    write_via(path, asked(), classes=CLASSES, dir_imgs=dir_imgs)
    return path


def foreign(path: Path, edit: Edit = lambda _: None) -> Path:
    """What VIA itself makes: ids at random, real-valued points, files of both kinds."""
    entries = {"1_aB": ("1", [1, 12.7, 3.2], {"1": "0"}), "2_cD": ("2", [1, 32.999, 16.5], {}),
               "1_eF": ("1", [1, 0, 39.9], {"1": "2"}), "1_gH": ("1", [], {"2": "whole image"})}
    content = {
        "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1",
                    "vid_list": ["1", "2"]},
        "config": {}, "attribute": {
            "1": {"aname": "thing", "type": 3, "options": {"0": "größe", "2": "void"}},
            "2": {"aname": "note", "type": 1, "options": {}}},
        "file": {"1": {"fid": "1", "fname": "a b.png", "type": 2, "loc": 1, "src": ""},
                 "2": {"fid": "2", "fname": "x", "type": 2, "loc": 3,
                       "src": "in/gr%C3%B6%C3%9Fe, %2250%25%22 %231%3F.png"}},
        "metadata": {key: {"vid": vid, "flg": 0, "z": [], "xy": xy, "av": av}
                     for key, (vid, xy, av) in entries.items()},
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}}}
    edit(content)
    path.write_text(json.dumps(content))
    return path


def read(path: Path, *, dir_imgs: Path | None = None,
         classes: ClassSet = CLASSES) -> list[Annotation]:
    return read_via(path, classes=classes, dir_imgs=dir_imgs)


def edited(path: Path, edit: Edit) -> Path:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def by_hand(content: dict, vid: str, xy: list) -> None:
    content["metadata"][f"{vid}_{len(content['metadata'])}XyZ"] = {
        "vid": vid, "flg": 0, "z": [], "xy": xy, "av": {}}
