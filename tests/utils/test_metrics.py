"""Metrics, statistics of a query, optimisers, schedules and seeds."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from datasets.points import VOID, Points
from utils.metrics import ConfusionMatrix, flat_scores, segmentation_scores
from utils.optimisation import SCHEDULES, build_optimizer, build_schedule
from utils.seeds import random_generator, seed_of
from utils.statistics import answer_statistics, query_statistics

# --- metrics ----------------------------------------------------------------------------------


def counted_slowly(predictions: np.ndarray, labels: np.ndarray, n_classes: int,
                   ignore_index: int) -> list[list[int]]:
    counts = [[0] * n_classes for _ in range(n_classes)]
    for prediction, label in zip(predictions.ravel().tolist(), labels.ravel().tolist(),
                                 strict=True):
        if label != ignore_index:
            counts[label][prediction] += 1
    return counts


def scores_slowly(predictions: np.ndarray, labels: np.ndarray, n_classes: int,
                  ignore_index: int) -> dict[str, float | list[float]]:
    """From sets of pixels."""
    counted = np.flatnonzero(labels.ravel() != ignore_index).tolist()
    p, t = predictions.ravel(), labels.ravel()
    ious, recalls = [], []
    for c in range(n_classes):
        predicted = {i for i in counted if p[i] == c}
        true = {i for i in counted if t[i] == c}
        ious.append(len(predicted & true) / len(predicted | true) if predicted | true else math.nan)
        if true:
            recalls.append(len(predicted & true) / len(true))
    known = [iou for iou in ious if not math.isnan(iou)]
    return {"miou": sum(known) / len(known), "mean_accuracy": sum(recalls) / len(recalls),
            "pixel_accuracy": sum(p[i] == t[i] for i in counted) / len(counted), "iou": ious}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize(("n_classes", "ignore_index"), [(3, 255), (11, 11), (5, 2)])
def test_confusion_and_scores_against_a_slow_count(n_classes, ignore_index, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, (3, 2, 9, 7))
    labels[rng.random(labels.shape) < 0.2] = ignore_index
    predictions = np.where(rng.random(labels.shape) < 0.6, labels % n_classes,
                           rng.integers(0, n_classes, labels.shape))
    confusion = ConfusionMatrix(n_classes, ignore_index=ignore_index, device=torch.device("cpu"))
    for batch in range(3):
        confusion.update(torch.from_numpy(predictions[batch]).to(dtype),
                         torch.from_numpy(labels[batch]).to(dtype))
    counts = confusion.compute()
    assert counts.dtype == np.int64
    assert counts.tolist() == counted_slowly(predictions, labels, n_classes, ignore_index)
    found = segmentation_scores(counts)
    expected = scores_slowly(predictions, labels, n_classes, ignore_index)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_absent_classes_are_left_out_of_the_means():
    """Class 1 occurs nowhere; class 2 is predicted but never true: an IoU of 0, no recall."""
    scores = segmentation_scores(np.array([[3, 0, 1], [0, 0, 0], [0, 0, 0]]))
    assert scores["iou"][0] == 0.75 and math.isnan(scores["iou"][1]) and scores["iou"][2] == 0
    assert scores["miou"] == 0.375
    assert scores["mean_accuracy"] == scores["pixel_accuracy"] == 0.75


def test_no_labelled_pixel_at_all():
    confusion = ConfusionMatrix(3, ignore_index=255, device=torch.device("cpu"))
    confusion.update(torch.zeros(1, 4, 4, dtype=torch.long), torch.full((1, 4, 4), 255))
    scores = segmentation_scores(confusion.compute())
    assert all(math.isnan(scores[name]) for name in ("miou", "pixel_accuracy", "mean_accuracy"))


def test_flat_scores_have_a_column_for_each_class():
    row = {"epoch": 3, "miou": 0.5, "iou": [0.25, 0.75]}
    assert flat_scores(row, ["sky", "sign symbol"]) == {
        "epoch": 3, "miou": 0.5, "iou_sky": 0.25, "iou_sign_symbol": 0.75}
    assert "iou" in row


# --- statistics of a query --------------------------------------------------------------------

# Three images in mixed order: the first has a 3-4-5 triangle, the second one pixel, the third
# none.
ANSWERS = Points(image=np.array([1, 0, 0, 0]), y=np.array([9, 0, 3, 0]), x=np.array([9, 0, 4, 4]),
                 label=np.array([2, 0, 0, VOID]))


def test_query_statistics_of_a_hand_made_case():
    pixels = [ANSWERS.of_image(i) for i in range(3)]
    found = query_statistics(pixels, seconds=1.5, entropies=np.array([0.1, 0.2, 0.3, 0.8]))
    assert found["n_pixels"] == 4 and found["seconds"] == 1.5
    assert found["spatial_spread"] == pytest.approx((5 + 4 + 3) / 3)
    assert found["mean_entropy"] == pytest.approx(0.35)


def test_answer_statistics_of_a_hand_made_case():
    found = answer_statistics(ANSWERS, n_images=3, class_names=["a", "b", "c"])
    assert found["n_answered"] == 4 and found["n_void"] == 1
    assert found["label_distribution"] == pytest.approx({"a": 2 / 3, "b": 0, "c": 1 / 3})
    assert found["classes_per_image"] == pytest.approx((1 + 1 + 0) / 3)  # void is no class


def test_query_statistics_without_entropies_or_pairs_or_answers():
    one = Points(*(np.array([v]) for v in (1, 2, 3, VOID)))
    none = Points(*(np.zeros(0, np.int64) for _ in range(4)))
    for points, entropies in ((one, None), (none, np.zeros(0)), (none, None)):
        found = query_statistics([points.of_image(i) for i in range(2)], seconds=0.0,
                                 entropies=entropies) | answer_statistics(
            points, n_images=2, class_names=["a", "b"])
        assert found["label_distribution"] == {"a": 0, "b": 0}
        assert found["classes_per_image"] == 0
        assert found["spatial_spread"] is None and found["mean_entropy"] is None


# --- optimisers and schedules -----------------------------------------------------------------


class Network(nn.Module):
    """Something with a backbone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.decoder = nn.Linear(4, 2)


OPTIMISATION = {"lr": 1e-2, "backbone_lr_factor": 0.1, "weight_decay": 3e-4}


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_backbone_learns_at_its_own_rate(name):
    network = Network()
    optimizer = build_optimizer(network, name=name, **OPTIMISATION)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(rate_of) == 6
    for parameter_name, parameter in network.named_parameters():
        expected = 1e-3 if parameter_name.startswith("backbone.") else 1e-2
        assert rate_of[id(parameter)] == pytest.approx(expected), parameter_name
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 3e-4


def test_optimisers_are_the_recipes():
    adam, sgd = (build_optimizer(Network(), name=name, **OPTIMISATION) for name in ("adam", "sgd"))
    assert isinstance(adam, torch.optim.Adam) and not isinstance(adam, torch.optim.AdamW)
    assert adam.defaults["betas"] == (0.9, 0.999) and adam.defaults["eps"] == 1e-7
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["momentum"] == 0.9


def rates(name: str, *, n_steps: int) -> np.ndarray:
    """`(n_steps, 2)`: what each step is made with, in the decoder and in the backbone."""
    network = Network()
    optimizer = build_optimizer(network, name="sgd", **OPTIMISATION)
    schedule, found = build_schedule(optimizer, name=name, n_steps=n_steps), []
    for _ in range(n_steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        network.decoder(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        schedule.step()
    return np.array(found)


@pytest.mark.parametrize("steps_per_epoch", [1, 7, 92])
def test_multistep_drops_after_20_and_40_of_50_epochs(steps_per_epoch):
    found = rates("multistep", n_steps=50 * steps_per_epoch)
    expected = np.repeat([1e-2, 1e-3, 1e-4], np.array([20, 20, 10]) * steps_per_epoch)
    np.testing.assert_allclose(found, np.stack([expected, expected / 10], axis=1))


def test_poly_and_constant():
    expected = 1e-2 * (1 - np.arange(40) / 40) ** 0.9
    np.testing.assert_allclose(rates("poly", n_steps=40),
                               np.stack([expected, expected / 10], axis=1))
    np.testing.assert_allclose(rates("constant", n_steps=5), np.tile([1e-2, 1e-3], (5, 1)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_start_at_the_full_rate_and_stay_positive(name):
    factors = [SCHEDULES[name](step / 100) for step in range(100)]
    assert factors[0] == 1 and min(factors) > 0
    assert (np.diff(factors) <= 0).all()


# --- seeds ------------------------------------------------------------------------------------


def test_seed_depends_on_every_part_of_the_key():
    keys = [*itertools.product((0, 1), ("train", "query"), (0, 1, 2), ("a.png", "b.png")),
            (0, "train", "a.png", 0), (0, 0, "train", "a.png"), ("train", 0, 0, "a.png"),
            (0, "train", 0, 0, "a.png"), (0, "train", 0, 1, "a.png"), (2**40, "train", 0, "a.png")]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert all(0 <= seed_of(*key) < 2**63 for key in keys)


@pytest.mark.parametrize("part", [0, ""])
def test_a_longer_key_is_another_key(part):
    assert seed_of(7, "network") != seed_of(7, "network", part)


def test_same_key_same_draws():
    assert seed_of(3, "query", 0, "é.png") == seed_of(3, "query", 0, "é.png")
    first, second = (random_generator(3, "query", 0, "a.png").random(5) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_seeds_are_the_same_in_every_process(hash_seed):
    """Python's own hash of a string is not."""
    program = "from utils.seeds import seed_of; print(seed_of(3, 'query', 0, 'a.png'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True, cwd=Path(__file__).resolve().parents[2],
                          env=os.environ | {"PYTHONHASHSEED": hash_seed})
    assert int(done.stdout) == seed_of(3, "query", 0, "a.png")
