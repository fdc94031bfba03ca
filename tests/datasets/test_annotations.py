"""Logs of people's answers, and what training takes from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.annotations import (
    Annotation,
    annotator_folders,
    collect_answers,
    log_path,
    log_text,
    read_logs,
)
from datasets.points import VOID
from utils.errors import InputError
from utils.files import by_tail, write_text

CLASSES = ("sky", "road")
NAMES = ["train/a.png", "train/b.png"]
SIZES = np.array([[4, 6], [8, 6]])
PIXELS = [np.array([[1, 2], [3, 5]]), np.array([[7, 0]])]


def answered(image: str, y: int, x: int, label: str, **kwargs: object) -> Annotation:
    h, w = (8, 6) if "b.png" in image else (4, 6)
    return Annotation(**({"image": image, "y": y, "x": x, "h": h, "w": w, "label": label}
                         | kwargs))


def write(folder: Path, *annotations: Annotation) -> Path:
    for image in {a.image for a in annotations}:
        write_text(log_path(folder, image), log_text(a for a in annotations if a.image == image))
    return folder


def collect(*folders: Path, on_conflict: str = "error"):
    return collect_answers(folders, PIXELS, names=NAMES, sizes=SIZES, class_names=CLASSES,
                           on_conflict=on_conflict)


def test_logs_round_trip(tmp_path: Path) -> None:
    all_of_them = [answered("train/a.png", 1, 2, "sky", elapsed_time=1.5, total_time=2.25),
                   answered("train/ü, b.png", 7, 0, "void", elapsed_time=30.5, total_time=32.75)]
    assert read_logs(write(tmp_path, *all_of_them)) == all_of_them
    assert [a.slow for a in all_of_them] == [False, True]


def test_answers_become_points_in_the_order_of_asking(tmp_path: Path) -> None:
    write(tmp_path, answered("train/b.png", 7, 0, "void"), answered("train/a.png", 3, 5, "road"),
          answered("train/a.png", 1, 2, "sky"), answered("train/a.png", 0, 0, "road"))
    found = collect(tmp_path)
    assert found.points.image.tolist() == [0, 0, 1] and found.points.label.tolist() == [0, 1, VOID]
    assert found.points.y.tolist() == [1, 3, 7] and found.points.x.tolist() == [2, 5, 0]
    assert not found.unanswered and not found.conflicts


def test_pixels_of_another_grid_are_others(tmp_path: Path) -> None:
    write(tmp_path, answered("train/a.png", 1, 2, "sky", h=8, w=12))
    assert collect(tmp_path).unanswered == {0: 2, 1: 1}


def test_shorter_names_are_known_by_their_end(tmp_path: Path) -> None:
    write(tmp_path, answered("a.png", 1, 2, "sky"))
    assert collect(tmp_path).points.label.tolist() == [0]
    assert by_tail(["x/a.png", "y/a.png", "y/b.png", "b.png"]) == {
        "x/a.png": "x/a.png", "y/a.png": "y/a.png", "y/b.png": "y/b.png", "b.png": "b.png"}


def test_disagreement(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, answered("train/a.png", 1, 2, label),
                     answered("train/b.png", 7, 0, "sky"))
               for name, label in zip("abc", ("sky", "void", "void"), strict=True)]
    with pytest.raises(InputError, match=r"disagree on 1 pixels.*train/a\.png \(1, 2\): sky, void"):
        collect(*folders)
    assert collect(*folders, on_conflict="first").points.label.tolist() == [0, 0]
    majority = collect(*folders, on_conflict="majority")
    assert majority.points.label.tolist() == [VOID, 0] and len(majority.conflicts) == 1
    tie = collect(*folders[:2][::-1], on_conflict="majority")
    assert tie.points.label.tolist() == [VOID, 0]  # the folder that comes first
    assert collect(folders[1], folders[2]).points.label.tolist() == [VOID, 0]


@pytest.mark.parametrize(("row", "message"), [
    ("1,2,sky,1,1,4,6,0,../a.png", "no path inside"),
    ("1,2,sky,1,1,4,6,0,/a.png", "no path inside"),
    ("4,2,sky,1,1,4,6,0,a.png", r"row 2: \(4, 2\) is outside its grid of 4x6"),
    ("-1,2,sky,1,1,4,6,0,a.png", "outside its grid"),
    ("1,2.5,sky,1,1,4,6,0,a.png", "row 2 is no answer"),
    ("1,2,sky,x,1,4,6,0,a.png", "row 2 is no answer"),
    ("1,2,sky,nan,1,4,6,0,a.png", "row 2: a time is no number"),
    ("1,2,sky,1,-1,4,6,0,a.png", "row 2: a time is no number"),
    ("1,2,sky", "row 2 is no answer|no path"),
])
def test_broken_logs_are_named(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(f"y,x,label,elapsed_time,total_time,h,w,slow,image\n{row}\n")
    with pytest.raises(InputError, match=message):
        read_logs(tmp_path)


def test_other_text_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\nworld\n")
    with pytest.raises(InputError, match=r"notes\.txt: row 2 is no answer"):
        read_logs(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        read_logs(tmp_path / "none")


def test_annotators_folders(tmp_path: Path) -> None:
    for name in ("logs/camvid_b", "logs/camvid_a", "logs/voc_a", "own/train"):
        (tmp_path / name).mkdir(parents=True)
    found = annotator_folders([tmp_path / "own", tmp_path / "logs", tmp_path / "none"],
                              dataset="camvid")
    assert [path.name for path in found] == ["own", "camvid_a", "camvid_b"]
