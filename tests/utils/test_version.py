"""--version, and that the files that name the version agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from utils.version import VERSION

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("program", ["train.py", "annotation_tool/launch_gui.py"])
def test_version(program: str) -> None:
    """Of torch only where the program works with it."""
    done = subprocess.run([sys.executable, program, "--version"], cwd=REPOSITORY, text=True,
                          capture_output=True, check=True)
    words = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.stdout.split()[1] == VERSION and done.stderr == ""
    assert words == ["PixelPick-rebuilt", "Python", *["torch", "torchvision", "CUDA"] * (
        program == "train.py")]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == VERSION and citation["license"] == "MIT"
    assert (REPOSITORY / "LICENSE").read_text().startswith("MIT License")
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2104.06394"


def test_one_list_of_packages() -> None:
    """The conda environment and the image install requirements.txt; the annotation tool's list is
    a part of it."""
    required = (REPOSITORY / "requirements.txt").read_text().splitlines()
    tool = (REPOSITORY / "annotation_tool" / "requirements.txt").read_text().splitlines()
    assert set(tool) < set(required)
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]
    assert "-r requirements.txt" in (REPOSITORY / "Dockerfile").read_text()
