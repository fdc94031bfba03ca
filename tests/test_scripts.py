"""The shell recipes, run as a user runs them, in the environment the tests run in."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

from tests.conftest import quick_flags

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def run_script(name: str, *arguments: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(["sh", str(SCRIPTS / name), *arguments], cwd=cwd, text=True,
                          capture_output=True,
                          env=os.environ | {"VENV": sys.prefix, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_posix_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_camvid_script_from_another_folder(tiny_camvid: Path, tmp_path: Path) -> None:
    """Relative folders are the caller's; an unset variable leaves the recipe's default."""
    torch.save(mobilenet_v2().state_dict(), tmp_path / "weights.pth")
    flags = quick_flags(without=["--dataset_name", "--weight_type"])
    (tmp_path / "data").symlink_to(tiny_camvid)
    run_script("pixelpick-dl-cv.sh", *flags, "--n_epochs", "1", "--dir_checkpoints",
               str(tmp_path / "runs"), cwd=tmp_path, CAMVID_DIR="data",
               MOBILENET_WEIGHTS="weights.pth", SEEDS="0 3")
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert [name[-2:] for name in names] == ["_0", "_3"]


def test_the_demo_learns(tmp_path: Path) -> None:
    """What README promises of scripts/demo.sh: three lines, and an mIoU that rises above 0.50."""
    out = run_script("demo.sh", "--dir_checkpoints", str(tmp_path), cwd=tmp_path)
    assert "round 3/3: 30 pixels per image" in out and "curve:" in out and "pictures:" in out
    (metrics,) = tmp_path.glob("*/metrics.csv")
    with open(metrics, newline="") as file:
        scores = [float(row["miou_last"]) for row in csv.DictReader(file)]
    assert len(scores) == 3 and scores[2] > 0.5 and scores[2] > scores[0]


@pytest.mark.parametrize("has_camvid", [True, False])
def test_annotation_script_up_to_its_window(tiny_camvid: Path, tmp_path: Path, has_camvid: bool
                                            ) -> None:
    """On CamVid it first draws a query; without CamVid it takes the demo's scenes and query.npy."""
    script = SCRIPTS.parent / "annotation_tool" / "scripts" / "cv-train.sh"
    camvid = tiny_camvid if has_camvid else tmp_path / "nowhere"
    done = subprocess.run(
        ["sh", script.name, "--dir_logs", str(tmp_path / "logs")], cwd=script.parent, text=True,
        capture_output=True,
        env=os.environ | {"VENV": sys.prefix, "CAMVID_DIR": str(camvid), "DISPLAY": ":9999"})
    assert done.returncode == 2 and "error: no window can be opened here" in done.stderr
    assert ("opening the demo's drawn scenes" in done.stdout) is not has_camvid
    queries = list(tmp_path.glob("logs/queries/*/query.json"))
    assert len(queries) == has_camvid == ("wrote 10 random pixels" in done.stdout)
