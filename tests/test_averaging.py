"""Runs with a moving average of the weights and a teacher: what is evaluated and kept, resuming."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import utils.round_training
from tests.conftest import RUN, quick_flags
from tests.test_train import Crash, without_seconds
from utils.inference import Predictor
from utils.optimisation import Average

FLAGS = ("--ema", "0.9", "--teacher", "0.5", "--teacher_threshold", "0", "--class_balance", "0.5",
         "--schedule", "cosine", "--max_budget", "4")


def networks(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "0_query" / "last.pt", weights_only=True)["network"]


@dataclass
class Watched:
    """A run: its averages, and the networks that were evaluated or pictured."""

    folder: Path
    averages: list[Average]
    shown: list[torch.nn.Module]


@pytest.fixture(scope="module")
def in_one_go(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    import train

    out = tmp_path_factory.mktemp("averaged")
    watched, update, logits = Watched(out / RUN, [], []), Average.update, Predictor.logits

    def watched_update(average: Average, network: torch.nn.Module) -> None:
        if average not in watched.averages:
            watched.averages.append(average)
        update(average, network)
        if average.n_averaged > 1:
            weights = [of.state_dict()["decoder.classifier.weight"]
                       for of in (average.module, network)]
            assert not torch.equal(*weights)

    def watched_logits(self: Predictor, network: torch.nn.Module, *args, **kwargs):
        watched.shown.append(network)
        return logits(self, network, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Average, "update", watched_update)
        patch.setattr(Predictor, "logits", watched_logits)
        assert train.main([*quick_flags(), *FLAGS, "--dir_dataset", str(tiny_camvid),
                           "--dir_checkpoints", str(out)]) == 0
    return watched


def test_the_average_is_evaluated_and_kept(in_one_go: Watched) -> None:
    (average,) = in_one_go.averages
    assert average.n_averaged == 2 * 2  # steps of epochs
    assert len(in_one_go.shown) > 2
    assert all(network is average.module for network in in_one_go.shown)
    kept = networks(in_one_go.folder)
    assert all(torch.equal(kept[name], value)
               for name, value in average.module.state_dict().items())


def test_an_interrupted_average_goes_on_where_it_was(in_one_go: Watched, run_train, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: logs, figures, weights."""
    monkeypatch.setattr(utils.round_training, "SAVE_SECONDS", 0)
    out, update = tmp_path / "checkpoints", Average.update

    def crash_in_the_second_epoch(average: Average, network: torch.nn.Module) -> None:
        if average.n_averaged == 3:
            raise Crash
        update(average, network)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Average, "update", crash_in_the_second_epoch)
        run_train(*FLAGS, out=out)
    left = torch.load(out / RUN / "0_query" / "last.pt", weights_only=True)
    assert (left["epoch"], left["n_averaged"]) == (1, 2)
    assert left["trained"].keys() == left["network"].keys()
    run_train(*FLAGS, out=out)
    for name in ("metrics.csv", "0_query/log_train.csv", "0_query/log_val.csv"):
        assert without_seconds(out / RUN / name) == without_seconds(in_one_go.folder / name)
    ours, theirs = networks(out / RUN), networks(in_one_go.folder)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
