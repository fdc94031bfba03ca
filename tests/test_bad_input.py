"""What users get wrong: one line that names it, exit code 2, and nothing saved is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from tests.conftest import RUN, quick_flags
from utils.errors import InputError, run_program


def first(folder: Path) -> Path:
    return sorted(folder.glob("*.png"))[0]


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


def remove_folder(data: Path) -> None:
    for path in (data / "testannot").iterdir():
        path.unlink()
    (data / "testannot").rmdir()


def empty_folder(data: Path) -> None:
    for path in (data / "train").iterdir():
        path.unlink()


def remove_label(data: Path) -> None:
    first(data / "trainannot").unlink()


def remove_image(data: Path) -> None:
    first(data / "test").unlink()


def resize_a_label(data: Path) -> None:
    save(first(data / "trainannot"), np.zeros((48, 63), np.uint8))


def foreign_value(data: Path) -> None:
    save(first(data / "testannot"), np.full((48, 64), 17, np.uint8))


def truncate(data: Path) -> None:
    path = first(data / "train")
    path.write_bytes(path.read_bytes()[:200])


def no_png(data: Path) -> None:
    first(data / "trainannot").write_text("not a picture")


def sixteen_bits(data: Path) -> None:
    save(first(data / "train"), np.zeros((48, 64), np.uint16))


def colour_label(data: Path) -> None:
    save(first(data / "trainannot"), np.zeros((48, 64, 3), np.uint8))


@pytest.mark.parametrize(("spoil", "message"), [
    (remove_folder, r"no folder .*testannot.*--dir_dataset"),
    (empty_folder, r"no \.png or \.webp files in .*train"),
    (remove_label, r"1 images without a label map in trainannot/: \w+"),
    (remove_image, r"1 label maps without an image in test/: \w+"),
    (resize_a_label, r"trainannot.*48x63 pixels, but its image .* has 48x64"),
    (foreign_value, r"testannot.*label value 17 is none of the 11 classes"),
    (truncate, r"train.*cannot be read as an image"),
    (no_png, r"trainannot.*cannot be read as an image"),
    (sixteen_bits, r"train.*mode I;16.*8-bit RGB"),
    (colour_label, r"trainannot.*one 8-bit channel.*mode RGB"),
])
def test_bad_data(own_camvid: Path, run_train, tmp_path: Path, spoil: Callable[[Path], None],
                  message: str) -> None:
    spoil(own_camvid)
    with pytest.raises(InputError, match=message):
        run_train(data=own_camvid, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_grey_rgba_and_palette_images_are_converted(own_camvid: Path, mode: str) -> None:
    from datasets.images import read_image

    path = first(own_camvid / "train")
    original = Image.open(path).copy()
    original.convert(mode).save(path)
    expected = np.asarray(original.convert(mode).convert("RGB"))
    assert np.array_equal(read_image(path), expected)


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    path = tmp_path / "resnet18.pth"
    torch.save(resnet18().state_dict(), path)
    flags = quick_flags(without=["--weight_type"])
    with pytest.raises(InputError, match=r"resnet18.pth: holds no weights of mobilenetv2"):
        train.main([*flags, "--weights", str(path)])


@pytest.mark.parametrize("content", [b"", b"no weights", None], ids=["empty", "text", "missing"])
def test_weights_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    flags = quick_flags(without=["--weight_type"])
    with pytest.raises(InputError, match="weights.pth"):
        train.main([*flags, "--weights", str(path)])


def test_unwritable_output(run_train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write .*choose another directory"):
        run_train(out=tmp_path / "file")


def test_a_full_disk_loses_nothing(run_train, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    out = run_train("--max_budget", "4")
    before = {path: path.read_bytes() for path in (out / RUN).rglob("*") if path.is_file()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left"):
        patch.setattr(os, "fsync", full)
        run_train("--max_budget", "8", out=out)
    assert {path: path.read_bytes() for path in before} == before
    assert not list((out / RUN).rglob("*.tmp"))
    run_train("--max_budget", "8", out=out)


def test_bad_data_with_overwrite_keeps_the_old_run(own_camvid: Path, run_train) -> None:
    out = run_train("--max_budget", "4", data=own_camvid)
    remove_label(own_camvid)
    with pytest.raises(InputError):
        run_train("--overwrite", data=own_camvid, out=out)
    assert [path.name for path in out.iterdir()] == [RUN]


def test_files_of_a_run_that_do_not_fit(run_train) -> None:
    out = run_train("--max_budget", "4")
    labels = out / RUN / "0_query" / "labels.csv"
    text = labels.read_text()
    for broken, message in ((text.replace("train/", "elsewhere/"), "no column or image"),
                            (text.replace(",", ",999,", 1), "labels.csv"),
                            ("image,y\na,b\n", "no column or image"),
                            (text + "x", "labels.csv")):
        assert broken != text
        labels.write_text(broken)
        with pytest.raises(InputError, match=message):
            run_train("--max_budget", "8", out=out)
    labels.write_text(text)
    run_train("--max_budget", "8", out=out)


def test_exit_code_and_stderr(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", "--dataset_name", "cv", "--dir_dataset", str(tmp_path),
         "--weight_type", "random"], capture_output=True, text=True,
        cwd=Path(__file__).resolve().parents[1])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: no folder ") and done.stderr.count("\n") == 1


def a_checkpoint_without(key: str | None) -> dict:
    config = {"dataset": "camvid", "grid": [30, 40], "mean": [0.5] * 3, "std": [0.2] * 3,
              "asking": {}, "seed": 0, "round": 0, "network": {
                  "name": "deeplab", "backbone": "mobilenetv2", "n_classes": 11}}
    return {"network": {}, "config": {k: v for k, v in config.items() if k != key}}


@pytest.mark.parametrize("content", [
    {}, [], {"network": {}, "config": []}, *(a_checkpoint_without(key) for key in (
        None, "dataset", "grid", "network", "asking", "round"))])
def test_foreign_checkpoints(own_camvid: Path, tmp_path: Path, content: object) -> None:
    import query

    torch.save(content, tmp_path / "foreign.pt")
    with pytest.raises(InputError, match="foreign.pt.*no checkpoint of this program"):
        query.main(["--checkpoint", str(tmp_path / "foreign.pt"), "--dir_dataset",
                    str(own_camvid), "--device", "cpu"])


@pytest.mark.parametrize(("name", "text"), [
    ("metrics.csv", "round\n0\n"), ("0_query/query_stats.json", "[]"), ("args.json", "[]"),
    ("0_query/query_stats.json", '{"seconds": null}')])
def test_broken_records_of_a_run(run_train, name: str, text: str) -> None:
    out = run_train("--max_budget", "4")
    if "stats" in name:
        (out / RUN / "metrics.csv").unlink()
    (out / RUN / name).write_text(text)
    with pytest.raises(InputError, match=name):
        run_train("--max_budget", "8", out=out)


def test_a_run_without_its_flags_is_not_continued(run_train) -> None:
    out = run_train("--max_budget", "4")
    (out / RUN / "args.json").unlink()
    with pytest.raises(InputError, match="no args.json"):
        run_train("--max_budget", "8", out=out)


def test_interrupting_by_hand_is_no_traceback(capsys: pytest.CaptureFixture) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_program(interrupted)
    assert caught.value.code == 130
    assert "the same command continues" in capsys.readouterr().err
