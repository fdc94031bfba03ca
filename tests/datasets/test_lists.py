"""The lists of a dataset's images: written once, compared later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import datasets.lists
from datasets import DATASETS
from datasets.images import list_samples
from datasets.lists import check_lists, main, write_lists
from tests.datasets.miniatures import VOC_TRAIN, VOC_VAL, write_cityscapes, write_voc
from utils.errors import InputError

CAMVID = DATASETS["camvid"]
REPOSITORY = Path(__file__).resolve().parents[2]


def test_what_is_written_and_that_it_fits(tiny_camvid: Path, tmp_path: Path) -> None:
    paths = write_lists(CAMVID, tiny_camvid, folder=tmp_path)
    assert [path.name for path in paths] == ["camvid_train.txt", "camvid_val.txt"]
    assert paths[0].read_text() == "".join(f"train/scene_{i:04}.png\n" for i in range(5))
    assert paths[1].read_text() == "".join(f"test/scene_{i:04}.png\n" for i in range(3))
    check_lists(CAMVID, tiny_camvid, folder=tmp_path)


def test_cityscapes_and_voc(tmp_path: Path) -> None:
    write_lists(DATASETS["cityscapes"], write_cityscapes(tmp_path / "cs"), folder=tmp_path)
    assert (tmp_path / "cityscapes_val.txt").read_text().splitlines() == [
        f"leftImg8bit/val/{name}_000019_leftImg8bit.png"
        for name in ("frankfurt/frankfurt_000000", "frankfurt/frankfurt_000002",
                     "munster/munster_000001")]
    assert (tmp_path / "cityscapes_train.txt").read_text().splitlines() == [
        sample.name for sample in list_samples(tmp_path / "cs",
                                               DATASETS["cityscapes"].splits["train"])]
    write_lists(DATASETS["voc"], write_voc(tmp_path / "VOC"), folder=tmp_path)
    for split, names in (("train", VOC_TRAIN), ("val", VOC_VAL)):
        assert (tmp_path / f"voc_{split}.txt").read_text().splitlines() == [
            f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg" for name in names]


def test_label_maps_are_not_needed(own_camvid: Path, tmp_path: Path) -> None:
    for path in (own_camvid / "trainannot").iterdir():
        path.unlink()
    write_lists(CAMVID, own_camvid, folder=tmp_path)
    assert len((tmp_path / "camvid_train.txt").read_text().splitlines()) == 5


def test_missing_and_added_images_are_named(own_camvid: Path, tmp_path: Path) -> None:
    write_lists(CAMVID, own_camvid, folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.txt")}
    (own_camvid / "train" / "scene_0003.png").rename(own_camvid / "train" / "other.png")
    (own_camvid / "test" / "scene_0000.png").unlink()
    with pytest.raises(InputError) as caught:
        check_lists(CAMVID, own_camvid, folder=tmp_path)
    for part in ("1 missing (camvid_train.txt: train/scene_0003.png)",
                 "1 added (camvid_train.txt: train/other.png)",
                 "1 missing (camvid_val.txt: test/scene_0000.png)"):
        assert part in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.txt")} == before


def test_without_a_list_there_is_nothing_to_compare(tiny_camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read .*camvid_train.txt.*--check_lists"):
        check_lists(CAMVID, tiny_camvid, folder=tmp_path)


def test_the_command(tiny_camvid: Path) -> None:
    """The drawn scenes are not CamVid: exit code 2 and one line."""
    done = subprocess.run(
        [sys.executable, "-m", "datasets.lists", "--dataset_name", "cv", "--dir_dataset",
         str(tiny_camvid), "--check_lists"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "367 missing (camvid_train.txt: train/0001TP_006690.png, " in done.stderr
    assert "5 added (camvid_train.txt: train/scene_0000.png, " in done.stderr


@pytest.mark.parametrize(("flags", "message"), [
    ([], "--dataset_name"),
    (["--dataset_name", "kitti", "--dir_dataset", "x"], "unknown dataset 'kitti'"),
    (["--dataset_name", "voc", "--dir_dataset", "nowhere"], "nowhere.*--dir_dataset")])
def test_mistakes(flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(flags)


def test_the_lists_that_come_with_the_program() -> None:
    """367 and 233 images, sorted as they are read, disjoint, without any machine's path."""
    lists = {name: (datasets.lists.FOLDER / f"camvid_{name}.txt").read_text().splitlines()
             for name in ("train", "val")}
    assert {name: len(images) for name, images in lists.items()} == {"train": 367, "val": 233}
    for folder, images in zip(("train", "test"), lists.values(), strict=True):
        assert images == sorted(set(images))
        assert all(name.startswith(f"{folder}/") and name.count("/") == 1 and
                   name.endswith(".png") for name in images)
    stems = [Path(name).stem for images in lists.values() for name in images]
    assert len(set(stems)) == 600


def test_real_camvid() -> None:
    folder = os.environ.get("CAMVID_DIR")
    if not folder:
        pytest.skip("CAMVID_DIR is not set")
    check_lists(CAMVID, folder)
