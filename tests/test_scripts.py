"""The shell recipes, run as a user runs them, in the environment the tests run in."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

from benchmarks.study import Job, parse, plan
from datasets import DATASET_NAMES
from query import ACQUISITIONS
from tests.conftest import quick_flags

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def run_script(name: str, *arguments: str, cwd: Path, **environment: str) -> str:
    own = {name: value for name, value in os.environ.items() if name != "USE_PYTHON"}  # over VENV
    done = subprocess.run(["sh", str(SCRIPTS / name), *arguments], cwd=cwd, text=True,
                          capture_output=True,
                          env=own | {"VENV": sys.prefix, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_posix_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)


RECIPES = [path.name for path in sorted(SCRIPTS.glob("*.sh"))
           if path.name not in ("demo.sh", "test.sh", "environment.sh", "study.sh", "slurm.sh")]


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[..., list[Job]]:
    """`plan_of(script, *arguments)`: what a recipe hands to benchmarks/study.py, as runs. Its
    Python is one that only prints its arguments, so that this takes no time."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n[ \"$1\" = -m ] || printf '%s\\n' \"$@\"\n")
    python.chmod(0o755)

    def plan_script(script: str, *arguments: str) -> list[Job]:
        out = run_script(script, *arguments, cwd=tmp_path, VENV=str(tmp_path / "venv"),
                         SEEDS="3 4")
        _, _, words = out.partition("study.py\n")
        args = parse(words.splitlines())
        assert args.name == script.removesuffix(".sh") and args.seeds == [3, 4]
        return plan(args.common, args.vary, args.seeds)

    return plan_script


@pytest.mark.parametrize("script", RECIPES)
def test_recipes_give_flags_that_exist(script: str, plan_of) -> None:
    """Arguments go to train.py, in all runs."""
    jobs = plan_of(script, "--n_workers", "7", "--suffix", "two words")
    assert len(jobs) >= 2 and all(job.flags.n_workers == 7 for job in jobs)
    assert all(job.flags.suffix.startswith("two words") for job in jobs)
    if script.startswith(("pixelpick", "fully")):
        assert [job.flags.seed for job in jobs] == [3, 4]
        _, network, dataset = script.removesuffix(".sh").replace("y-s", "ys").split("-")
        assert (jobs[0].flags.network_name, jobs[0].flags.dataset_name) == (
            {"dl": "deeplab", "fpn50": "FPN"}[network], DATASET_NAMES[dataset])
        assert (jobs[0].flags.n_pixels_by_us == 0) == script.startswith("fully")


def test_diversity_compares_equal_budgets_and_steps(plan_of) -> None:
    jobs = [job.flags for job in plan_of("diversity.sh")]
    assert {flags.n_images * flags.max_budget for flags in jobs} == {3600}
    assert {flags.n_images // flags.batch_size * flags.n_epochs for flags in jobs} == {4500}
    assert {flags.n_epochs // flags.eval_interval for flags in jobs} == {50}


def test_sampling_has_all_acquisition_functions(plan_of) -> None:
    jobs = plan_of("sampling.sh")
    assert {job.flags.query_strategy for job in jobs} == set(ACQUISITIONS)
    assert jobs[0].flags.query_strategy == "random"  # what the others are compared with


def test_a_recipe_for_each_row_of_the_papers_tables() -> None:
    for network in ("dl", "fpn50"):
        for dataset in ("cv", "cs", "voc"):
            assert {f"pixelpick-{network}-{dataset}.sh",
                    f"fully-supervised-{network}-{dataset}.sh"} <= set(RECIPES)


def test_reproduction_takes_seeds_as_arguments(plan_of) -> None:
    jobs = plan_of("reproduce-camvid.sh")
    assert [job.flags.n_pixels_by_us for job in jobs] == [10, 0, 10, 0]
    assert {job.flags.max_budget for job in jobs if job.flags.n_pixels_by_us} == {100}


def test_reproduction_goes_on_on_another_machine(tiny_camvid: Path, tmp_path: Path) -> None:
    """From what it keeps: a few small files without networks. Finished rounds stay as they are (the
    last one's network is trained again, to ask with)."""
    def reproduce(machine: str, max_budget: str) -> list[dict[str, str]]:
        flags = [*quick_flags(without=["--dataset_name", "--max_budget", "--weight_type",
                                       "--n_pixels_by_us"]), "--n_epochs", "1"]
        run_script("reproduce-camvid.sh", "5", *flags, "--weight_type", "random", "--max_budget",
                   max_budget, cwd=tmp_path, CAMVID_TAR=str(tmp_path / "data.tar"), OUT="out",
                   WORK=str(tmp_path / machine), SECONDS_LIMIT="1000", USE_PYTHON=sys.executable,
                   MOBILENET_WEIGHTS="")
        (metrics,) = tmp_path.glob(f"{machine}/camvid*margin*_5/metrics.csv")
        with open(metrics, newline="") as file:
            return list(csv.DictReader(file))

    subprocess.run(["tar", "-cf", "data.tar", "-C", str(tiny_camvid.parent), tiny_camvid.name],
                   cwd=tmp_path, check=True)
    before = reproduce("first", "10")
    kept = list((tmp_path / "out").rglob("*"))
    assert len(kept) <= 8 and max(path.stat().st_size for path in kept) < 16 * 2**20
    after = reproduce("second", "20")
    assert len(before) == 1 and len(after) == 2 and after[0] == before[0]
    assert not list(tmp_path.glob("second/camvid*full*/*/last.pt"))  # it was finished
    assert "58.2" in (tmp_path / "out/table.md").read_text()


def test_camvid_script_from_another_folder(tiny_camvid: Path, tmp_path: Path) -> None:
    """Relative folders are the caller's; an unset variable leaves the recipe's default. Full masks
    of before are in the table."""
    torch.save(mobilenet_v2().state_dict(), tmp_path / "weights.pth")
    flags = [*quick_flags(without=["--dataset_name", "--weight_type", "--max_budget",
                                   "--n_pixels_by_us"]), "--n_epochs", "1",
             "--dir_checkpoints", str(tmp_path / "runs")]
    (tmp_path / "data").symlink_to(tiny_camvid)
    where = dict(cwd=tmp_path, CAMVID_DIR="data", MOBILENET_WEIGHTS="weights.pth")
    run_script("fully-supervised-dl-cv.sh", *flags, SEEDS="0", **where)
    out = run_script("pixelpick-dl-cv.sh", *flags, "--max_budget", "8", "--n_pixels_by_us", "4",
                     SEEDS="0 3", PARALLEL="2", **where)
    names = sorted(path.name for path in (tmp_path / "runs").glob("camvid*"))
    assert [name.split("mobilenetv2_")[1] for name in names] == [
        "full_0", "margin_sampling_4_p0.05_0", "margin_sampling_4_p0.05_3"]
    last = next(line for line in out.splitlines() if "| last |" in line)
    assert last.count("(2)") == 2 and last.count("(1)") == 1 and "%" in last
    pictures = {path.name for path in (tmp_path / "runs/studies/pixelpick-dl-cv").iterdir()}
    assert pictures == {"logs", "miou_last.png", "miou_best.png", "largest.png", "published.png",
                        "table.json", "table.md"}


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
