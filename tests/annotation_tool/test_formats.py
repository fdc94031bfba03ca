"""Indexed PNG and COCO-style JSON: what other programs find in them, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_tool.truth import GroundTruth
from datasets.classes import VOID_NAME
from tests.annotation_tool.test_convert import (
    CLASSES,
    IMAGES,
    drawn,
    fails,
    run,
    write_csv,
    write_images,
)


@pytest.fixture(scope="module")
def dir_imgs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


# --- png ----------------------------------------------------------------------------------------


def test_png_is_a_label_map_of_the_grid(tmp_path: Path) -> None:
    annotations = [a for a in drawn(7) if a.image != "train/plain.jpg"]
    folder = run("csv", "png", write_csv(tmp_path / "a.csv", annotations), tmp_path / "maps")
    truth = GroundTruth(folder, CLASSES)
    for name in {a.image for a in annotations}:
        mine = [a for a in annotations if a.image == name]
        with Image.open((folder / name).with_suffix(".png")) as image:
            assert image.mode == "P" and image.size == (mine[0].w, mine[0].h)
            label_map, rgb = np.array(image), np.array(image.convert("RGB"))
        expected = np.full((mine[0].h, mine[0].w), 255)
        for a in mine:
            if a.label in CLASSES.class_names:
                expected[a.y, a.x] = CLASSES.class_names.index(a.label)
                assert tuple(rgb[a.y, a.x]) == CLASSES.classes[expected[a.y, a.x]].colour
        np.testing.assert_array_equal(label_map, expected)
        grey = set(map(tuple, rgb[label_map == 255].tolist()))
        assert len(grey) == 1 and len(set(*grey)) == 1
        assert not grey & {info.colour for info in CLASSES.classes}
        assert all(truth.label(a) == (a.label or VOID_NAME) for a in mine)


def test_png_refuses_what_would_share_a_file(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", drawn(0))
    fails(r"train/plain.png and train/plain.jpg would both be .*plain.png", "csv", "png", table,
          tmp_path / "maps")
    first = drawn(0)[0]
    table = write_csv(tmp_path / "b.csv", [first, replace(first, h=first.h + 1)])
    fails("on two grids, 36x48 and 37x48", "csv", "png", table, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_png_never_replaces_photographs(tmp_path: Path, dir_imgs: Path) -> None:
    annotations = [a for a in drawn(0) if a.image == "train/plain.png"]
    table = write_csv(tmp_path / "a.csv", annotations)
    root = tmp_path / "root"
    (root / "train").mkdir(parents=True)
    photograph = (dir_imgs / "train" / "plain.png").read_bytes()
    (root / "train" / "plain.png").write_bytes(photograph)
    fails("plain.png is no indexed PNG", "csv", "png", table, root, "--overwrite")
    assert (root / "train" / "plain.png").read_bytes() == photograph


# --- coco ---------------------------------------------------------------------------------------


def coco_file(tmp_path: Path, dir_imgs: Path) -> tuple[Path, dict]:
    path = run("csv", "coco", write_csv(tmp_path / "a.csv", drawn(8)), tmp_path / "coco.json",
               "--dir_imgs", str(dir_imgs))
    return path, json.loads(path.read_text())


def test_coco_is_what_other_readers_expect(tmp_path: Path, dir_imgs: Path) -> None:
    annotations = drawn(8)
    _, content = coco_file(tmp_path, dir_imgs)
    images = {image["id"]: image for image in content["images"]}
    assert {i["file_name"]: (i["height"], i["width"]) for i in images.values()} == {
        name: size for name, (size, _) in IMAGES.items()}
    names = [*CLASSES.class_names, VOID_NAME]
    assert [(c["id"], c["name"]) for c in content["categories"]] == list(enumerate(names, 1))
    assert all(c["keypoints"] == ["pixel"] and c["skeleton"] == [] for c in content["categories"])
    assert len({entry["id"] for entry in content["annotations"]}) == len(content["annotations"])
    assert len(content["annotations"]) == sum(a.label is not None for a in annotations)
    assert len(content["unanswered"]) == sum(a.label is None for a in annotations)
    for entry in content["annotations"]:
        a = annotations[entry["id"] - 1]
        image = images[entry["image_id"]]
        x, y = int((a.x + .5) * image["width"] / a.w), int((a.y + .5) * image["height"] / a.h)
        assert image["file_name"] == a.image and names[entry["category_id"] - 1] == a.label
        assert entry["keypoints"] == [x, y, 2] and entry["num_keypoints"] == 1
        assert entry["bbox"] == [x, y, 1, 1] and entry["area"] == 1 and entry["iscrowd"] == 0
        assert 0 <= x < image["width"] and 0 <= y < image["height"]


def test_coco_names_what_is_wrong(tmp_path: Path, dir_imgs: Path) -> None:
    path, content = coco_file(tmp_path, dir_imgs)
    original = path.read_text()
    entry = content["annotations"][0]
    asked = dict(entry["asked"])

    def fails_with(match: str) -> None:
        path.write_text(json.dumps(content))
        fails(match, "coco", "csv", path, tmp_path / "b.csv")
        content.clear()
        content.update(json.loads(original))

    def first() -> dict:
        return content["annotations"][0]

    first()["keypoints"][0] += 1
    name = content["images"][0]["file_name"]
    fails_with(rf"1 keypoints are not at their pixel: {name} \({asked['y']}, {asked['x']}\)")
    del first()["asked"]
    fails_with(f"annotation {entry['id']} of {name} does not say which pixel")
    content["images"][1]["file_name"] = "../x.png"
    fails_with("'../x.png' is no path inside")
    content["categories"][0]["name"] = "water"
    fails_with("'water', which is no class of camvid")
    content["annotations"][1]["id"] = entry["id"]
    fails_with(f"two annotations have the id {entry['id']}")
    first()["asked"]["y"] = 1000
    fails_with(r"\(1000, \d+\) is outside its grid of 36x48")
    for key, value in (("y", "1"), ("h", None), ("elapsed_time", float("nan")), ("x", True),
                       ("total_time", "1"), ("w", 10**40), ("total_time", -1),
                       ("elapsed_time", 10**400)):
        first()["asked"][key] = value
        fails_with("convert has written|is outside|larger than any")
    for key in ("images", "categories", "annotations"):
        for value in (None, 3, [[]], {"a": 1}, [{"id": [1]}]):
            content[key] = value
            fails_with("no COCO file that convert has written")
    first()["category_id"] = 99
    fails_with("no COCO file that convert has written")
