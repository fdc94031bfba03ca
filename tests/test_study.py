"""benchmarks/study.py: variants x seeds, killed, resumed, with one that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.study import adopt_first_round, first_round, full_runs, parse, plan
from tests.conftest import quick_flags
from train import main
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.errors import InputError
from utils.files import read_csv, write_json, write_text

STUDY = Path(__file__).resolve().parents[1] / "benchmarks" / "study.py"
CV = ["--dataset_name", "cv"]


@pytest.fixture
def start(tiny_camvid: Path, tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """`start(*flags of study.py)` with quick flags and one thread for each run."""
    def run(*flags: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(STUDY), *flags, "--", *quick_flags(), "--n_epochs", "1",
             "--dir_dataset", str(tiny_camvid), "--dir_checkpoints", str(tmp_path / "runs")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"})

    return run


def names(variants: list[str], common: list[str] = CV, seeds: tuple[int, ...] = (0,)) -> list[str]:
    return [job.folder.name for job in plan(common, variants, seeds)]


def test_variants_are_quoted_flags() -> None:
    args = parse(["--vary", "-qs random", "--reverse_order", "", "--seeds", "3", "--", "--lr", "1"])
    assert [variant.strip() for variant in args.vary] == ["-qs random", "--reverse_order", ""]
    assert args.seeds == [3] and args.common == ["--lr", "1"]


def test_names_show_what_a_variant_changes() -> None:
    """What is the recipe's default anyway changes nothing, so that studies share their runs."""
    plain = "camvid_deeplab_mobilenetv2_margin_sampling_10_p0.05_0"
    assert names(["", "-qs entropy", "--lr 0.1 --label_noise 0.2"]) == [
        plain, plain.replace("margin_sampling", "entropy"), f"{plain}_lr-0.1_label_noise-0.2"]
    assert names(["--label_noise 0 --weight_type supervised"]) == [plain]
    assert names(["--lr 0.1"], [*CV, "--suffix", "mine"]) == [f"{plain}_mine_lr-0.1"]
    assert names(["--network_name FPN --backbone resnet50"]) == [
        "camvid_FPN_resnet50_margin_sampling_10_p0.05_0"]
    assert names(["-qs bald --use_mc_dropout"])[0].endswith("bald_10_p0.05_0_use_mc_dropout")


def test_full_masks_beside_points() -> None:
    """Flags about points are for the other variants."""
    common = [*CV, "--max_budget=30", "--top_n_percent", "0", "--lr", "0.1"]
    points, full = plan(common, ["", "--n_pixels_by_us 0"], [0])
    assert points.flags.max_budget == 30 and full.flags.lr == 0.1
    assert full.folder.name == "camvid_deeplab_mobilenetv2_full_0"
    assert full_runs(common, ["--n_images 36 --lr 0.1"], [0]) == []


def test_a_teacher_is_about_points_and_there_from_the_first_round() -> None:
    plain, taught, full = plan([*CV, "--ema", "0.9"], ["", "--teacher 1", "--n_pixels_by_us 0"],
                               [0])
    assert first_round(plain.recorded) != first_round(taught.recorded)
    plain, full = plan([*CV, "--ema", "0.9", "--teacher", "1", "--teacher_threshold", "0.3"],
                       ["", "--n_pixels_by_us 0"], [0])
    assert (plain.flags.teacher, full.flags.teacher, full.flags.ema) == (1, 0, 0.9)


@pytest.mark.parametrize(("variants", "common", "message"), [
    (["", "-qs margin_sampling"], CV, "same run"),
    (["--no_such_flag 1"], CV, "no_such_flag"),
    ([""], [*CV, "--seed", "1"], "--seeds"),
    ([""], [*CV, "--labeller", "human"], "person"),
    ([""], [], "which dataset"),
])
def test_mistakes_are_found_before_anything_runs(variants, common, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(common, variants, [0])


def test_killed_and_continued(start, tmp_path: Path) -> None:
    """No run goes on when the study is killed; the same command finishes it and says what was
    done; again, and nothing is trained. A seed's runs differ between the variants only."""
    flags = ["--vary", "-qs margin_sampling", "-qs random", "--seeds", "0", "1", "--parallel", "2",
             "--json", str(tmp_path / "numbers.json")]
    study = start(*flags)
    while not list(tmp_path.glob("runs/*/metrics.csv")):
        assert study.poll() is None, study.stderr.read()
        time.sleep(0.05)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(study.pid)], text=True,
                              capture_output=True).stdout.split()
    study.send_signal(signal.SIGTERM)
    _, said = study.communicate(timeout=60)
    assert study.returncode == 130 and said.endswith("the same command continues\n")
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)

    study = start(*flags)
    printed, said = study.communicate()
    assert study.returncode == 0, said
    assert "4 runs" in said and "unfinished" not in said
    rows = json.loads((tmp_path / "numbers.json").read_text())["rows"]
    assert [(row["strategy"], row["pixels_per_image"], row["n_runs"]) for row in rows] == [
        ("margin_sampling", 4, 2), ("margin_sampling", 8, 2), ("random", 4, 2), ("random", 8, 2)]
    assert rows[0]["miou_last_runs"] == rows[2]["miou_last_runs"]  # the first round is random

    study = start(*flags)
    again, said = study.communicate()
    assert "4 runs, 4 of them finished before" in said and again == printed
    assert "running" not in said


def test_a_first_round_is_trained_once(start, tiny_camvid: Path, tmp_path: Path) -> None:
    """Also with both runs side by side, and the other run is what it would be by itself."""
    study = start("--seeds", "0", "--parallel", "2", "--vary", "-qs margin_sampling", "-qs random")
    _, said = study.communicate()
    assert study.returncode == 0 and said.count("the first round of") == 1, said
    assert main([*quick_flags(), "--n_epochs", "1", "--dir_dataset", str(tiny_camvid), "-qs",
                 "random", "--dir_checkpoints", str(tmp_path / "alone")]) == 0
    alone, = tmp_path.glob("alone/*")
    together = tmp_path / "runs" / alone.name

    def scores(folder: Path) -> list[dict]:
        return [{name: cell for name, cell in row.items() if "seconds" not in name}
                for row in read_csv(folder / "metrics.csv")]

    assert scores(together) == scores(alone) and len(scores(alone)) == 2
    for run in (tmp_path / "runs").glob("camvid*"):  # what makes this run, not all the study
        assert Path(json.loads((run / "args.json").read_text())["command"][1]).name == "train.py"
    for name in ("last.pt", "best.pt"):
        asking = load_checkpoint(together / "0_query" / name)["config"]["asking"]
        assert asking == load_checkpoint(alone / "0_query" / name)["config"]["asking"]
        assert asking["strategy"] == "random"


@pytest.mark.parametrize(("program", "adopted"), [("train.py", True), ("masked_points.py", False)])
def test_a_first_round_with_masked_points_is_another(program: str, adopted: bool,
                                                     tmp_path: Path) -> None:
    there, wanted = plan([*CV, "--dir_checkpoints", str(tmp_path)], ["--suffix mask", ""], [0])
    write_json(there.folder / "args.json", {"flags": there.recorded,
                                            "command": ["python", f"benchmarks/{program}"]})
    write_text(there.folder / "metrics.csv", "round,pixels_per_image,pixels_total,miou_last,"
                                             "miou_best\n0,10,100,0.2,0.3\n")
    for name in ("last.pt", "best.pt"):
        (there.folder / "0_query").mkdir(exist_ok=True)
        save_checkpoint(there.folder / "0_query" / name, {"config": {}})
    adopt_first_round(wanted)
    assert wanted.folder.exists() == adopted


def test_a_variant_that_fails(start, tmp_path: Path) -> None:
    """The others are finished and tabulated; exit code 2, and the last line names it."""
    study = start("--seeds", "0", "--vary", "--weight_type moco_v2", "--max_budget 4")
    printed, said = study.communicate()
    assert study.returncode == 2
    assert "failed: camvid" in said and said.splitlines()[-1].startswith(
        "error: 1 of 2 runs failed, the first: train.py") and "moco_v2" in said.splitlines()[-1]
    assert "(1)" in printed and (tmp_path / "runs" / "studies" / "study" / "table.md").exists()


def test_stopped_after_some_seconds(start) -> None:
    study = start("--seeds", "0", "--seconds", "0.1")
    _, said = study.communicate()
    assert study.returncode == 0 and "no run has finished a round yet" in said
