"""Annotators who make mistakes: how many, which, and that they are fixed (or not) per pixel."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

import args as flags
from datasets import DATASETS
from datasets.images import read_label, resize_label
from datasets.noise import LabelNoise
from datasets.points import VOID, Points
from tests.conftest import RUN
from utils.errors import InputError
from utils.experiment import Experiment

N_CLASSES = 7


def points(n_images: int = 40, per_image: int = 100) -> Points:
    rng = np.random.default_rng(3)
    n = n_images * per_image
    return Points(np.repeat(np.arange(n_images), per_image), rng.integers(0, 99, n),
                  rng.integers(0, 99, n), rng.integers(VOID, N_CLASSES, n))


def noise(p: float, *, redraw: bool = False, seed: int = 0) -> LabelNoise:
    return LabelNoise(p=p, redraw=redraw, n_classes=N_CLASSES, seed=seed)


def test_none() -> None:
    asked = points()
    assert noise(0).apply(asked, round_index=1) is asked


@pytest.mark.parametrize("redraw", [False, True])
def test_all_are_wrong_and_void_stays(redraw: bool) -> None:
    asked = points()
    before = asked.label.copy()
    noisy = noise(1, redraw=redraw).apply(asked, round_index=1, use=4)
    void = asked.label == VOID
    assert void.any() and (noisy.label[void] == VOID).all()
    assert (noisy.label[~void] != asked.label[~void]).all()
    assert noisy.label[~void].min() == 0 and noisy.label.max() == N_CLASSES - 1
    for name in ("image", "y", "x"):
        assert np.array_equal(getattr(noisy, name), getattr(asked, name))
    assert np.array_equal(asked.label, before)


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_the_wrong_classes_are_uniform(p: float) -> None:
    asked = points(n_images=200)
    noisy = noise(p).apply(asked, round_index=2)
    valid = asked.label != VOID
    wrong = valid & (noisy.label != asked.label)
    assert wrong.sum() / valid.sum() == pytest.approx(p, abs=0.02)
    for true in range(N_CLASSES):
        counts = np.bincount(noisy.label[wrong & (asked.label == true)], minlength=N_CLASSES)
        assert counts[true] == 0
        assert chisquare(np.delete(counts, true)).pvalue > 1e-4


def test_two_classes_are_swapped() -> None:
    asked = Points(*np.zeros((3, 4), int), np.array([0, 1, VOID, 1]))
    two = LabelNoise(p=1, redraw=False, n_classes=2, seed=0)
    assert two.apply(asked, round_index=1).label.tolist() == [1, 0, VOID, 0]


def test_drawn_once_unless_redrawn() -> None:
    asked, fixed, redrawn = points(), noise(0.5), noise(0.5, redraw=True)
    labels = [fixed.apply(asked, round_index=1, use=use).label for use in (0, 1, 7)]
    assert all(np.array_equal(labels[0], other) for other in labels)
    first, again, other = (redrawn.apply(asked, round_index=1, use=use).label for use in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    for different in (fixed.apply(asked, round_index=2), noise(0.5, seed=1).apply(
            asked, round_index=1)):
        assert not np.array_equal(labels[0], different.label)


def test_an_images_mistakes_depend_on_no_other_image() -> None:
    asked = points()
    whole = noise(0.5).apply(asked, round_index=1)
    for image in (0, 17):
        mine = asked.image == image
        alone = Points(*(getattr(asked, name)[mine] for name in ("image", "y", "x", "label")))
        assert np.array_equal(noise(0.5).apply(alone, round_index=1).label, whole.label[mine])


Supervision = dict[int, list[tuple[np.ndarray, np.ndarray]]]


@pytest.fixture
def supervised(run_train, tmp_path: Path,
               monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, Supervision]]:
    """`supervised(*flags)`: a run of three rounds, and (y, x) and labels for its networks, by round
    and epoch."""
    seen: Supervision = {}
    fit = Experiment.fit

    def watched(self: Experiment, folder: Path, round_index: int, *, supervision, **more):
        seen[round_index] = [supervision(epoch) for epoch in (0, 1)]
        return fit(self, folder, round_index, supervision=supervision, **more)

    monkeypatch.setattr(Experiment, "fit", watched)

    def run(*more: str) -> tuple[Path, Supervision]:
        seen.clear()
        out = run_train("--n_epochs", "1", "--max_budget", "12", *more,
                        out=tmp_path / "_".join(more).replace("-", ""))
        return out / RUN, dict(seen)

    return run


def truth_of(data: Path) -> np.ndarray:
    """(image, y, x) on the grid of a quick run."""
    return np.stack([resize_label(read_label(path, spec=DATASETS["camvid"]), (30, 40))
                     for path in sorted((data / "trainannot").iterdir())])


def correct(supervision: tuple[np.ndarray, np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Per image and point, whether the label is the true one."""
    coordinates, labels = supervision
    y, x = np.moveaxis(coordinates.astype(int), -1, 0)
    return labels == truth[np.arange(len(truth))[:, None], y, x]


def test_a_run_is_taught_mistakes_but_records_what_was_answered(supervised,
                                                                tiny_camvid: Path) -> None:
    run, seen = supervised("--label_noise", "1")
    truth = truth_of(tiny_camvid)
    names = [f"train/{path.name}" for path in sorted((tiny_camvid / "train").iterdir())]
    for r in range(3):
        with open(run / f"{r}_query" / "labels.csv", newline="") as file:
            for row in csv.DictReader(file):
                place = names.index(row["image"]), int(row["y"]), int(row["x"])
                assert int(row["label"]) == truth[place]
    assert correct(seen[0][0], truth).shape == (5, 4) and correct(seen[0][0], truth).all()
    for r in (1, 2):
        for epoch in (0, 1):
            right = correct(seen[r][epoch], truth)
            assert right.shape == (5, 4 * (r + 1))
            assert right[:, :4].all() and not right[:, 4:].any()
        assert np.array_equal(seen[r][0][1], seen[r][1][1])  # in every epoch
    assert np.array_equal(seen[2][0][1][:, :8], seen[1][0][1])  # and round


def test_the_number_of_workers_changes_no_mistake(supervised) -> None:
    (one, first), (three, second) = (
        supervised("--label_noise", "0.5", "--n_workers", n) for n in ("1", "3"))
    assert (one / "2_query/labels.csv").read_bytes() == (three / "2_query/labels.csv").read_bytes()
    for r in range(3):
        for ours, theirs in zip(first[r], second[r], strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_redrawn_in_every_epoch(supervised, tiny_camvid: Path) -> None:
    _, seen = supervised("--label_noise", "1", "--label_noise_redraw")
    truth = truth_of(tiny_camvid)
    for r in (1, 2):
        right = [correct(seen[r][epoch], truth) for epoch in (0, 1)]
        assert right[0][:, :4].all() and not right[0][:, 4:].any()
        assert np.array_equal(*right)
        assert not np.array_equal(seen[r][0][1], seen[r][1][1])
        assert np.array_equal(seen[r][0][0], seen[r][1][0])


@pytest.mark.parametrize(("given", "message"), [
    (["--label_noise_redraw"], "label_noise_redraw has no meaning without --label_noise"),
    (["--label_noise", "0.1", "--labeller", "human"], "people make their own"),
    (["--label_noise", "0.1", "--n_pixels_by_us", "0"], "label_noise has no meaning with"),
    (["--label_noise", "1.5"], "label_noise.*fraction between 0 and 1"),
])
def test_flags_without_a_meaning(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        flags.parse_arguments(["--dataset_name", "cv", *given])
