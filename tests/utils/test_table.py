"""Tables over seeds, from hand-made runs whose numbers can be checked on paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.errors import InputError
from utils.published import FULL, PUBLISHED
from utils.run_groups import NOT_COMPARED, read_groups
from utils.runs import NOT_THE_EXPERIMENT
from utils.table import main, relative_curves

BASE = {"dataset_name": "camvid", "network_name": "deeplab", "backbone": "mobilenetv2",
        "downsample": 1, "n_pixels_by_us": 10, "n_init_pixels": 10, "max_budget": 20,
        "query_strategy": "margin_sampling", "n_images": None, "n_epochs": 50, "suffix": "",
        "label_noise": 0.0, "weight_type": "supervised", "weights": None, "weights_sha256": None,
        "device": "cpu"}


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """`write_run(seed, mIoUs of the last epoch, **flags)`; the best epoch is 0.1 above, of ten
    images. `scores=None`: nothing has been finished."""
    def write(seed: int, scores: Sequence[float] | None, **flags: object) -> Path:
        flags = BASE | flags | {"seed": seed, "dir_checkpoints": f"somewhere/{seed}"}
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "args.json").write_text(json.dumps({"flags": flags}))
        n = flags["n_pixels_by_us"]
        lines = ["round,pixels_per_image,pixels_total,percent,miou_last,miou_best,train_seconds"]
        for number, score in enumerate(scores or []):
            pixels = (number + 1) * n if n else 172800
            lines.append(f"{number},{pixels},{10 * pixels},{pixels / 1728},{score},{score + 0.1},"
                         f"{10 * seed}")
        if scores is not None:
            (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
        return folder

    return write


@pytest.fixture
def table(capsys: pytest.CaptureFixture) -> Callable[..., list[list[str]]]:
    """`table(*arguments)` -> the cells of all printed rows."""
    def run(*arguments: object) -> list[list[str]]:
        assert main([str(argument) for argument in arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [[cell.strip() for cell in line.strip("|").split("|")]
                for line in lines if line.startswith("|")]

    return run


def test_mean_sample_deviation_and_percent_of_full(write_run, table) -> None:
    """0.2, 0.3, 0.4: mean 30, sample deviation 10; full 0.5 and 0.7: mean 60, deviation
    100 sqrt(0.02) = 14.1; 0.4, 0.5, 0.6 at 20 pixels is 83.3 % of it. Best: 60 of 70, 85.7 %."""
    runs = [write_run(seed, (0.2 + seed / 10, 0.4 + seed / 10)) for seed in range(3)]
    full = [write_run(seed, [score], n_pixels_by_us=0, max_budget=100, query_strategy="entropy")
            for seed, score in enumerate((0.5, 0.7))]
    header, _, last, best, paper, *_ = table(*runs, *full)
    assert header == ["", "epoch", "10", "20", "40", "60", "80", "100", "full masks", "of full, at"]
    assert last[1:] == ["last", "30.0 ± 10.0 (3)", "50.0 ± 10.0 (3)", "", "", "", "",
                        "60.0 ± 14.1 (2)", "83.3 %, 20"]
    assert best[1:4] == ["best", "40.0 ± 10.0 (3)", "60.0 ± 10.0 (3)"] and "85.7" in best[-1]
    assert paper[0].startswith("the paper: camvid, MobileNetv2")
    assert paper[2:] == ["", "50.8 ± 0.2 (5)", "53.9 ± 0.7 (5)", "55.3 ± 0.5 (5)",
                         "55.2 ± 0.7 (5)", "55.9 ± 0.1 (5)", "58.2 ± 0.6 (5)", "96.0 %, 100"]


def test_only_the_seed_is_grouped_over(write_run) -> None:
    """Where and how it was computed does not count; a row is called by what differs."""
    runs = [write_run(0, [0.1]), write_run(1, [0.1], device="cuda", max_budget=100),
            write_run(0, [0.1], query_strategy="random"),
            write_run(0, [0.1], label_noise=0.2, suffix="noisy")]
    groups = read_groups(runs)
    assert [len(group.runs) for group in groups] == [2, 1, 1]
    assert [group.label for group in groups] == [
        "margin_sampling, label_noise 0.0", "random, label_noise 0.0",
        "margin_sampling, label_noise 0.2"]


@pytest.mark.parametrize(("variants", "labels"), [
    ([{"suffix": "a"}, {"suffix": "b"}], ["suffix a", "suffix b"]),
    ([{"n_pixels_by_us": 10}, {"n_pixels_by_us": 20, "n_init_pixels": 20}],
     ["n_pixels_by_us 10", "n_pixels_by_us 20"]),
    ([{"weight_type": "random"},
      {"weight_type": "file", "weights": "/a/b.pth", "weights_sha256": "1f"}],
     ["weight_type random", "weights b.pth"]),
    ([{"backbone": "resnet50", "network_name": "FPN", "weight_decay": 1e-4}, {}],
     ["FPN, resnet50", "deeplab, mobilenetv2"]),
    ([{"n_pixels_by_us": 0, "backbone": "resnet18"}, {"backbone": "resnet34"}],
     ["resnet18, full masks", "resnet34"]),
    ([{"use_mc_dropout": True}, {"use_mc_dropout": False}],
     ["use_mc_dropout", "as the recipe says"]),
    ([{"ema": 0.0}, {"ema": 0.9, "recipe": "plus"}, {"ema": 0.9, "focal": 2.0, "recipe": "plus"}],
     ["recipe paper, focal 0.0", "recipe plus, focal 0.0", "recipe plus, focal 2.0"]),
    # Many flags: what the first run has goes without saying.
    ([{"query_strategy": "random"}, {"lr": 0.1}, {"ema": 0.9}, {"init_query": "/a/b.json"},
      {"focal": 2.0, "lr": 0.1}],
     ["random", "margin_sampling, lr 0.1", "margin_sampling, ema 0.9",
      "margin_sampling, init_query b.json", "margin_sampling, focal 2.0, lr 0.1"]),
    # But not what it has and others lack.
    ([{"freeze_bn": True, "n_images": 9}, {"freeze_bn": False, "n_images": 9}, {"freeze_bn": True},
      {"freeze_bn": True, "n_images": 9, "ema": 0.9, "lr": 0.1}],
     ["as the recipe says", "without freeze_bn", "without n_images", "ema 0.9, lr 0.1"]),
])
def test_labels(variants: list[dict], labels: list[str], write_run) -> None:
    groups = read_groups([write_run(0, [0.1], **variant) for variant in variants])
    assert [group.label for group in groups] == labels


def test_full_supervision_belongs_to_its_own_network(write_run) -> None:
    """And to all images, although the points were on some."""
    points = [write_run(0, [0.3], n_images=36, n_epochs=500, backbone=b) for b in ("resnet18",
                                                                                 "resnet34")]
    full = [write_run(0, [0.5], n_pixels_by_us=0, backbone="resnet18", n_images=36),
            write_run(0, [0.6], n_pixels_by_us=0, backbone="resnet18")]
    groups = {group.label: group for group in read_groups([*points, *full])}
    first, second = (group for group in groups.values() if not group.is_full)
    assert first.percent_of_full("miou_last") == (pytest.approx(50), 10)
    assert second.full is None and second.percent_of_full("miou_last") is None


def comparisons(rows: list[list[str]]) -> list[list[str]]:
    """The cells without the group."""
    at = rows.index(["", "epoch", "at", "difference", "p", "pairs", "verdict"])
    return [row[1:] for row in rows[at + 2:] if len(row) == 7]


def test_compared_at_every_common_budget(write_run, table, tmp_path) -> None:
    """By seed at 10 pixels: differences 0.28 and 0.30, mean 0.29, standard error 0.01, t = 29 with
    one degree of freedom: p = 2 / pi * atan(1 / 29) = 0.022. The second row has 20 pixels with one
    of two seeds; the third none of the first's budgets."""
    runs = [write_run(s, (0.2 + s / 50, 0.3 + s / 50)) for s in (0, 1)]
    runs += [write_run(0, [0.48, 0.7], query_strategy="random"),
             write_run(1, [0.52], query_strategy="random")]
    runs += [write_run(0, [0.5], query_strategy="entropy", n_pixels_by_us=7, n_init_pixels=7)]
    rows = table(*runs, "--json", tmp_path / "numbers.json")
    assert comparisons(rows) == [
        [epoch, *cells] for epoch in ("last", "best") for cells in (
            ["10", "+29.0 ± 1.0", "0.022", "2", "higher"], ["20", "+39.0", "", "", "one seed"])
    ] + [["", "", "", "", "", "no budget in common"]]
    first = json.loads((tmp_path / "numbers.json").read_text())["comparisons"][0]
    assert first == {"group": "n_pixels_by_us 10, random", "with":
                     "n_pixels_by_us 10, margin_sampling", "metric": "miou_last", "budget": "10",
                     "difference": 0.29, "standard_error": 0.01, "p": 0.0219, "pairs": 2,
                     "verdict": "higher"}


def test_other_seeds_are_compared_by_their_means(write_run, table) -> None:
    runs = [write_run(s, [0.40 + s / 50], max_budget=10) for s in (0, 1)]
    runs += [write_run(s, [0.39 + s / 50], query_strategy="random", max_budget=10) for s in (2, 3)]
    assert comparisons(table(*runs))[0] == ["last", "10", "+3.0 ± 1.4", "", "unpaired", "higher"]


def test_budget_of_all_images_together(write_run) -> None:
    """Ten images in these files: 10 pixels each are 100."""
    (group,) = read_groups([write_run(0, (0.1, 0.2))], budget="total")
    assert group.budgets == [100, 200]


def test_unfinished_runs_are_named_and_left_out(write_run, table, capsys, tmp_path) -> None:
    runs = [write_run(0, (0.2, 0.4)), write_run(1, [0.4]), write_run(2, None),
            write_run(3, (0.4, float("nan")))]
    (tmp_path / "studies").mkdir()
    _, _, last, *_ = table(*runs, tmp_path / "studies")
    assert last[2:4] == ["33.3 ± 11.5 (3)", "40.0 (1)"]
    main([str(run) for run in [*runs, tmp_path / "studies"]])
    said = capsys.readouterr().err
    assert [f"{run.name} has {n} of 2 rounds" in said for run, n in zip(runs, "2101", strict=True)
            ] == [False, True, True, True]
    assert "studies is no run" in said


def test_mistakes_are_one_line(write_run, tmp_path) -> None:
    twice = [write_run(0, [0.1]), write_run(0, [0.2])]
    with pytest.raises(InputError, match="twice"):
        main([str(run) for run in twice])
    with pytest.raises(InputError, match="none of these"):
        main([str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="none of the runs has finished"):
        main([str(write_run(5, None))])
    (twice[0] / "metrics.csv").write_text("round,pixels\n0,many\n")
    with pytest.raises(InputError, match="metrics.csv"):
        main([str(twice[0])])


def test_pictures_and_numbers(write_run, table, tmp_path) -> None:
    runs = [write_run(seed, (0.3 + seed / 10, 0.5)) for seed in (0, 1)]
    runs += [write_run(0, [0.6], n_pixels_by_us=0)]
    files = [tmp_path / name for name in ("curve.png", "published.png", "numbers.json",
                                          "largest.png")]
    table(*runs, "--metric", "miou_best", "--png", files[0], "--published_png", files[1],
          "--json", files[2], "--largest_png", files[3])
    for picture in (files[0], files[1], files[3]):
        pixels = np.asarray(Image.open(picture).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # lines, bands, letters
    rows = json.loads(files[2].read_text())["rows"]
    assert [(row["budget"], row["strategy"], row["n_runs"]) for row in rows] == [
        ("10", "margin_sampling", 2), ("20", "margin_sampling", 2), ("full", "full", 1)]
    assert rows[0]["miou_last_runs"] == [0.3, 0.4] and rows[0]["miou_last_mean"] == 0.35
    assert rows[0]["miou_last_std"] == 0.07071 and rows[0]["train_seconds_mean"] == 5
    assert rows[1]["miou_last_percent_of_full"] == 83.33 and rows[2]["pixels_per_image"] == 172800


def test_beside_published_results(write_run, table) -> None:
    run, unfinished = (write_run(seed, miou, dataset_name="cityscapes", downsample=4)
                       for seed, miou in enumerate([(0.3, 0.5), [0.3]]))
    rows = table(run, unfinished)
    at = next(number for number, row in enumerate(rows) if row[0] == "method")
    methods = [row[0] for row in rows[at + 2:]]
    assert methods[0].startswith("ours")
    assert methods[2:8] == ["PixelPick"] * 2 + ["MADBAL"] * 2 + ["EquAL"] * 2
    assert rows[at + 2][3:6] == ["20 px", "0.0116", "50.0 (1)"]  # 20 of 172800
    assert rows[at + 2][9] == "last epoch, 1 run"  # the other one has not come so far
    shown = {(row[0], row[2]): row[3:8] for row in rows[at + 2:]}
    assert shown["PixelPick", "ResNet50"] == ["100 px", "0.0763", "62.8 ± 0.4 (5)",
                                              "68.5 ± 0.3 (5)", "91.7 %"]
    assert shown["MADBAL", "MobileNetv2"] == ["100 px", "", "63.6", "66.5", "95.6 %"]
    assert shown["EquAL", "FCN, ResNet50"] == ["12 % of data", "12", "64.9", "67.7", "95.9 %"]
    assert shown["CEREALS", "FCN8s"] == ["17 % of effort", "", "", "", "95.0 %"]
    assert rows[at + 6][-1] == "BMVC 2023"


def test_curves_relative_to_full_supervision(write_run) -> None:
    """0.3 and 0.5, 0.4 and 0.6 of 0.8: 43.75 and 68.75 %; deviation 100 sqrt(0.005) / 0.8 = 8.84.
    What has no full supervision, or no budget in pixels, is not shown."""
    runs = [write_run(seed, (0.3 + seed / 10, 0.5 + seed / 10)) for seed in (0, 1)]
    runs += [write_run(0, [0.8], n_pixels_by_us=0), write_run(0, [0.2], backbone="other")]
    groups = read_groups(runs)
    ours, pixelpick, *_ = found = relative_curves(groups, "miou_last", PUBLISHED)
    assert ours.label == groups[0].label and ours.full is None
    assert ours.pixels == pytest.approx([10 / 1728, 20 / 1728])
    assert ours.mean == pytest.approx([43.75, 68.75])
    assert ours.std == pytest.approx([8.8388, 8.8388], abs=1e-3)
    assert pixelpick.pixels[-1] == pytest.approx(0.058, abs=1e-3)
    assert pixelpick.mean[-1] == pytest.approx(96.0, abs=0.1) and pixelpick.std[-1] > 0.1
    shown = {curve.label.split(" (")[0] for curve in found[1:]}
    assert shown == {"PixelPick", "EquAL", "S4AL+", "spatial diversity"}
    s4al = next(curve for curve in found if curve.label.startswith("S4AL+"))
    assert (s4al.pixels, s4al.mean) == ([12.1], [95])


def test_published_numbers_are_whole() -> None:
    """Recipe: at 100 pixels on Cityscapes MADBAL has 95.6 % of full supervision, PixelPick 92.0."""
    points = [row for row in PUBLISHED if row.percent_of is None]
    assert all(len(row.miou) >= 5 for row in points)
    assert all(FULL in row.miou and (row in points or row.largest < 100) for row in PUBLISHED)
    voc = next(row for row in points if row.dataset == "voc")  # its README says 0.009 ... 0.043
    assert [round(voc.percent_of_pixels(n), 3) for n in (10, 20, 30, 40, 50)] == [
        .009, .017, .026, .034, .043]
    percents = [round(row.percent_of_full, 1) for row in points
                if (row.dataset, row.backbone) == ("cityscapes", "MobileNetv2")]
    assert percents == [92.0, 95.6]


def test_what_is_not_compared_is_not_the_experiment() -> None:
    assert NOT_COMPARED == NOT_THE_EXPERIMENT | {"seed"}
