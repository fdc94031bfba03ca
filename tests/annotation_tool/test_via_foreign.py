"""VIA 3 projects of others, and those that nobody should have to trust."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from annotation_tool.asked import load_asked
from annotation_tool.convert import check_annotations
from annotation_tool.formats import READERS, WRITERS
from datasets.annotations import Annotation
from datasets.classes import VOID_NAME
from tests.annotation_tool.via_projects import (
    CLASSES,
    LABELS,
    ODD,
    Edit,
    asked,
    by_hand,
    edited,
    foreign,
    read,
    write_project,
)
from utils.errors import InputError


def test_a_foreign_project(tmp_path: Path, dir_imgs: Path) -> None:
    path = foreign(tmp_path / "x.json")
    expected = [Annotation(image="a b.png", y=3, x=12, h=40, w=60, label="größe"),
                Annotation(image="a b.png", y=39, x=0, h=40, w=60, label=VOID_NAME),
                Annotation(image=ODD, y=16, x=32, h=17, w=33)]
    assert read(path, dir_imgs=dir_imgs) == expected
    assert [(image.name, image.size, image.pixels.tolist())
            for image in load_asked(path, dir_imgs)] == [
        ("a b.png", (40, 60), [[3, 12], [39, 0]]), (ODD, (17, 33), [[16, 32]])]
    # A typed text instead of an option, the display name of void, a text in HTML.
    for value, label in (("sky", "sky"), ("void (none of these)", VOID_NAME), ("", None)):
        path = foreign(path, lambda c, v=value: c["metadata"]["1_aB"].update(av={"2": v}) or
                       c["metadata"]["1_eF"].update(av={}))
        assert read(path, dir_imgs=dir_imgs)[0].label == label
    foreign(path, lambda c: c["attribute"]["1"]["options"].update(
        {"0": "&lt;b&gt;road&lt;/b&gt; &amp; co, wet"}))
    assert read(path, dir_imgs=dir_imgs)[0].label == LABELS[3]


@pytest.mark.parametrize(("edit", "message"), [
    (lambda c: by_hand(c, "2", [2, 1, 1, 5, 5]), "1 shapes are no points: in/.*png rectangle;"),
    (lambda c: [by_hand(c, "1", [n, 1, 1, 5, 5, 6, 6]) for n in (3, 7, 99, 5)],
     "4 shapes are no points: a b.png circle, a b.png polygon, a b.png other shape, ...;"),
    (lambda c: by_hand(c, "1", [1, float("nan"), 2]), "1 shapes are no points"),
    (lambda c: by_hand(c, "1", [1, 2, "3"]), "1 shapes are no points"),
    (lambda c: by_hand(c, "1", [1, 60, 2]), r"the point a b.png \(2, 60\) is outside .* 40x60"),
    (lambda c: by_hand(c, "1", [1, -.1, 2]), r"a b.png \(2, -1\) is outside"),
    (lambda c: by_hand(c, "1", [1, 10**400, 2]), r"is outside"),
    (lambda c: by_hand(c, "1", [1, float("inf"), 2]), "1 shapes are no points"),
    (lambda c: c["metadata"].clear(), "there is no point in it"),
    (lambda c: c["file"]["2"].update(src="gone.png"), "1 of its 2 images are not in"),
    (lambda c: c["file"]["2"].update(src="x" * 300), "cannot look for|are not in"),
    (lambda c: c["file"]["1"].update(fname="x" * 300), "cannot look for|are not in"),
])
def test_foreign_points_that_cannot_be_asked(tmp_path: Path, dir_imgs: Path, edit: Edit,
                                             message: str) -> None:
    path = foreign(tmp_path / "x.json", edit)
    with pytest.raises(InputError, match=message):
        read(path, dir_imgs=dir_imgs)
    with pytest.raises(InputError, match=message):
        load_asked(path, dir_imgs)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda c: c["attribute"]["1"]["options"].update({"0": "car"}),
     r"1 points have an option that is no class: a b.png \(3, 12\): 'car'; known are sky, .*void"),
    (lambda c: c["attribute"]["1"]["options"].update({"0": ["sky"]}), r"a b.png \(3, 12\): '0'"),
    (lambda c: c["attribute"].update({"1": []}), r"2 points .*: '0', a b.png \(39, 0\): '2'"),
    (lambda c: c["metadata"]["1_eF"]["av"].update({"2": "hm"}), "values of 2 attributes"),
])
def test_foreign_labels_that_are_no_class(tmp_path: Path, dir_imgs: Path, edit: Edit,
                                          message: str) -> None:
    path = foreign(tmp_path / "x.json", edit)
    with pytest.raises(InputError, match=message):
        read(path, dir_imgs=dir_imgs)
    assert len(load_asked(path, dir_imgs)) == 2


def test_a_foreign_project_needs_its_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give their folder with --dir_imgs"):
        read(foreign(tmp_path / "x.json"))


# --- hostile and broken projects ----------------------------------------------------------------


@pytest.mark.parametrize("source", [
    "../a b.png", "in/../../a b.png", "/etc/passwd", "file:///etc/passwd", "http://x/a.png",
    "https://x/a.png", "..\\a b.png", "C:\\a.png", "C:/a.png", "//host/a.png", "%2e%2e/a b.png",
    "in/%2E%2E%2f%2e%2e/a", "in//a.png", "./a b.png", "..", "a\nb.png", "a%00.png", "a%5Cb.png",
    "\u202ea.png", "data:image/png;base64,AAAA",
])
@pytest.mark.parametrize("place", ["src", "src of a picked file", "fname"])
def test_paths_never_lead_out(project: Path, tmp_path: Path, dir_imgs: Path, source: str,
                              place: str) -> None:
    (tmp_path / "a b.png").write_bytes((dir_imgs / "a b.png").read_bytes())
    change = {"src": {"src": source}, "src of a picked file": {"loc": 1, "src": source},
              "fname": {"loc": 1, "src": "", "fname": source}}[place]
    for path in (edited(project, lambda c: c["file"]["1"].update(change)),
                 foreign(tmp_path / "x.json", lambda c: c["file"]["1"].update(change))):
        for call in (lambda p=path: read(p, dir_imgs=dir_imgs),
                     lambda p=path: load_asked(p, dir_imgs)):
            with pytest.raises(InputError, match="is no path inside a folder of images") as error:
                call()
            assert repr(unquote(source)) in str(error.value)


def test_an_inlined_image_is_its_file(tmp_path: Path, dir_imgs: Path) -> None:
    path = foreign(tmp_path / "x.json", lambda c: c["file"]["1"].update(
        loc=4, src="data:image/png;base64,AAAA"))
    assert read(path, dir_imgs=dir_imgs)[0].image == "a b.png"


@pytest.mark.parametrize(("edit", "message"), [
    (lambda c: c["file"]["1"].update(type=4), "'a b.png' is no image"),
    (lambda c: c["view"]["1"]["fid_list"].append("2"), "view '1' does not show exactly one file"),
    (lambda c: c["view"]["1"].update(fid_list=[]), "view '1' does not show exactly one file"),
    (lambda c: c["view"].pop("1"), "no VIA 3 project .KeyError: '1'"),
    (lambda c: c["file"].pop("1"), "no VIA 3 project .KeyError: '1'"),
    (lambda c: c["file"]["1"].update(src=3), "no VIA 3 project"),
    (lambda c: c["file"]["1"].update(src=None, fname=None), "no VIA 3 project"),
    (lambda c: c["project"].update(data_format_version="2.0"), "data format '2.0', expected 3.1.1"),
    (lambda c: c.update(project=3), "no VIA 3 project"),
    (lambda c: c.update(metadata=[]), "no VIA 3 project"),
    (lambda c: c.update(metadata={"a": 1}), "no VIA 3 project"),
    (lambda c: c.update(view=[1]), "no VIA 3 project"),
    (lambda c: c.update(file="x"), "no VIA 3 project"),
    (lambda c: by_hand(c, "1", {"x": 1}), "no VIA 3 project"),
    (lambda c: by_hand(c, "9", [1, 1, 1]), "no VIA 3 project"),
    (lambda c: next(iter(c["metadata"].values())).update(av=[1]), "no VIA 3 project"),
    (lambda c: next(iter(c["metadata"].values())).update(av=None), "no VIA 3 project"),
    (lambda c: next(iter(c["metadata"].values())).update(av={"1": {}}), "no VIA 3 project"),
    (lambda c: c.update(_via_img_metadata={}), "a project of VIA 2; open it in VIA 3"),
])
def test_broken_projects(project: Path, tmp_path: Path, dir_imgs: Path, edit: Edit,
                         message: str) -> None:
    for path in (edited(project, edit), foreign(tmp_path / "x.json", edit)):
        with pytest.raises(InputError, match=message):
            read(path, dir_imgs=dir_imgs)
        with pytest.raises(InputError, match=message):
            load_asked(path, dir_imgs)


@pytest.mark.parametrize("place", ["xy", "av", "vid"])
def test_deep_nesting(project: Path, place: str) -> None:
    text = project.read_text()
    deep = "[" * 900 + "]" * 900
    start = text.index(f'"{place}"') + len(place) + 4
    end = start + (text[start:].index("}") + 1 if place == "av" else
                   text[start:].index("]") + 1 if place == "xy" else text[start:].index(","))
    project.write_text(text[:start] + deep + text[end:])
    with pytest.raises(InputError):
        read(project)


# --- whatever stands in a file ------------------------------------------------------------------

WRONG = (None, True, -1, 1.5, 10**30, 10**400, float("nan"), float("inf"), "", "k", "../x",
         "\ud800", [], {}, [[]], {"a": {}})


def places(content: object) -> Iterator[tuple[dict | list, object]]:
    """Every container in a JSON file with a key in it."""
    pairs = content.items() if isinstance(content, dict) else (
        enumerate(content) if isinstance(content, list) else ())
    for key, value in pairs:
        yield content, key
        yield from places(value)


@pytest.mark.parametrize("kind", ["ours", "foreign", "coco"])
def test_nothing_but_input_errors(tmp_path: Path, dir_imgs: Path, kind: str) -> None:
    """Each mutant has one value exchanged or removed; it is read, or refused in a line."""
    path, rng = tmp_path / "x.json", np.random.default_rng(0)
    if kind == "coco":
        WRITERS["coco"](path, asked(), classes=CLASSES, dir_imgs=dir_imgs)
    else:
        write_project(path, dir_imgs) if kind == "ours" else foreign(path)
    read_kind = READERS["coco" if kind == "coco" else "via"]
    original, n_refused = path.read_text(), 0
    for _ in range(200):
        content = json.loads(original)
        found = list(places(content))
        container, key = found[rng.integers(len(found))]
        chosen = rng.integers(len(WRONG) + 1)
        if chosen < len(WRONG):
            container[key] = WRONG[chosen]
        else:
            del container[key]
        path.write_text(json.dumps(content))
        try:
            annotations = read_kind(path, classes=CLASSES, dir_imgs=dir_imgs)
            check_annotations(annotations, classes=CLASSES, where=path)
        except InputError as error:
            n_refused += 1
            assert "x.json" in str(error)
        else:
            expected = asked() if kind != "foreign" else annotations
            assert {a.pixel[1:] for a in annotations} <= {a.pixel[1:] for a in expected}
    assert 20 < n_refused < 200
