"""VIA 3 projects: what is written, what a person may do to it in VIA, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest

from annotation_tool.asked import load_asked
from annotation_tool.formats.via import is_via, query_of_via, write_via
from datasets.classes import VOID_NAME
from datasets.queries import Query, write_query
from tests.annotation_tool.via_projects import (
    CLASSES,
    FILES,
    GRIDS,
    LABELS,
    ODD,
    Edit,
    asked,
    by_hand,
    edited,
    read,
)
from utils.errors import InputError


def point(content: dict, image: str, index: int) -> dict:
    """The `index`-th point (from 0) of an image."""
    return content["metadata"][ids(content, image)[index]]


def ids(content: dict, image: str) -> list[str]:
    vid = str(list(FILES).index(image) + 1)
    return [key for key, entry in content["metadata"].items() if entry["vid"] == vid]


# --- what is written ----------------------------------------------------------------------------


def test_the_project_is_what_via_expects(project: Path, dir_imgs: Path) -> None:
    content = json.loads(project.read_text())
    assert content["project"]["data_format_version"] == "3.1.1"
    assert content["project"]["pid"] == "__VIA_PROJECT_ID__"
    assert content["project"]["pname"] == "via project"
    assert content["project"]["vid_list"] == list(content["view"]) == ["1", "2", "3"]
    assert content["attribute"] == {"1": {
        "aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": 4, "default_option_id": "",
        "desc": "class of the pixel (mine)",
        "options": {"k": "sky", "1": "&lt;b&gt;road&lt;/b&gt; &amp; co, wet", "0": "größe",
                    "void": "void (none of these)"}}}
    prefix = content["config"]["file"]["loc_prefix"]["3"]
    for (vid, file), name in zip(content["file"].items(), FILES, strict=True):
        assert (file["fid"], file["type"], file["loc"]) == (vid, 2, 3)
        assert content["view"][vid] == {"fid_list": [vid]}
        # What a browser makes of prefix + src is the image's file; `fname` stands decodeURI.
        parts = urlsplit(prefix + file["src"])
        assert parts.scheme == "file" and not parts.query and not parts.fragment
        assert Path(url2pathname(parts.path)).samefile(dir_imgs / name)
        assert unquote(file["fname"], errors="strict") == name
        assert not re.search("%(?![0-9A-F]{2})", file["fname"])
    assert content["file"]["1"]["src"] == "a b.png"


def test_points_are_pixels_of_the_file(project: Path) -> None:
    content = json.loads(project.read_text())
    points = list(content["metadata"].values())
    for a, entry in zip(asked(), points, strict=True):
        (h, w) = FILES[a.image]
        x, y = int((a.x + .5) * w / a.w), int((a.y + .5) * h / a.h)
        key = {"sky": "k", LABELS[3]: "1", "größe": "0", VOID_NAME: "void"}.get(a.label)
        assert entry == {"vid": str(list(FILES).index(a.image) + 1), "flg": 0, "z": [],
                         "xy": [1, x, y], "av": {"1": key} if key else {}}
    assert next(iter(content["metadata"])) == (
        "image1of3_pixel1of5_y19x29_grid20x30_file39x59")


def test_reading_back_needs_no_images(project: Path) -> None:
    assert read(project) == asked()


def test_interleaved_images_are_grouped(tmp_path: Path, dir_imgs: Path) -> None:
    mixed = [asked()[i] for i in np.random.default_rng(0).permutation(15)]
    write_via(tmp_path / "x.json", mixed, classes=CLASSES, dir_imgs=dir_imgs)
    names = list(dict.fromkeys(a.image for a in mixed))
    assert read(tmp_path / "x.json") == sorted(mixed, key=lambda a: names.index(a.image))


def test_names_relative_to_the_root_with_the_inner_folder_given(tmp_path: Path,
                                                                 dir_imgs: Path) -> None:
    a = replace(asked()[5], image="images/" + ODD)
    write_via(tmp_path / "x.json", [a], classes=CLASSES, dir_imgs=dir_imgs)
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["config"]["file"]["loc_prefix"]["3"] == tmp_path.resolve().as_uri() + "/"
    assert read(tmp_path / "x.json") == [a]


# --- what may be done in VIA --------------------------------------------------------------------


def test_labels_change_in_via(project: Path) -> None:
    def label(content: dict) -> None:
        point(content, "a b.png", 1)["av"]["1"] = "0"
        point(content, ODD, 0)["av"]["1"] = "void"
        point(content, "c.jpg", 0)["av"]["1"] = ""  # what VIA leaves when a choice is taken back
        point(content, "c.jpg", 2).pop("av")

    labels = [a.label for a in asked()]
    labels[1], labels[5], labels[10], labels[12] = "größe", VOID_NAME, None, None
    assert [a.label for a in read(edited(project, label))] == labels


@pytest.mark.parametrize("edit", [
    lambda c: point(c, ODD, 0)["xy"].__setitem__(1, point(c, ODD, 0)["xy"][1] + .99),  # arrow key
    lambda c: point(c, ODD, 0).update(flg=1, own={"kept": 1}),
    lambda c: c.update(metadata=dict(sorted(c["metadata"].items(), reverse=True))),
    lambda c: c["attribute"]["1"].update(options=dict(reversed(
        c["attribute"]["1"]["options"].items()))),
    lambda c: c["attribute"]["1"].update(desc="x", aname="y", type=3),
    lambda c: c["attribute"]["1"]["options"].update({"9": "unused"}),
    lambda c: c["metadata"].update({"1_aBcD": {"vid": "1", "flg": 0, "z": [], "xy": [],
                                               "av": {"2": "about the whole image"}}}),
    lambda c: c["config"]["file"]["loc_prefix"].update({"3": "http://elsewhere/../"}),
    lambda c: [file.update(loc=1, src="") for file in c["file"].values()],  # picked by hand
    lambda c: [file.update(loc="3") for file in c["file"].values()],
    lambda c: [view.update(fid_list=[int(vid)]) for vid, view in c["view"].items()],
    lambda c: c.pop("pixelpick"),
])
def test_harmless_changes(project: Path, edit: Edit) -> None:
    assert read(edited(project, edit)) == asked()


def delete(content: dict, image: str, *indices: int) -> None:
    for key in [ids(content, image)[index] for index in indices]:
        del content["metadata"][key]


def remove_view(content: dict, image: str) -> None:
    delete(content, image, *range(5))
    vid = str(list(FILES).index(image) + 1)
    del content["view"][vid], content["file"][vid]
    content["project"]["vid_list"].remove(vid)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda c: point(c, "a b.png", 2)["xy"].__setitem__(1, 4),
     r"changed: 1 moved in VIA \(a b.png \(10, 1\)\); which pixels"),
    (lambda c: point(c, "c.jpg", 4)["xy"].__setitem__(2, 3.99), r"1 moved .*c.jpg \(4, 4\)"),
    (lambda c: point(c, "c.jpg", 4)["xy"].__setitem__(2, -.01), r"1 moved .*c.jpg \(4, 4\)"),
    (lambda c: point(c, "c.jpg", 4).update(xy=[]), r"1 moved .*c.jpg \(4, 4\)"),
    (lambda c: point(c, "c.jpg", 4).update(xy=[2, 4, 4, 1, 1]), r"1 moved .*c.jpg \(4, 4\)"),
    (lambda c: [p["xy"].__setitem__(1, 100) for p in c["metadata"].values()],
     r"15 moved in VIA \(a b.png \(19, 29\), a b.png \(0, 0\), a b.png \(10, 1\), \.\.\.\)"),
    (lambda c: delete(c, "c.jpg", 1), r"1 deleted in VIA \(c.jpg \(0, 0\)\)"),
    (lambda c: delete(c, "c.jpg", 4, 3), r"2 deleted in VIA \(c.jpg \(3, 7\), c.jpg \(4, 4\)\)"),
    (lambda c: delete(c, "a b.png", 0, 1, 2, 3),
     r"4 deleted in VIA \(a b.png .19, 29., a b.png .0, 0., a b.png .10, 1., \.\.\.\)"),
    (lambda c: (delete(c, "c.jpg", 1), c.pop("pixelpick")), r"deleted .*\(c.jpg, its point 2\)"),
    (lambda c: delete(c, "c.jpg", *range(5)), r"1 deleted in VIA \(all of c.jpg\)"),
    (lambda c: remove_view(c, "a b.png"), r"1 deleted in VIA \(all of a b.png\)"),
    (lambda c: (remove_view(c, "a b.png"), c.update(pixelpick={"asked": 3})),
     r"1 deleted in VIA \(all of image 1\)"),
    (lambda c: by_hand(c, "3", [1, 7.9, 2.1]), r"1 added in VIA \(c.jpg \(2, 7\)\)"),
    (lambda c: by_hand(c, "3", [2, 1, 1, 3, 3]), r"1 added in VIA \(c.jpg rectangle\)"),
    (lambda c: by_hand(c, "3", [[], 1]), r"1 added in VIA \(c.jpg other shape\)"),
    (lambda c: (delete(c, "c.jpg", 1), by_hand(c, "3", [1, 0, 0]),
                point(c, "a b.png", 2)["xy"].__setitem__(1, 4)),
     r"1 moved .*\), 1 deleted .*\), 1 added .*\)"),
    (lambda c: c["metadata"].update({ids(c, "c.jpg")[0] + "x": c["metadata"].pop(
        ids(c, "c.jpg")[0])}), r"1 deleted .*c.jpg \(8, 8\).*, 1 added"),
    (lambda c: point(c, "c.jpg", 0).update(vid="1"), "point image3of3_.* of a b.png does not bel"),
    (lambda c: c["metadata"].update({ids(c, "c.jpg")[0].replace("of3", "of4"): point(
        c, "c.jpg", 0)}), "does not belong here"),
    (lambda c: c["metadata"].update({ids(c, "c.jpg")[0].replace("y8", "y7"): point(
        c, "c.jpg", 0)}), "does not belong here"),
    (lambda c: c["metadata"].update({ids(c, "c.jpg")[0].replace("y8", "y9"): c["metadata"].pop(
        ids(c, "c.jpg")[0])}), "does not belong here"),
    (lambda c: c.update(metadata={}), "there is no point in it"),
])
def test_changed_points_are_named(project: Path, dir_imgs: Path, edit: Edit,
                                  message: str) -> None:
    edited(project, edit)
    with pytest.raises(InputError, match=message):
        read(project)
    with pytest.raises(InputError, match=message):
        load_asked(project, dir_imgs)


def test_huge_numbers_in_ids_cost_nothing(project: Path) -> None:
    def inflate(content: dict) -> None:
        content["metadata"] = {key.replace("of3", "of999999999").replace("of5", "of999999998"): v
                               for key, v in content["metadata"].items()}

    with pytest.raises(InputError, match="3999999975 deleted in VIA .*its point 6"):
        read(edited(project, inflate))


@pytest.mark.parametrize(("edit", "message"), [
    (lambda c: c["attribute"]["1"]["options"].update(k="heaven"),
     "options were renamed: 'k' is 'heaven', not 'sky'; put them back .* --classes"),
    (lambda c: c["attribute"]["1"]["options"].update({"void": "nothing"}), "'void' is 'nothing'"),
    # VIA's editor of options numbers them anew and leaves the answers alone.
    (lambda c: c["attribute"]["1"].update(options={"0": "sky", "1": "größe", "2": "void"}),
     "'1' is 'größe', not '<b>road</b> & co, wet', '0' is 'sky', not 'größe'"),
    (lambda c: c["attribute"].pop("1"), "its options are gone"),
    (lambda c: c["attribute"]["1"].update(options={}), "its options are gone"),
    (lambda c: c["attribute"]["1"].update(options={"k": 3}), "its options are gone"),
    (lambda c: c["attribute"]["1"].update(options={"k": []}), "its options are gone"),
    (lambda c: point(c, "c.jpg", 2)["av"].update({"1": "q"}),
     r"1 points have an option that is no class: c.jpg \(4, 1\): 'q'"),
    (lambda c: point(c, "c.jpg", 2)["av"].update({"1": "k,0"}), r"c.jpg \(4, 1\): 'k,0'"),
    (lambda c: [p["av"].update({"1": "7"}) for p in c["metadata"].values()],
     r"15 points .*: a b.png \(19, 29\): '7', a b.png \(0, 0\): '7', .*: '7', \.\.\.;"),
    (lambda c: point(c, "c.jpg", 2)["av"].update({"1": ["k"]}), "no VIA 3 project"),
])
def test_options_that_are_not_ours(project: Path, edit: Edit, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(edited(project, edit))


def test_other_classes_are_noticed(project: Path) -> None:
    others = replace(CLASSES, classes=(replace(CLASSES.classes[0], name="sea"),))
    with pytest.raises(InputError, match="'k' is 'sky', not 'sea'"):
        read(project, classes=others)
    others = replace(CLASSES, classes=(replace(CLASSES.classes[0], name="sea", key="s"),))
    with pytest.raises(InputError, match=r"9 points have an option that is no class: .*'k'"):
        read(project, classes=others)


# --- as a query ---------------------------------------------------------------------------------


def test_as_a_query(project: Path, dir_imgs: Path) -> None:
    assert is_via(project)
    query = query_of_via(project, dir_imgs)
    assert query.names == list(FILES)
    assert list(map(tuple, query.sizes.tolist())) == [GRIDS[name] for name in FILES]
    for name, pixels in zip(query.names, query.pixels, strict=True):
        assert pixels.dtype == np.int64
        assert pixels.tolist() == [[a.y, a.x] for a in asked() if a.image == name]
    images = load_asked(project, dir_imgs)
    assert [(image.name, image.path, image.size) for image in images] == [
        (name, dir_imgs / name, GRIDS[name]) for name in FILES]


def test_two_grids_are_no_query(tmp_path: Path, dir_imgs: Path) -> None:
    pixels = [asked()[0], replace(asked()[0], h=21)]
    write_via(tmp_path / "x.json", pixels, classes=CLASSES, dir_imgs=dir_imgs)
    assert read(tmp_path / "x.json") == pixels
    with pytest.raises(InputError, match="a b.png is asked on two grids"):
        query_of_via(tmp_path / "x.json", dir_imgs)


def test_a_query_json_is_no_project(tmp_path: Path) -> None:
    query = Query(names=["a.png"], sizes=np.array([[2, 2]]), pixels=[np.array([[0, 1]])],
                  strategy="random", seed=0)
    write_query(tmp_path, query, max_mask_gb=1)
    assert not is_via(tmp_path / "query.json")
    (tmp_path / "x.json").write_text('{"strategy": "format", "format": 1}')
    assert not is_via(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(InputError, match="cannot read"):
        is_via(tmp_path / "x.json")
    with pytest.raises(InputError, match="cannot read"):
        is_via(tmp_path / "gone.json")
