"""benchmarks/calibration.py, on one trained network and more confident copies of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from benchmarks import calibration
from tests.conftest import RUN, quick_flags
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.errors import InputError
from utils.files import read_csv, read_json, write_json


@pytest.fixture(scope="module")
def runs(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One round: `plain` with seeds 0 and 1, `sure` with the same seeds and logits of 200 and
    400 times the size."""
    folder = tmp_path_factory.mktemp("runs")
    assert train.main([*quick_flags(), "--n_epochs", "1", "--max_budget", "4", "--dir_dataset",
                       str(tiny_camvid), "--dir_checkpoints", str(folder)]) == 0
    found = []
    for suffix, seed, factor in (("plain", 0, 1), ("plain", 1, 1), ("sure", 0, 200),
                                 ("sure", 1, 400)):
        run = Path(shutil.copytree(folder / RUN, folder / f"{suffix}{seed}"))
        content = read_json(run / "args.json")
        content["flags"] |= {"suffix": suffix, "seed": seed}
        write_json(run / "args.json", content)
        checkpoint = load_checkpoint(run / "0_query" / "last.pt")
        for tensor in checkpoint["network"].values():
            if tensor.dim() and len(tensor) == 11:  # a row a class
                tensor *= factor
        save_checkpoint(run / "0_query" / "last.pt", checkpoint)
        found.append(run)
    return found


def test_groups_are_compared_once_evaluated(runs: list[Path], tmp_path: Path, capsys,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*map(str, runs), "--json", str(tmp_path / "a.json"), "--picture",
             str(tmp_path / "a.png"), "--device", "cpu", "--n_workers", "1"]
    assert calibration.main([*words, "--evaluations", str(tmp_path / "kept")]) == 0
    printed = capsys.readouterr().out
    plain, sure = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert (plain["group"], sure["group"], plain["split"]) == ("suffix plain", "suffix sure",
                                                               "test")
    row = read_csv(runs[0] / "metrics.csv")[-1]
    for name, column in (("miou", "miou_last"), ("pixel_accuracy", "pixel_accuracy")):
        assert plain[name] == sure[name] == pytest.approx([float(row[column])] * 2, abs=2e-6)
    # So sure that the error is nearly the share of wrong pixels.
    assert min(sure["mean_confidence"]) > 0.8 > plain["mean_confidence"][0]
    error = sure["expected_calibration_error"]
    assert error[1] > error[0] > plain["expected_calibration_error"][0]
    assert sure["difference"] == pytest.approx(
        np.mean(error) - plain["expected_calibration_error"][0], abs=2e-5)
    assert sure["pairs"] == 2 and 0 < sure["p"] < 1 and "verdict" not in plain
    cells = printed.splitlines()[-1].split(" | ")
    assert cells[1] == "4" and cells[2].startswith(f"{100 * np.mean(error):.2f} ± ")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # lines, letters

    monkeypatch.setattr("utils.report.evaluation.Calibration", None)
    assert calibration.main([*words, "--evaluations", str(tmp_path / "kept")]) == 0
    assert capsys.readouterr().out == printed


def test_what_is_not_there_is_named(runs: list[Path], tmp_path: Path, capsys) -> None:
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    (run / "0_query" / "last.pt").unlink()
    with pytest.raises(InputError, match="no network of these runs can be evaluated"):
        calibration.main([str(run), "--device", "cpu"])
    assert "left out: " in (said := capsys.readouterr().err) and "last.pt" in said
    with pytest.raises(InputError, match="no such folder"):
        calibration.main([str(run), "--dir_dataset", str(tmp_path / "gone")])
