"""benchmarks/masked_points.py: points as the pixels of masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import datasets.batches
from benchmarks.masked_points import MaskedWarp, main, masked_points, what_masks_do
from datasets.augment import Draw, Warp
from datasets.points import VOID
from tests.conftest import RUN, quick_flags
from tests.datasets.test_augment import draw_of
from tests.test_train import rows
from utils.errors import InputError


def warped(*, pixels: list[tuple[int, int]], size: tuple[int, int] = (4, 6),
           **draw: object) -> dict[int, list[tuple[float, float]]]:
    """Where pixels of labels 0, 1, ... are afterwards, in a batch with an image that has none."""
    points = torch.zeros(2, 5, 2)
    labels = torch.full((2, 5), VOID)
    points[0, :len(pixels)] = torch.tensor(pixels, dtype=torch.float32).view(-1, 2)
    labels[0, :len(pixels)] = torch.arange(len(pixels))
    moved, found = MaskedWarp(Draw.stack([draw_of(**draw)] * 2), sizes=np.tile(size, (2, 1)),
                              crop=size, device=torch.device("cpu")).points(points, labels)
    assert moved.dtype == torch.float32 and found.dtype == torch.int64
    assert (found[1] == VOID).all()
    places: dict[int, list[tuple[float, float]]] = {}
    for place, label in zip(moved[0].tolist(), found[0].tolist(), strict=True):
        if label != VOID:
            places.setdefault(label, []).append(tuple(place))
    return places


def test_masks_at_scale_1_are_the_points() -> None:
    assert warped(pixels=[(0, 0), (3, 5)]) == {0: [(0, 0)], 1: [(3, 5)]}
    assert warped(pixels=[(0, 0), (3, 5)], flip=True) == {0: [(0, 5)], 1: [(3, 0)]}
    assert warped(pixels=[]) == {}


def test_masks_repeat_and_lose_points() -> None:
    assert warped(pixels=[(1, 1), (3, 5)], scale=2.0) == {
        0: [(2, 2), (2, 3), (3, 2), (3, 3)]}  # the other is outside
    assert warped(pixels=[(0, 0), (0, 1), (1, 0), (2, 2)], scale=0.5) == {
        0: [(0, 0)], 3: [(1, 1)]}


def test_what_masks_do() -> None:
    """Below scale 1 a part of scale^2 of the pixels is left, above it there are scale^2 copies."""
    half, same, double = (what_masks_do(scale) for scale in (0.5, 1.0, 2.0))
    assert half["lost"] == pytest.approx(0.75, abs=0.03)
    assert half["copies"] == pytest.approx(0.25, abs=0.03)
    assert (same["lost"], same["copies"]) == (0, 1) and same["moved"] < 1e-4
    assert double["lost"] < 0.01 and double["copies"] == pytest.approx(4, abs=0.1)
    assert 0.6 < double["moved"] < 0.9


def test_training_with_masks(tiny_camvid: Path, tmp_path: Path, capsys) -> None:
    """In a run of its own, in another way than with exact points."""
    words = [*quick_flags(), "--debug", "--dir_dataset", str(tiny_camvid), "--dir_checkpoints",
             str(tmp_path / "runs"), "--suffix", "x", "--max_budget", "4"]
    found = {}
    for points in ("mask", "exact"):
        out = tmp_path / f"{points}.json"
        assert main(["--points", points, "--json", str(out), "--", *words]) == 0
        assert str(tmp_path) not in out.read_text()
        found[points] = json.loads(out.read_text())
        assert [row["scale"] for row in found[points]["masks"]][0] == 0.5
    assert "| scale | lost, % |" in capsys.readouterr().out
    mask, exact = (found[points]["training"] for points in ("mask", "exact"))
    assert (mask["run"], exact["run"]) == (f"{RUN}_x_mask_debug", f"{RUN}_x_debug")
    assert [row["pixels_per_image"] for row in mask["rounds"]] == [4]
    logs = [rows(tmp_path / "runs" / run / "0_query" / "log_train.csv")
            for run in (mask["run"], exact["run"])]
    assert [row["epoch"] for row in logs[0]] == ["1", "2"]
    assert logs[0][0]["loss"] != logs[1][0]["loss"]
    assert (tmp_path / "runs" / mask["run"] / "0_query" / "labels.csv").read_bytes() == (
        tmp_path / "runs" / exact["run"] / "0_query" / "labels.csv").read_bytes()


def test_only_within_it() -> None:
    with pytest.raises(ZeroDivisionError), masked_points():
        assert datasets.batches.Warp is MaskedWarp
        _ = 1 / 0
    assert datasets.batches.Warp is Warp


@pytest.mark.parametrize(("flags", "message"), [
    (["--compile"], "batches of one shape"), (["--n_pixels_by_us", "0"], "has no points")])
def test_bad_input(flags: list[str], message: str) -> None:
    without = ["--n_pixels_by_us", "--max_budget"] if "0" in flags else []
    with pytest.raises(InputError, match=message):
        main(["--", *quick_flags(without=without), *flags])
