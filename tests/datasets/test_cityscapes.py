"""Cityscapes: the official layout, its ids, and the reduced copy, which is never half trusted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import args as flags
import datasets.reduced
import train
import utils.files
from datasets.cityscapes import CITYSCAPES
from datasets.images import IGNORE, list_samples, read_label
from datasets.reduced import reduced_copy, reduced_folder
from tests.datasets.miniatures import CITYSCAPES_IDS, label_ids_of, write_cityscapes
from utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
BOTH = {"train": True, "val": True}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cityscapes(tmp_path / "cityscapes")


def reduce(data: Path, *, n_workers: int = 0, splits: dict[str, bool] = BOTH) -> Path:
    return reduced_copy(CITYSCAPES, data, factor=32, splits=splits, n_workers=n_workers)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".tmp")}


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.rglob("[!.]*.png"))


def test_the_classes_are_those_of_cityscapesscripts() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    assert {label.id % 256 for label in labels} == set(CITYSCAPES.label_ids)
    for label in labels:
        index = CITYSCAPES.label_ids[label.id % 256]
        if label.ignoreInEval:
            assert index is None
        else:
            info = CITYSCAPES.classes[index]
            assert (index, info.name, info.colour) == (label.trainId, label.name, label.color)
    assert sum(not label.ignoreInEval for label in labels) == CITYSCAPES.n_classes == 19


def test_images_and_label_ids_are_found_among_the_official_files(data: Path) -> None:
    samples = list_samples(data, CITYSCAPES.splits["train"])
    assert [sample.name for sample in samples] == sorted(
        f"leftImg8bit/train/{city}/{city}_{i:06}_000019_leftImg8bit.png"
        for i, city in enumerate(["aachen", "bochum", "aachen", "bochum", "aachen"]))
    assert all(sample.label == data / label_ids_of(sample.name) for sample in samples)
    ids = np.array(Image.open(samples[0].label))
    label = read_label(samples[0].label, spec=CITYSCAPES)
    assert set(np.unique(ids)) == set(CITYSCAPES_IDS)
    for id_ in CITYSCAPES_IDS:
        index = CITYSCAPES.label_ids[id_]
        assert (label[ids == id_] == (IGNORE if index is None else index)).all()


def test_a_foreign_id_is_named(data: Path) -> None:
    path = list_samples(data, CITYSCAPES.splits["val"])[0].label
    Image.fromarray(np.full((64, 128), 34, np.uint8)).save(path)
    with pytest.raises(InputError, match="labelIds.png: label value 34 is none of the 35 ids"):
        read_label(path, spec=CITYSCAPES)


def test_the_copy_is_complete_and_small(data: Path) -> None:
    target = reduce(data)
    assert target == data.with_name("cityscapes_d32") == reduced_folder(data, 32)
    names = {path.relative_to(data).as_posix() for path in pictures(data)
             if path.name.endswith(("_leftImg8bit.png", "_labelIds.png"))}
    assert {path.relative_to(target).as_posix() for path in pictures(target)} == names
    assert len(names) == 2 * (5 + 3)
    for name in names:
        with Image.open(target / name) as copy, Image.open(data / name) as source:
            assert copy.size == (64, 32) and copy.mode == source.mode
            original, reduced = np.array(source), np.array(copy)
            if name.startswith("leftImg8bit"):
                assert np.array_equal(reduced, source.resize((64, 32), Image.Resampling.BILINEAR))
                continue
        # The label under each centre: floor((y + .5) * 2), whatever the value means.
        assert np.array_equal(reduced, original[1::2, 1::2])
    ids = [np.unique(np.array(Image.open(path))) for path in pictures(target / "gtFine")]
    assert set(np.concatenate(ids)) == set(CITYSCAPES_IDS)


def test_the_label_under_a_centre_where_the_factor_is_odd(tmp_path: Path) -> None:
    data = write_cityscapes(tmp_path / "cs", n_train=1, n_val=1, size=(100, 150))
    target = reduce(data)
    (path,) = pictures(target / "gtFine" / "train")
    original = np.array(Image.open(data / path.relative_to(target)))
    rows = [int((y + 0.5) * 100 / 32) for y in range(32)]
    columns = [int((x + 0.5) * 150 / 64) for x in range(64)]
    assert np.array_equal(np.array(Image.open(path)), original[np.ix_(rows, columns)])


def test_the_number_of_workers_changes_nothing(data: Path) -> None:
    copies = []
    for n_workers in (0, 1, 3):
        copies.append(content(reduce(data, n_workers=n_workers)))
        shutil.rmtree(reduced_folder(data, 32))
    assert len(copies[0]) == 17 and copies[0] == copies[1] == copies[2]


def test_a_complete_copy_needs_no_original(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(reduce(data))
    shutil.rmtree(data)
    monkeypatch.setattr(datasets.reduced, "list_samples", None)
    monkeypatch.setattr(datasets.reduced, "read_image", None)
    assert content(reduce(data)) == before


@pytest.mark.parametrize("kind", ["leftImg8bit", "gtFine"])
@pytest.mark.parametrize("damage", ["missing", "torn", "empty"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_a_damaged_file_is_written_again_and_no_other(data: Path, kind: str, damage: str,
                                                      finished: bool) -> None:
    target = reduce(data)
    before = content(target)
    victim = pictures(target / kind)[2]
    times = {path: path.stat().st_mtime_ns for path in pictures(target) if path != victim}
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[: 300 if damage == "torn" else 0])
    if not finished:
        (target / "reduced.json").write_text(
            '{"dataset": "cityscapes", "factor": 32, "parts": {}}')
    assert content(reduce(data, n_workers=2)) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


class Crash(BaseException):
    """Not an Exception: nothing in the program may catch it."""


@pytest.mark.parametrize("survive", [0, 1, 4, 11, 17])
def test_a_crash_in_the_middle_is_made_up_for(data: Path, monkeypatch: pytest.MonkeyPatch,
                                              survive: int) -> None:
    expected = content(reduce(data))
    shutil.rmtree(reduced_folder(data, 32))
    replace, calls = os.replace, []

    def crash_after_some(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) > survive:
            raise Crash
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(utils.files.os, "replace", crash_after_some)
        reduce(data)
    assert content(reduced_folder(data, 32)).keys() < expected.keys() or survive == 17
    assert content(reduce(data)) == expected


def test_kill_9_and_again(tmp_path: Path) -> None:
    data = write_cityscapes(tmp_path / "cityscapes", n_train=30, n_val=3)
    expected = content(reduce(data))
    target = reduced_folder(data, 32)
    shutil.rmtree(target)
    program = ("import sys, time, datasets.reduced as r; from datasets import DATASETS\n"
               "read = r.read_image\n"
               "r.read_image = lambda path: (time.sleep(.02), read(path))[1]\n"
               "r.reduced_copy(DATASETS['cityscapes'], sys.argv[1], factor=32, n_workers=2,\n"
               "               splits={'train': True, 'val': True})")
    process = subprocess.Popen([sys.executable, "-c", program, str(data)], cwd=REPOSITORY)
    while len(pictures(target)) < 10 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 10 <= len(pictures(target)) < 66
    time.sleep(0.3)
    settled = len(pictures(target))
    time.sleep(0.3)
    assert len(pictures(target)) == settled  # nobody goes on behind the scenes
    assert content(reduce(data)) == expected


def test_label_maps_can_come_later(data: Path) -> None:
    target = reduce(data, splits={"train": False})
    assert len(pictures(target)) == 5 and not (target / "gtFine").exists()
    times = {path: path.stat().st_mtime_ns for path in pictures(target)}
    reduce(data)
    assert len(pictures(target)) == 16
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_folder_in_the_way_is_not_trusted(data: Path) -> None:
    folder = reduced_folder(data, 32)
    write_cityscapes(folder)  # as another program would have made it
    before = content(folder)
    with pytest.raises(InputError, match="cityscapes_d32.*not written by this program.*move it"):
        reduce(data)
    assert content(folder) == before


@pytest.mark.parametrize("text", ["", "[]", '{"parts": []}', '{"parts": {"train": 3}}',
                                  '{"dataset": "cityscapes", "factor": 8, "parts": {}}'])
def test_a_broken_record_is_named(data: Path, text: str) -> None:
    (reduce(data) / "reduced.json").write_text(text)
    with pytest.raises(InputError, match="reduced.json"):
        reduce(data)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_full_disk_is_one_line_and_no_loss(data: Path, monkeypatch: pytest.MonkeyPatch,
                                             n_workers: int) -> None:
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch, pytest.raises(
            InputError, match="cannot write .*cityscapes_d32.*No space left"):
        patch.setattr(os, "fsync", full)
        reduce(data, n_workers=n_workers)
    target = reduced_folder(data, 32)
    assert not list(target.rglob("*.tmp")) and 0 < len(pictures(target)) < 16
    assert len(pictures(reduce(data))) == 16


def test_an_unwritable_place_and_a_file_in_the_way(data: Path) -> None:
    reduced_folder(data, 32).write_text("in the way")
    with pytest.raises(InputError, match="cityscapes_d32.*Not a directory"):
        reduce(data)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_source_that_cannot_be_read_is_named(data: Path, n_workers: int) -> None:
    path = list_samples(data, CITYSCAPES.splits["train"])[3].image
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(InputError, match=f"{path.name}: cannot be read as an image"):
        reduce(data, n_workers=n_workers)
    path.write_bytes(whole)
    assert len(pictures(reduce(data))) == 16


def loaded(data: Path, *more: str):
    args = flags.parse_arguments(["--dataset_name", "cs", "--dir_dataset", str(data),
                                  "--downsample", "32", "--weight_type", "random", *more])
    return train.load_data(args, flags.spec_of(args), with_labels=True)


def test_evaluation_at_full_size(data: Path) -> None:
    """--eval_full: the same validation images, the label maps as they are in the dataset."""
    (train_small, small), (train_full, full) = loaded(data), loaded(data, "--eval_full")
    assert np.array_equal(train_small.images, train_full.images)
    assert small.canvas == full.canvas == (32, 64) and small.names == full.names
    assert np.array_equal(small.images, full.images)
    assert {label.shape for label in small.labels} == {(32, 64)}
    assert {label.shape for label in full.labels} == {(64, 128)}
    for name, label in zip(full.names, full.labels, strict=True):
        assert np.array_equal(label, read_label(data / label_ids_of(name), spec=CITYSCAPES))


@pytest.mark.parametrize("given", [["--dataset_name", "cs", "--downsample", "1"],
                                   ["--dataset_name", "camvid", "--downsample", "4"]])
def test_evaluation_at_full_size_where_it_has_no_meaning(given: list[str]) -> None:
    with pytest.raises(InputError, match="--eval_full has no meaning"):
        flags.spec_of(flags.parse_arguments([*given, "--eval_full"]))
