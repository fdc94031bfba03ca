"""The loop from end to end: its files, resuming, extending, refusing."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import utils.files
import utils.round_training
from datasets import DATASETS
from datasets.images import IGNORE, read_label, resize_label
from tests.conftest import RUN, quick_flags
from utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(path: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if "seconds" not in name}
            for row in rows(path)]


@pytest.fixture(scope="module")
def finished(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted quick run."""
    import train

    out = tmp_path_factory.mktemp("finished")
    assert train.main([*quick_flags(), "--dir_dataset", str(tiny_camvid), "--dir_checkpoints",
                       str(out)]) == 0
    return out / RUN


def test_a_run_leaves_the_files_of_its_rounds(finished: Path) -> None:
    expected = {"query.json", "query.npy", "query_stats.json", "labels.csv", "last.pt", "best.pt",
                "log_train.csv", "log_val.csv", "qualitative.png"}
    for folder in ("0_query", "1_query"):
        assert {path.name for path in (finished / folder).iterdir()} == expected
    assert {path.name for path in finished.iterdir()} == {
        "args.json", "metrics.csv", "curve.png", "0_query", "1_query"}
    for picture in (finished / "curve.png", finished / "1_query" / "qualitative.png"):
        assert np.asarray(Image.open(picture)).std() > 10


def test_metrics_count_pixels_and_agree_with_the_logs(finished: Path) -> None:
    table = rows(finished / "metrics.csv")
    assert [row["pixels_per_image"] for row in table] == ["4.000000", "8.000000"]
    assert [row["pixels_total"] for row in table] == ["20", "40"]
    assert [row["void_answers"] for row in table] == ["0", "0"]
    assert float(table[1]["percent"]) == pytest.approx(100 * 40 / (5 * 30 * 40), abs=1e-5)
    for row, folder in zip(table, ("0_query", "1_query"), strict=True):
        log = rows(finished / folder / "log_val.csv")
        assert [entry["epoch"] for entry in log] == ["1", "2"]
        assert float(row["miou_last"]) == pytest.approx(float(log[-1]["miou"]), abs=1e-6)
        assert float(row["miou_best"]) == pytest.approx(max(float(e["miou"]) for e in log),
                                                        abs=1e-6)
        iou = [float(value) for name, value in row.items() if name.startswith("iou_")]
        assert len(iou) == 11
        assert float(row["miou_last"]) == pytest.approx(np.nanmean(iou), abs=1e-5)


def test_queries_are_new_pixels_with_the_ground_truths_answers(finished: Path,
                                                               tiny_camvid: Path) -> None:
    spec, seen = DATASETS["camvid"], set()
    masks = [np.load(finished / f"{r}_query" / "query.npy", allow_pickle=False) for r in (0, 1)]
    assert masks[0].shape == (5, 30, 40) and masks[0].dtype == bool
    assert not (masks[0] & masks[1]).any()
    for r in (0, 1):
        images = json.loads((finished / f"{r}_query" / "query.json").read_text())["images"]
        asked = [(entry["image"], y, x) for entry in images for y, x in entry["pixels"]]
        answers = {(row["image"], int(row["y"]), int(row["x"])): int(row["label"])
                   for row in rows(finished / f"{r}_query" / "labels.csv")}
        assert list(answers) == asked and len(asked) == 20 and not seen & set(asked)
        seen |= set(asked)
        for mask, entry in zip(masks[r], images, strict=True):
            assert np.argwhere(mask).tolist() == sorted(entry["pixels"])
            truth = resize_label(read_label(tiny_camvid / entry["image"].replace(
                "train/", "trainannot/"), spec=spec), (30, 40))
            for y, x in entry["pixels"]:
                assert truth[y, x] == answers[entry["image"], y, x] != IGNORE
            assert (r == 0) == ("scores" not in entry)


def test_the_same_command_gives_the_same_run(finished: Path, run_train) -> None:
    again = run_train("--n_workers", "3") / RUN
    assert without_seconds(again / "metrics.csv") == without_seconds(finished / "metrics.csv")
    for name in ("query.json", "labels.csv"):
        assert (again / "1_query" / name).read_bytes() == \
            (finished / "1_query" / name).read_bytes()


def test_the_asked_pixels_do_not_depend_on_the_query_batch(finished: Path, run_train) -> None:
    other = run_train("--eval_batch_size", "2") / RUN
    assert (other / "1_query" / "labels.csv").read_bytes() == \
        (finished / "1_query" / "labels.csv").read_bytes()


def test_another_seed_gives_another_run(finished: Path, run_train) -> None:
    other = run_train("--seed", "1") / RUN.replace("_0", "_1")
    assert (other / "0_query" / "query.json").read_bytes() != \
        (finished / "0_query" / "query.json").read_bytes()


class Crash(BaseException):
    """Not an Exception: nothing in the program may catch it."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_write_changes_nothing(finished: Path, run_train, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch,
                                              after: bool) -> None:
    """Stop just before, or just after, a file gets its name; again and again, further each time."""
    monkeypatch.setattr(utils.round_training, "SAVE_SECONDS", 0)
    replace, out = os.replace, tmp_path / "checkpoints"
    crashes = 0
    for survive in (0, 1, 2, 3, 1, 4, 2, 5, 3, 1, 2, 1, 4, 1, 3, *[6] * 20):
        calls = 0

        def crash_after_some(source, target, survive=survive):
            nonlocal calls
            calls += 1
            if calls <= survive:
                return replace(source, target)
            if after:
                replace(source, target)
            raise Crash

        monkeypatch.setattr(utils.files.os, "replace", crash_after_some)
        try:
            run_train(out=out)
            break
        except Crash:
            crashes += 1
    assert crashes > 6
    run_train(out=out)
    assert without_seconds(out / RUN / "metrics.csv") == without_seconds(finished / "metrics.csv")
    for r in (0, 1):
        for name in ("query.json", "labels.csv"):
            assert (out / RUN / f"{r}_query" / name).read_bytes() == \
                (finished / f"{r}_query" / name).read_bytes()
        for name in ("log_train.csv", "log_val.csv"):
            assert without_seconds(out / RUN / f"{r}_query" / name) == \
                without_seconds(finished / f"{r}_query" / name)
        ours, theirs = (torch.load(run / f"{r}_query" / "best.pt", weights_only=True)
                        for run in (out / RUN, finished))
        assert all(torch.equal(ours["network"][name], value)
                   for name, value in theirs["network"].items())
    assert not list((out / RUN).rglob("*.tmp"))


def test_kill_9_and_the_same_command_again(finished: Path, tiny_camvid: Path,
                                           tmp_path: Path) -> None:
    program = ("import utils.round_training as r; r.SAVE_SECONDS = 0; import torch; "
               "torch.set_num_threads(1); import train; train.main()")
    command = [sys.executable, "-c", program, *quick_flags(), "--dir_dataset", str(tiny_camvid),
               "--dir_checkpoints", str(tmp_path)]
    run = tmp_path / RUN
    for awaited in ("0_query/last.pt", "1_query/query_stats.json", "1_query/last.pt"):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        while not (run / awaited).exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    assert without_seconds(run / "metrics.csv") == without_seconds(finished / "metrics.csv")


def test_a_finished_run_says_so_and_goes_on_with_a_larger_budget(
        finished: Path, run_train, capsys: pytest.CaptureFixture) -> None:
    out = run_train()
    before = (out / RUN / "metrics.csv").read_bytes()
    capsys.readouterr()
    run_train(out=out)
    assert "finished" in capsys.readouterr().out
    assert (out / RUN / "metrics.csv").read_bytes() == before
    run_train("--max_budget", "12", out=out)
    extended = (out / RUN / "metrics.csv").read_bytes()
    assert extended.startswith(before) and len(rows(out / RUN / "metrics.csv")) == 3
    assert without_seconds(finished / "metrics.csv") == \
        without_seconds(out / RUN / "metrics.csv")[:2]


def test_finished_rounds_need_no_checkpoints(run_train) -> None:
    out = run_train()
    for path in (out / RUN).glob("*/*.pt"):
        path.unlink()
    for path in (out / RUN).glob("*/log_*.csv"):
        path.unlink()
    run_train("--max_budget", "12", out=out)
    assert len(rows(out / RUN / "metrics.csv")) == 3
    assert not (out / RUN / "0_query" / "last.pt").exists()


def test_other_flags_are_refused_by_name_unless_overwritten(
        run_train, capsys: pytest.CaptureFixture) -> None:
    out = run_train("--max_budget", "4")
    before = (out / RUN / "metrics.csv").read_bytes()
    with pytest.raises(InputError, match=r"n_epochs \(was 2, now 3\)"):
        run_train("--n_epochs", "3", out=out)
    assert (out / RUN / "metrics.csv").read_bytes() == before
    run_train("--n_epochs", "1", "--max_budget", "4", "--overwrite", out=out)
    assert (out / f"{RUN}.old-1" / "metrics.csv").read_bytes() == before
    assert rows(out / RUN / "metrics.csv")[0]["epoch_best"] == "1"


def test_a_run_from_before_a_flag_goes_on_without_it(run_train) -> None:
    out = run_train("--max_budget", "4")
    record = out / RUN / "args.json"
    content = json.loads(record.read_text())
    del content["flags"]["class_balance"], content["flags"]["ask_balance"]
    record.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"class_balance \(was 0.0, now 0.5\)"):
        run_train("--max_budget", "8", "--class_balance", "0.5", out=out)
    run_train("--max_budget", "8", out=out)
    assert len(rows(out / RUN / "metrics.csv")) == 2


def test_full_supervision(run_train) -> None:
    out = run_train("--n_pixels_by_us", "0", without=["--max_budget"])
    run = out / "camvid_d12_deeplab_mobilenetv2_full_0"
    (row,) = rows(run / "metrics.csv")
    assert float(row["percent"]) == 100 and int(row["pixels_total"]) == 5 * 30 * 40
    assert {path.name for path in run.iterdir()} == {"args.json", "metrics.csv", "full"}
    assert not list(run.rglob("query*"))


@pytest.mark.parametrize("strategy", ["random", "entropy", "least_confidence"])
def test_every_strategy_runs(run_train, strategy: str) -> None:
    out = run_train("-qs", strategy, "--n_epochs", "1", "--reverse_order")
    run = out / RUN.replace("margin_sampling", strategy)
    assert len(rows(run / "metrics.csv")) == 2


def test_masks_above_the_limit_are_not_written(run_train, capsys: pytest.CaptureFixture) -> None:
    out = run_train("--max_mask_gb", "1e-6", "--max_budget", "4", "--n_epochs", "1")
    assert "--max_mask_gb" in capsys.readouterr().err
    assert {"query.json"} == {p.name for p in (out / RUN / "0_query").glob("query.*")}


def test_the_query_script_asks_what_the_run_asked(finished: Path, tiny_camvid: Path,
                                                  tmp_path: Path) -> None:
    import query

    command = ["--checkpoint", str(finished / "0_query" / "last.pt"), "--dir_dataset",
               str(tiny_camvid), "--device", "cpu", "--exclude_void"]
    assert query.main([*command, "--dir_output", str(tmp_path)]) == 0
    assert (tmp_path / "query.json").read_bytes() == \
        (finished / "1_query" / "query.json").read_bytes()
    # A bare query.npy excludes as well as a query.json does.
    bare = tmp_path / "elsewhere.npy"
    np.save(bare, np.load(tmp_path / "query.npy"))
    query.main([*command, "--exclude", str(bare), "--dir_output", str(tmp_path / "b"),
                "--n_pixels_by_us", "7"])
    masks = np.load(tmp_path / "b" / "query.npy")
    assert masks.sum() == 5 * 7 and not (masks & np.load(bare)).any()


def test_the_query_script_needs_no_label_maps(finished: Path, own_camvid: Path,
                                              tmp_path: Path) -> None:
    import query

    for folder in ("trainannot", "testannot"):
        for path in (own_camvid / folder).iterdir():
            path.unlink()
    assert query.main(["--checkpoint", str(finished / "0_query" / "best.pt"), "--dir_dataset",
                       str(own_camvid), "--device", "cpu", "--dir_output", str(tmp_path)]) == 0
    asked = np.load(tmp_path / "query.npy")
    assert asked.sum() == 5 * 4 and not (asked & np.load(finished / "0_query/query.npy")).any()


def test_real_camvid(tmp_path: Path) -> None:
    """Reads the real data and trains a round on eight of its images, from real weights."""
    folder, weights = os.environ.get("CAMVID_DIR"), os.environ.get("MOBILENET_WEIGHTS")
    if not folder or not weights:
        pytest.skip("CAMVID_DIR or MOBILENET_WEIGHTS is not set")
    import train

    assert train.main(["--dataset_name", "camvid", "--dir_dataset", folder, "--weights", weights,
                       "--downsample", "4", "--device", "cpu", "--debug", "--dir_checkpoints",
                       str(tmp_path)]) == 0
    run = tmp_path / "camvid_d4_deeplab_mobilenetv2_margin_sampling_10_p0.05_0_debug"
    assert [row["pixels_total"] for row in rows(run / "metrics.csv")] == ["80", "160"]
    assert np.load(run / "1_query" / "query.npy").shape == (8, 90, 120)
