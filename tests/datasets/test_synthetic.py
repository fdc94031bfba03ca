"""The drawn street scenes: what they contain, and that a set is whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import synthetic
from datasets.camvid import CAMVID
from datasets.synthetic import write_street_scenes
from utils.errors import InputError

TINY = {"n_train": 3, "n_test": 2, "height": 48, "width": 64}
FOLDERS = ("train", "trainannot", "test", "testannot")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default set."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    assert write_street_scenes(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def load(folder: Path, *, images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) float32 and (N, H, W) int."""
    image, label = (np.stack([Image.open(path) for path in sorted((folder / name).iterdir())])
                    for name in (images, labels))
    return image.astype(np.float32), label.astype(int)


def test_layout_of_camvid(demo: Path):
    assert {path.name for path in demo.iterdir()} == {*FOLDERS, "synthetic.json"}
    for images, labels, n in (("train", "trainannot", 40), ("test", "testannot", 20)):
        names = sorted(path.name for path in (demo / images).iterdir())
        assert names == sorted(path.name for path in (demo / labels).iterdir())
        assert len(names) == n
        for name in names:
            image, label = Image.open(demo / images / name), Image.open(demo / labels / name)
            assert (image.mode, label.mode) == ("RGB", "L")
            assert image.size == label.size == (320, 240)
            assert set(np.unique(label)) <= set(range(CAMVID.n_classes)) | {CAMVID.ignore_index}


def test_every_class_and_void_are_common(demo: Path):
    """Ten random pixels an image must be able to find every class in the training images."""
    _, labels = load(demo, images="train", labels="trainannot")
    for value, name in enumerate((*CAMVID.class_names, "void")):
        share = (labels == value).mean(axis=(1, 2))
        assert share.mean() > 0.015, name
        assert (share > 0.002).mean() > 0.85, name
        assert share.mean() < 0.4, name


def test_colour_alone_does_not_tell_the_classes(demo: Path):
    image, label = load(demo, images="train", labels="trainannot")
    means = np.stack([image[label == c].mean(axis=0) for c in range(CAMVID.n_classes)])
    n, hits = CAMVID.n_classes, np.zeros((CAMVID.n_classes, CAMVID.n_classes))
    for image, label in zip(*load(demo, images="test", labels="testannot"), strict=True):
        nearest = ((image[..., None, :] - means) ** 2).sum(axis=-1).argmin(axis=-1)
        known = label != CAMVID.ignore_index
        hits += np.bincount(label[known] * n + nearest[known], minlength=n * n).reshape(n, n)
    iou = np.diag(hits) / (hits.sum(axis=0) + hits.sum(axis=1) - np.diag(hits))
    assert iou.mean() < 0.35


def test_an_image_depends_on_seed_split_and_number_alone(tmp_path: Path):
    for name, changed in (("a", {}), ("again", {}), ("longer", {"n_train": 5}),
                          ("other", {"seed": 1})):
        write_street_scenes(tmp_path / name, **TINY | changed)
    first = contents(tmp_path / "a")
    assert contents(tmp_path / "again") == first
    longer = contents(tmp_path / "longer")
    assert all(longer[name] == first[name] for name in first if name.endswith(".png"))
    assert not set(first.values()) & set(contents(tmp_path / "other").values())
    assert len(set(first.values())) == len(first)  # no scene twice


@pytest.mark.parametrize("size", [(16, 16), (17, 90), (75, 33)])
def test_any_size(size: tuple[int, int]):
    for seed in range(4):
        image, labels = synthetic.draw_scene(np.random.default_rng(seed), height=size[0],
                                             width=size[1])
        assert image.shape == (*size, 3) and labels.shape == size
        assert image.dtype == labels.dtype == np.uint8


def test_second_call_reuses(tmp_path: Path):
    folder = tmp_path / "set"
    folder.mkdir()  # an empty folder is as good as none
    assert write_street_scenes(folder, **TINY)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not write_street_scenes(folder, **TINY)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times


@pytest.mark.parametrize("changed", [{"seed": 1}, {"n_train": 4}, {"height": 60}])
def test_other_parameters_are_refused_and_nothing_is_lost(tmp_path: Path, changed: dict):
    write_street_scenes(tmp_path / "set", **TINY)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"set holds something else.*--output"):
        write_street_scenes(tmp_path / "set", **TINY | changed)
    assert contents(tmp_path) == before


def test_other_content_and_missing_images_are_refused(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    write_street_scenes(tmp_path / "damaged", **TINY)
    (tmp_path / "damaged" / "trainannot" / "scene_0001.png").unlink()
    before = contents(tmp_path)
    for name in ("mine", "file", "damaged"):
        with pytest.raises(InputError, match=name):
            write_street_scenes(tmp_path / name, **TINY)
    assert contents(tmp_path) == before


def test_a_killed_half_written_set_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw, calls = synthetic.draw_scene, []

    def killed(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*args, **kwargs)

    folder = tmp_path / "set"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(synthetic, "draw_scene", killed)
        write_street_scenes(folder, **TINY)
    assert not folder.exists()
    for leftover in tmp_path.iterdir():  # nor may anything of it get into the next set
        (leftover / "train" / "scene_9999.png").write_bytes(b"half")
    assert write_street_scenes(folder, **TINY)
    write_street_scenes(tmp_path / "undisturbed", **TINY)
    assert contents(folder) == contents(tmp_path / "undisturbed")
    assert {path.name for path in tmp_path.iterdir()} == {"set", "undisturbed"}


@pytest.mark.parametrize("flags", [("--n_train", "0"), ("--n_test", "-1"), ("--height", "0"),
                                   ("--width", "15"), ("--seed", "-1")])
def test_bad_numbers_are_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch,
                                             flags: tuple[str, str]):
    monkeypatch.setattr("sys.argv", ["synthetic.py", "--output", str(tmp_path / "set"), *flags])
    with pytest.raises(SystemExit) as stop:
        synthetic.run_program(synthetic.main)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and flags[0] in output.err
    assert not any(tmp_path.iterdir())
