"""Several processes: the same mathematics, the same pixels, one end."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import args
import query
import train
from datasets import DATASETS
from datasets.batches import Splitting, n_batches
from datasets.points import VOID
from datasets.split import LoadedSplit, load_split
from networks.decoder import _batch_norm
from tests.conftest import RUN, quick_flags
from tests.processes import run_in_processes
from tests.test_train import REPOSITORY, rows
from utils.distributed import process_group, rank, world_size
from utils.errors import InputError

# --- how a batch is split -----------------------------------------------------------------------


@pytest.mark.parametrize("n_images", range(2, 13))
@pytest.mark.parametrize(("world_size", "n_pieces"), [(1, 1), (2, 1), (1, 3), (2, 2), (4, 1)])
@pytest.mark.parametrize("smallest", [1, 2])
def test_pieces_are_the_batch(n_images, world_size, n_pieces, smallest):
    """Every image counts once; no piece is too small; sizes differ by one at most."""
    batch = np.random.default_rng(0).permutation(50)[:n_images]
    pieces = [piece for r in range(world_size) for piece in Splitting(
        rank=r, world_size=world_size, n_pieces=n_pieces, smallest_piece=smallest).pieces(batch)]
    assert len(pieces) == world_size * n_pieces
    counting = np.concatenate([index[:n_own] for index, n_own in pieces])
    assert sorted(counting) == sorted(batch)
    assert np.ptp([n_own for _, n_own in pieces]) <= 1
    for index, n_own in pieces:
        assert len(index) == max(n_own, smallest) and set(index) <= set(batch)
        assert len(set(index)) == len(index)


def test_one_process_has_all_of_a_batch_in_its_order():
    (index, n_own), = Splitting().pieces(np.array([3, 1, 2]))
    assert index.tolist() == [3, 1, 2] and n_own == 3
    assert [n_batches(9, 4, smallest=smallest) for smallest in (1, 2)] == [3, 2]


@pytest.mark.parametrize(("flags", "world_size", "message"), [
    ((), 4, "--batch_size 4: 4 processes with --grad_accum 1 need at least 2 images.*give "
            "--batch_size 8 or more.* product at most 2.*--sync_bn"),
    (("--grad_accum", "3"), 1, "1 process with --grad_accum 3.* --batch_size 6 or more"),
    (("--freeze_bn", "--grad_accum", "3"), 2, "at least 1 image each: give --batch_size 6"),
])
def test_batches_too_small_to_split(flags, world_size, message):
    parsed = args.parse_arguments(["--dataset_name", "cv", *flags])
    with pytest.raises(InputError, match=message):
        args.splitting_kwargs(parsed, rank=0, world_size=world_size)
    assert args.splitting_kwargs(parsed, rank=0, world_size=1) if world_size > 1 else True


def test_flags_without_a_meaning(tiny_camvid: Path, tmp_path: Path):
    with pytest.raises(InputError, match="--sync_bn has no meaning with --freeze_bn"):
        args.parse_arguments(["--dataset_name", "cv", "--sync_bn", "--freeze_bn"])
    with pytest.raises(InputError, match="--sync_bn works on GPUs, not on the device cpu"):
        train.main([*quick_flags(), "--sync_bn", "--dir_dataset", str(tiny_camvid),
                    "--dir_checkpoints", str(tmp_path)])


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_shares_are_all_images_in_batches_of_one_size(n):
    sizes = np.array([[4, 6], [6, 4], [4, 6], [5, 5], [4, 6], [6, 4], [4, 6]])
    split = LoadedSplit(names=[str(i) for i in range(7)], sizes=sizes, labels=None,
                        images=np.zeros((7, 6, 6, 3), np.uint8))
    shares = [list(split.batches(2, share=(k, n))) for k in range(n)]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(7))
    assert all(len(np.unique(sizes[batch], axis=0)) == 1 for share in shares for batch in share)
    assert np.ptp([sum(map(len, share)) for share in shares]) <= 1


# --- the same mathematics -----------------------------------------------------------------------

SAME = ("--backbone", "resnet18", "--freeze_bn", "--mc_dropout_p", "0", "--optimizer", "sgd",
        "--lr", "0.05", "--n_epochs", "1", "--amp", "off")
BALANCED = ("--class_balance", "0.5", "--logit_adjustment", "1", "--focal", "1.5", "--ema", "0.5")
CASES = {
    "1 image over 2": ("--batch_size", "4"),
    "pieces": ("--batch_size", "4", "--grad_accum", "2"),
    "label maps, 3 images over 2": ("--batch_size", "3", "--n_pixels_by_us", "0"),
    "one labelled image": ("--batch_size", "4"),
    "balanced": ("--batch_size", "4", *BALANCED),
    "balanced pieces": ("--batch_size", "4", "--grad_accum", "2", *BALANCED),
}


def fit(data: Path, out: Path, case: str) -> tuple[float, dict[str, Tensor], np.ndarray]:
    """An epoch without dropout: mean loss, state of the network, confusion matrix."""
    without = ["--max_budget", "--n_pixels_by_us"] if "--n_pixels_by_us" in CASES[case] else []
    parsed = args.parse_arguments([
        *quick_flags(without=without), *SAME, *CASES[case], "--dir_dataset", str(data),
        "--dir_checkpoints", str(out)])
    folder = out / case / str(world_size())
    experiment = train.build_experiment(parsed, folder, spec=args.spec_of(parsed),
                                        with_labels=True)
    build = experiment.fresh_network

    def fresh_network() -> nn.Module:
        network = build()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return network

    if case.startswith("label maps"):
        supervision = None, experiment.train.grid_labels()
    else:
        rng = np.random.default_rng(0)
        points = rng.uniform(0, (30, 40), (5, 6, 2)).astype(np.float32)
        labels = rng.integers(0, 11, (5, 6))
        labels[1, 3:] = VOID
        if case == "one labelled image":
            labels[1:] = VOID
        supervision = points, labels
    experiment = dataclasses.replace(experiment, fresh_network=fresh_network)
    training = experiment.fit(folder, 0, supervision=lambda _: supervision)
    confusion = experiment.predictor.evaluate(training.network, experiment.val, n_classes=11,
                                              autocast=experiment.autocast)
    return training.log_train[0]["loss"], training.network.state_dict(), confusion


def fit_all(data: Path, out: Path) -> dict[str, tuple]:
    with process_group():
        return {case: fit(data, out, case) for case in CASES}


@pytest.fixture(scope="module")
def in_two(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple]]:
    return run_in_processes(2, fit_all, tiny_camvid, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def alone(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    return fit_all(tiny_camvid, tmp_path_factory.mktemp("alone"))


def assert_same_training(ours: tuple, expected: tuple) -> None:
    assert ours[0] == pytest.approx(expected[0], rel=1e-5)
    for name, tensor in expected[1].items():
        torch.testing.assert_close(ours[1][name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_do_what_one_does(case, in_two, alone):
    first, second = (of_rank[case] for of_rank in in_two)
    assert_same_training(first, alone[case])
    assert first[0] == second[0] and np.array_equal(first[2], second[2])
    assert all(torch.equal(tensor, second[1][name]) for name, tensor in first[1].items())
    assert first[2].sum() == alone[case][2].sum() > 0  # every pixel of the validation set


def test_pieces_do_what_the_batch_does(alone):
    assert_same_training(alone["pieces"], alone["1 image over 2"])
    assert_same_training(alone["balanced pieces"], alone["balanced"])
    for other in ("one labelled image", "balanced"):
        with pytest.raises(AssertionError):  # which other labels and losses do not
            assert_same_training(alone[other], alone["1 image over 2"])


def normed(sample: Tensor, x: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """SyncBatchNorm on windows: output, gradients of sample and input, running statistics."""
    norm = nn.SyncBatchNorm(4)
    sample, x = sample.clone().requires_grad_(), x.clone().requires_grad_()
    y = _batch_norm(norm, x, sample=sample, weights=weights)
    (y * torch.linspace(0, 1, y.shape[0])[:, None, None, None]).square().sum().backward()
    return y.detach(), sample.grad, x.grad, norm.running_mean, norm.running_var


def normed_share(*tensors: Tensor) -> tuple[Tensor, ...]:
    with process_group():
        own = [t[rank()::world_size()] for t in tensors]
        return normed(*own)


def test_sync_bn_of_windows_is_that_of_all_processes():
    generator = torch.Generator().manual_seed(0)
    sample, weights = (torch.rand(6, c, 2, 2, generator=generator) for c in (4, 1))
    x = torch.rand(2, 4, 2, 2, generator=generator).repeat_interleave(2, dim=0)
    # The same output weights on both ranks: `linspace` over two images each.
    first, second = run_in_processes(2, normed_share, sample, x, weights)
    norm = nn.BatchNorm2d(4)
    whole_sample, whole_x = sample.clone().requires_grad_(), x.clone().requires_grad_()
    y = _batch_norm(norm, whole_x, sample=whole_sample, weights=weights)
    (y * torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None, None, None]).square().sum().backward()
    expected = y.detach(), whole_sample.grad, whole_x.grad
    for ours, part in ((first, slice(0, None, 2)), (second, slice(1, None, 2))):
        for tensor, whole in zip(ours[:3], expected, strict=True):
            torch.testing.assert_close(tensor, whole[part], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours[3], norm.running_mean)
        torch.testing.assert_close(ours[4], norm.running_var)


# --- the same pixels ----------------------------------------------------------------------------


def first_pixels(data: Path) -> list[list]:
    with process_group():
        spec = DATASETS["camvid"]
        split = load_split(spec, "train", dir_dataset=data, grid=spec.grid.divided(12), n_workers=1)
        excluded = [np.zeros(size, bool) for size in split.sizes]
        excluded[3][1:] = excluded[3][0, 2:] = True
        asked = query.initial_query(split, n=4, excluded=excluded, seed=0)
        return [pixels.tolist() for pixels in asked.pixels]


@pytest.mark.filterwarnings("ignore:.*only 2 pixels are left")
def test_the_first_pixels_of_any_number_of_processes(tiny_camvid: Path):
    expected = first_pixels(tiny_camvid)
    assert [len(pixels) for pixels in expected] == [4, 4, 4, 2, 4]
    for n in (2, 4):
        assert run_in_processes(n, first_pixels, tiny_camvid) == [expected] * n


def test_a_run_goes_on_with_another_number_of_processes(tiny_camvid: Path, tmp_path: Path):
    """A round in two processes, the second in one; the query script as both."""
    flags = [*quick_flags(), "--batch_size", "4", "--dir_dataset", str(tiny_camvid),
             "--dir_checkpoints", str(tmp_path)]
    run = tmp_path / RUN
    assert run_in_processes(2, train.main, [*flags, "--max_budget", "4"]) == [0, 0]
    assert json.loads((run / "args.json").read_text())["processes"] == 2
    before = (run / "metrics.csv").read_bytes()
    assert train.main(flags) == 0
    assert (run / "metrics.csv").read_bytes().startswith(before)
    assert [row["pixels_total"] for row in rows(run / "metrics.csv")] == ["20", "40"]

    flags = ["--checkpoint", str(run / "0_query" / "last.pt"), "--dir_dataset", str(tiny_camvid),
             "--device", "cpu", "--exclude_void", "--dir_output"]
    committee = ["--use_mc_dropout", "--mc_n_steps", "3", "--allocate", "global", "--ask_balance",
                 "0.5", "--min_distance", "2"]
    for more in ([str(tmp_path / "a")], [str(tmp_path / "b"), *committee]):
        assert run_in_processes(2, query.main, [*flags, *more]) == [0, 0]
    query.main([*flags, str(tmp_path / "c"), *committee])

    def asked(folder: Path) -> list:
        return [entry["pixels"] for entry in json.loads((folder / "query.json").read_text())
                ["images"]]

    assert asked(tmp_path / "a") == asked(run / "1_query")
    assert asked(tmp_path / "b") == asked(tmp_path / "c") != asked(tmp_path / "a")


# --- one end ------------------------------------------------------------------------------------

FAILING = """
import os, sys
sys.path.insert(0, {repository!r})
import train, utils.round_training
from utils.errors import InputError, run_program
utils.round_training.SAVE_SECONDS = 0
train_one_epoch, calls = train.train_one_epoch, []
def failing(*args, **kwargs):
    calls.append(None)
    if os.environ["RANK"] == "1" and len(calls) == 2:
        raise InputError("the second process has had enough")
    return train_one_epoch(*args, **kwargs)
train.train_one_epoch = failing
run_program(train.main)
"""


def test_one_process_that_fails_ends_the_run_which_goes_on_later(
        tiny_camvid: Path, tmp_path: Path, run_train):
    """In the middle of a round, under torchrun; then with one process."""
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(repository=str(REPOSITORY)))
    out = tmp_path / "runs"
    flags = ["--batch_size", "4", "--max_budget", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(script), *quick_flags(), *flags, "--dir_dataset", str(tiny_camvid),
         "--dir_checkpoints", str(out)],
        cwd=tmp_path, text=True, capture_output=True, timeout=400,
        env=os.environ | {"OMP_NUM_THREADS": "1"})
    ended = time.time()
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("error: the second process has had enough") == 1
    assert "exitcode  : 2" in done.stderr and "rank      : 1" in done.stderr
    assert "train_one_epoch" not in done.stderr  # no traceback of ours
    folder = out / RUN / "0_query"
    assert torch.load(folder / "last.pt", weights_only=True)["epoch"] == 1
    assert ended - (folder / "last.pt").stat().st_mtime < 100  # seconds on an idle machine
    run_train(*flags, out=out)
    assert [row["epoch"] for row in rows(folder / "log_train.csv")] == ["1", "2"]
    assert len(rows(out / RUN / "metrics.csv")) == 1
