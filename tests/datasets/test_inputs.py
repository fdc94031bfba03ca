"""Which files predict.py finds, what is written for them, and their label maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.camvid import CAMVID
from datasets.cityscapes import CITYSCAPES
from datasets.inputs import check_names, find_inputs, label_maps
from utils.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("x/a.png", "x/deep/b.JPG", "y/c.webp", "y/clip.MOV", "y/notes.txt", "y/.d.png",
                 ".hidden/e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(("words", "names"), [
    (["."], ["x/a.png", "x/deep/b.JPG", "y/c.webp", "y/clip.MOV"]),
    (["x"], ["a.png", "deep/b.JPG"]),
    (["x/deep/b.JPG"], ["b.JPG"]),
    (["x", "y"], ["x/a.png", "x/deep/b.JPG", "y/c.webp", "y/clip.MOV"]),
    (["x", "./x/a.png"], ["a.png", "deep/b.JPG"]),
    (["*"], ["x/a.png", "x/deep/b.JPG", "y/c.webp", "y/clip.MOV"]),
    (["*/*.*p*"], ["x/a.png", "y/c.webp"]),
    (["**/*.[Jj]*"], ["x/deep/b.JPG"]),
    (["y/notes.txt"], ["notes.txt"]),
])
def test_names(tree: Path, words: list[str], names: list[str],
               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    relative = find_inputs(words)
    assert [file.name for file in relative] == names
    assert find_inputs([str(tree / word) for word in words]) == relative
    assert {file.name for file in relative if file.is_video} <= {"y/clip.MOV"}


@pytest.mark.parametrize(("first", "second", "both"), [
    ("a/b.jpg", "a/b.png", "a/b.png"),
    ("b.jpg", "b.overlay.jpg", "b.overlay.png"),
    ("c.mov", "c.mp4", "c.mp4"),
])
def test_two_that_would_be_one(tmp_path: Path, first: str, second: str, both: str) -> None:
    for name in (first, second):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{first} and {second} would both be written as {both}"):
        check_names(find_inputs([str(tmp_path)]), [".png", ".overlay.png"], video_ending=".mp4")


def test_label_maps_have_the_data_sets_names(tmp_path: Path) -> None:
    for name in ("img/ulm/ulm_1_leftImg8bit.png", "img/ulm/ulm_2_leftImg8bit.png", "img/own.jpg",
                 "truth/ulm/ulm_1_gtFine_labelIds.png", "truth/own_gtFine_labelIds.png",
                 "plain/own.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    files = find_inputs([str(tmp_path / "img")])
    truth = tmp_path / "truth"
    assert list(label_maps(files, truth, spec=CITYSCAPES).values()) == [
        truth / "own_gtFine_labelIds.png", truth / "ulm/ulm_1_gtFine_labelIds.png", None]
    plain = tmp_path / "plain"
    assert list(label_maps(files, plain, spec=CAMVID).values()) == [plain / "own.png", None, None]
    with pytest.raises(InputError, match="of any of 3 images; the first one's would be own_gtFine"):
        label_maps(files, plain, spec=CITYSCAPES)
