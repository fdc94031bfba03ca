"""What trackers are told: TensorBoard's files are read back; Weights & Biases and MLflow are
stand-ins here that keep what they are called with."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest

from tests.conftest import RUN
from utils.errors import InputError
from utils.files import read_csv
from utils.round_training import RoundTraining
from utils.tracking import MLflow, Tracking

CLASSES = ["sky", "traffic light (red)"]
ROUND = {"round": "0", "pixels_per_image": "9.800000", "miou_last": "0.250000",
         "iou_sky": "0.250000", "iou_traffic_light_(red)": "nan"}


def track(kind: str, run: Path, *, n_rounds: int, broken: str | None = None) -> Tracking:
    """A run of `n_rounds` of two epochs as train.py tells it, finished rounds included."""
    tracking = Tracking(kind, run=run, flags={"lr": 0.1}, class_names=CLASSES, n_epochs=2)
    tracking.open()
    if broken:
        setattr(tracking._tracker, broken, MagicMock(side_effect=ConnectionError("no\nnetwork")))
    with tracking:
        for r in range(n_rounds):
            folder = run / f"{r}_query"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "qualitative.png").touch()
            (folder / "log_train.csv").write_text("epoch,loss\n1,0.5\n2,0.25\n")
            (folder / "log_val.csv").write_text("epoch,miou,iou_sky\n2,0.125,nan\n")
            tracking.round_done(r, ROUND | {"pixels_per_image": str(9.8 * (r + 1))}, folder)
    return tracking


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    module = MagicMock(spec=ModuleType("wandb"))
    module.init, module.Settings, module.Image = MagicMock(), dict, lambda path: path
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def logged(wandb: MagicMock) -> list[tuple[int, dict]]:
    return [(call.kwargs["step"], call.args[0]) for call in wandb.init.return_value.log.mock_calls]


def test_tensorboard_has_each_point_once_and_training_is_the_same(
        run_train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash in the first round, a second start, a larger budget, and nothing to do."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = run_train("--max_budget", "4", out=tmp_path / "plain") / RUN
    with monkeypatch.context() as patch:
        patch.setattr(RoundTraining, "_save", MagicMock(side_effect=SystemExit))
        with pytest.raises(SystemExit):
            run_train("--tracker", "tensorboard")
    for budget in ("4", "8", "8"):
        run = run_train("--tracker", "tensorboard", "--max_budget", budget) / RUN

    def without_seconds(folder: Path) -> list[dict[str, str]]:
        return [{name: value for name, value in row.items() if "seconds" not in name}
                for row in read_csv(folder / "metrics.csv")]

    assert without_seconds(run)[:1] == without_seconds(plain)
    events = EventAccumulator(str(run / "tracking" / "tensorboard"), size_guidance={}).Reload()
    epochs = [float(row["loss"]) for r in (0, 1)
              for row in read_csv(run / f"{r}_query" / "log_train.csv")]
    points = [(point.step, point.value) for point in events.Scalars("train/loss")]
    assert points == [(step, pytest.approx(loss)) for step, loss in enumerate(epochs, start=1)]
    assert [point.step for point in events.Scalars("val/miou")] == [1, 2, 3, 4]
    assert [(point.step, point.value) for point in events.Scalars("round/miou_last")] == [
        (int(float(row["pixels_per_image"])), pytest.approx(float(row["miou_last"]), abs=1e-6))
        for row in read_csv(run / "metrics.csv")]
    assert [picture.step for picture in events.Images("round/qualitative")] == [4, 8]
    assert "round/iou_sky" in events.Tags()["scalars"]


def test_a_run_that_began_without_it_is_sent_whole_and_goes_on(wandb: MagicMock,
                                                              tmp_path: Path) -> None:
    track("wandb", tmp_path / RUN, n_rounds=1)
    given = wandb.init.call_args.kwargs
    assert given["name"] == RUN and given["config"] == {"lr": 0.1} and given["resume"] == "allow"
    assert Path(given["dir"]) == tmp_path / RUN / "tracking"
    picture = str(tmp_path / RUN / "0_query" / "qualitative.png")
    first = [{"train/loss": 0.5, "epoch": 1},
             {"train/loss": 0.25, "val/miou": 0.125, "epoch": 2},
             {"round/pixels_per_image": 9.8, "round/miou_last": 0.25, "round/iou_sky": 0.25,
              "pixels_per_image": 10},
             {"round/qualitative": picture, "pixels_per_image": 10}]
    assert logged(wandb) == list(enumerate(first))

    track("wandb", tmp_path / RUN, n_rounds=2)
    assert wandb.init.call_args.kwargs["id"] == given["id"]
    assert [step for step, _ in logged(wandb)] == list(range(8))
    assert logged(wandb)[4][1] == {"train/loss": 0.5, "epoch": 3}
    assert wandb.init.return_value.finish.call_args.kwargs == {"exit_code": 0}
    track("wandb", tmp_path / "another", n_rounds=0)
    assert wandb.init.call_args.kwargs["id"] != given["id"]


@pytest.mark.parametrize("broken", ["scalars", "picture", "close"])
def test_a_failure_is_one_line_and_the_rest_is_sent_later(
        wandb: MagicMock, tmp_path: Path, capsys: pytest.CaptureFixture, broken: str) -> None:
    track("wandb", tmp_path, n_rounds=2, broken=broken)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: tracking by wandb stops (no network)")
    track("wandb", tmp_path, n_rounds=2)
    sent = Counter(name for _, values in logged(wandb) for name in values if "/" in name)
    assert sent["train/loss"] == 4 and sent["round/miou_last"] == sent["round/qualitative"] == 2


def test_mlflow_keeps_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MagicMock()
    client.get_experiment_by_name.return_value = None
    client.create_run.return_value = SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    entities = SimpleNamespace(Metric=lambda *of: of, Param=lambda *of: of)
    tracking = MagicMock()
    tracking.MlflowClient.return_value = client
    for name, module in (("mlflow", MagicMock()), ("mlflow.entities", entities),
                         ("mlflow.tracking", tracking)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(MLflow, "picture", MagicMock())
    for n_rounds in (1, 2):
        track("mlflow", tmp_path, n_rounds=n_rounds)
    client.create_run.assert_called_once()
    client.update_run.assert_called_once_with("r1", status="RUNNING")
    assert tracking.MlflowClient.call_args.kwargs["tracking_uri"] == \
        f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}"
    loss = [(metric[3], metric[1]) for call in client.log_batch.mock_calls
            for metric in call.kwargs.get("metrics", []) if metric[0] == "train/loss"]
    assert loss == [(1, 0.5), (2, 0.25), (3, 0.5), (4, 0.25)]
    client.set_terminated.assert_called_with("r1", "FINISHED")


def test_names_suit_every_tracker(tmp_path: Path) -> None:
    tracking = Tracking("none", run=tmp_path, flags={}, class_names=CLASSES, n_epochs=1)
    assert tracking._named("val", {"epoch": 1, "iou": [0.5, 0.25]}) == {
        "val/iou_sky": 0.5, "val/iou_traffic_light__red_": 0.25}


def test_a_missing_library_is_one_line_before_anything(run_train, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"--tracker mlflow: .* -m pip install mlflow$"):
        run_train("--tracker", "mlflow")
    assert not (tmp_path / "checkpoints").exists()
    with pytest.raises(InputError, match="unknown tracker 'comet'; choose from none, tensorboard"):
        run_train("--tracker", "comet")


def test_a_tracker_that_cannot_start_is_one_line(wandb: MagicMock, tmp_path: Path) -> None:
    wandb.init.side_effect = RuntimeError("No API key configured.\nUse `wandb login`")
    with pytest.raises(InputError, match="cannot start: No API key configured. Use `wandb login`"):
        track("wandb", tmp_path, n_rounds=1)
    (tmp_path / "tracking" / "wandb.json").write_text("[]")
    with pytest.raises(InputError, match="wandb.json is no longer what was written; delete"):
        track("wandb", tmp_path, n_rounds=1)
