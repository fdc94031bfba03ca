"""benchmarks/holdout.py: a part of the training set to choose settings on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import holdout
from datasets.camvid import CAMVID
from datasets.images import list_samples
from utils.errors import InputError

SEQUENCES = {"0001TP": 9, "0006R0": 3, "0016E5": 4}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "CamVid"
    for part in ("train", "trainannot"):
        (folder / part).mkdir(parents=True)
        for sequence, n_frames in SEQUENCES.items():
            for number in range(n_frames):
                pixels = np.zeros((2, 2, 3) if part == "train" else (2, 2), np.uint8)
                Image.fromarray(pixels).save(folder / part / f"{sequence}_{number:05}.png")
    return folder


def hold_out(data: Path, out: Path) -> int:
    return holdout.main(["--dir_dataset", str(data), "--output", str(out)])


def test_the_last_quarter_of_each_sequence_is_held_out(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert hold_out(data, out) == 0
    parts = {part: list_samples(out, CAMVID.splits[part]) for part in ("train", "test")}
    held_out = [sample.image.name for sample in parts["test"]]
    assert held_out == ["0001TP_00007.png", "0001TP_00008.png", "0016E5_00003.png"]
    kept = [sample.image.name for sample in parts["train"]]
    assert not set(kept) & set(held_out)
    assert sorted(kept + held_out) == sorted(path.name for path in (data / "train").iterdir())
    for sample in parts["train"] + parts["test"]:
        assert sample.image.resolve() == data / "train" / sample.image.name
        assert sample.label.resolve() == data / "trainannot" / sample.image.name
    assert capsys.readouterr().out == "train: 13 images, test: 3 images\n"


def test_bad_input(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is there already; give a new folder"):
        hold_out(data, data)
    with pytest.raises(InputError, match="cannot write .*: Not a directory"):
        hold_out(data, data / "train" / "0001TP_00000.png" / "out")
    with pytest.raises(InputError, match="nowhere"):
        hold_out(tmp_path / "nowhere", tmp_path / "out")
    (data / "trainannot" / "0006R0_00001.png").unlink()
    with pytest.raises(InputError, match="1 images without a label map"):
        hold_out(data, tmp_path / "out")
    for path in {*data.glob("*/0001TP*"), *data.glob("*/0016E5*"), *data.glob("*/*_00001.png")}:
        path.unlink()
    with pytest.raises(InputError, match="no sequence of these 2 images has 4 frames"):
        hold_out(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
