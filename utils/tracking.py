"""What a run tells TensorBoard, Weights & Biases or MLflow, beside the files that it writes anyway.

The scalars have the same names everywhere: `train/`, `val/` and `round/` with the columns of
log_train.csv, log_val.csv and metrics.csv. The first two stand over the epochs of all rounds, the
last over the pixels per image. The picture is each round's qualitative.png, `round/qualitative`.

Everything is sent once: `<run>/tracking/<tracker>.json` says how far it is. What is missing there,
because the run began without the tracker or could not reach it, is sent from the logs later."""

from __future__ import annotations

import functools
import importlib
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from utils.errors import InputError
from utils.files import read_csv, read_json, write_json
from utils.metrics import flat_scores

# Group of scalars -> what its steps are.
AXES = {"train": "epoch", "val": "epoch", "round": "pixels_per_image"}
PICTURE = "round/qualitative"
_PROJECT = "pixelpick"


class Tracker(Protocol):
    """Made with `folder` (`<run>/tracking`, absolute), `name` and `config` (the flags) of the run,
    and `state`, a dictionary that is kept in a file: of use to find the tracked run again. What is
    sent is out of the program's hands when a method returns; each may raise any Exception."""

    package: str  # what pip calls it, and Python imports

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Values of one axis (AXES), all finite."""

    def picture(self, name: str, path: Path, *, step: int) -> None:
        """A PNG file."""

    def close(self, *, failed: bool) -> None: ...


class TensorBoard:
    """Event files in `<run>/tracking/tensorboard`."""

    package = "tensorboard"

    def __init__(self, folder: Path, *, name: str, config: dict, state: dict) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, name: str, path: Path, *, step: int) -> None:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))  # (H, W, 3)
        self._writer.add_image(name, pixels, step, dataformats="HWC")
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class WandB:
    """A run of the project WANDB_PROJECT (default: pixelpick); its files are in
    `<run>/tracking/wandb`. WANDB_MODE=offline keeps it there."""

    package = "wandb"

    def __init__(self, folder: Path, *, name: str, config: dict, state: dict) -> None:
        import wandb

        state.setdefault("id", secrets.token_hex(6))
        self._state, self._image = state, wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT, name=name, config=config,
            id=state["id"], resume="allow", dir=str(folder),
            settings=wandb.Settings(console="off"))
        for group, axis in AXES.items():
            self._run.define_metric(axis, hidden=True)
            self._run.define_metric(f"{group}/*", step_metric=axis)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        self._log(values, step=step)

    def picture(self, name: str, path: Path, *, step: int) -> None:
        self._log({name: self._image(str(path))}, step=step)

    def _log(self, values: Mapping[str, object], *, step: int) -> None:
        # wandb's own steps only count what is logged; an offline run that goes on has to know.
        number = self._state.get("logged", 0)
        axis = AXES[next(iter(values)).partition("/")[0]]
        self._run.log({**values, axis: step}, step=number)
        self._state["logged"] = number + 1

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME (default: pixelpick) at MLFLOW_TRACKING_URI,
    which is `<run>/tracking/mlflow.db` if not set, with the pictures beside it."""

    package = "mlflow"
    _BATCH = 100  # that many parameters are taken at once

    def __init__(self, folder: Path, *, name: str, config: dict, state: dict) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{folder / 'mlflow.db'}")
        if "run_id" in state:
            self._client.update_run(state["run_id"], status="RUNNING")
        else:
            project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
            known = self._client.get_experiment_by_name(project)
            where = None if uri else (folder / "mlflow").as_uri()
            experiment = known.experiment_id if known else self._client.create_experiment(
                project, artifact_location=where)
            state["run_id"] = self._client.create_run(experiment, run_name=name).info.run_id
            parameters = [Param(flag, str(value)[:500]) for flag, value in config.items()]
            for start in range(0, len(parameters), self._BATCH):
                self._client.log_batch(state["run_id"],
                                       params=parameters[start:start + self._BATCH])
        self._run_id = state["run_id"]

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._run_id, metrics=[
            self._metric(name, value, now, step) for name, value in values.items()])

    def picture(self, name: str, path: Path, *, step: int) -> None:
        with Image.open(path) as image:
            self._client.log_image(self._run_id, np.array(image.convert("RGB")), key=name,
                                   step=step)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Callable[..., Tracker] | None] = {
    "none": None, "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def check_tracker(name: str) -> None:
    """Import its library. Raises InputError if that is missing."""
    tracker = TRACKERS[name]
    if tracker is None:
        return
    try:
        importlib.import_module(tracker.package)
    except ImportError as error:
        raise InputError(f"--tracker {name}: cannot import {tracker.package} ({error}); install "
                         f"it: {sys.executable} -m pip install {tracker.package}") from error


class Tracking:
    """Sends what is finished to the tracker of the TRACKERS' name `kind`; `flags` are the run's.

    Nothing is sent before `open`, which one process of a run calls, nor after a failure, which is
    one line on stderr: training goes on, and the next start sends what is missing. As a context it
    closes the tracker."""

    def __init__(self, kind: str, *, run: Path, flags: dict, class_names: Sequence[str],
                 n_epochs: int) -> None:
        self._kind, self._run, self._flags = kind, run, flags
        self._class_names, self._n_epochs = class_names, n_epochs
        self._file = run / "tracking" / f"{kind}.json"
        self._state: dict = {"epoch": 0, "round": 0, "picture": 0}  # numbers of what was sent last
        self._tracker: Tracker | None = None

    def open(self) -> None:
        """Raises InputError if the tracker cannot start."""
        if TRACKERS[self._kind] is None:
            return
        again = (f"delete {self._file} for a new tracked run, or leave --tracker out (what is "
                 "missing then is sent once it is given again)")
        if self._file.exists():
            content = read_json(self._file)
            if not isinstance(content, dict) or not all(
                    isinstance(content.get(what), int) for what in self._state):
                raise InputError(f"{self._file} is no longer what was written; {again}")
            self._state = content
        folder = self._file.parent.resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._tracker = TRACKERS[self._kind](folder, name=self._run.name, config=self._flags,
                                                 state=self._state)
        except Exception as error:
            raise InputError(f"--tracker {self._kind} cannot start: {_line(error)}; mend that, "
                             f"{again}") from error
        write_json(self._file, self._state)

    def epochs_done(self, round_index: int, log_train: Sequence[dict],
                    log_val: Sequence[dict]) -> None:
        """Rows of a round's log_train.csv and log_val.csv, as in the files or in memory."""
        evaluated = {int(row["epoch"]): row for row in log_val}
        for row in log_train:
            epoch = int(row["epoch"])
            values = self._named("train", row) | self._named("val", evaluated.get(epoch, {}))
            step = round_index * self._n_epochs + epoch
            self._send("epoch", step, lambda tracker, values=values, step=step: tracker.scalars(
                values, step=step))

    def round_done(self, round_index: int, row: dict, folder: Path) -> None:
        """`row` of metrics.csv; `folder`: the round's, where its logs and its picture are."""
        if self._tracker is None:
            return
        logs = (folder / name for name in ("log_train.csv", "log_val.csv"))
        self._guarded(lambda: self.epochs_done(
            round_index, *(read_csv(path) if path.exists() else [] for path in logs)))
        step = round(float(row["pixels_per_image"]))
        self._send("round", round_index + 1, lambda tracker: tracker.scalars(
            self._named("round", row), step=step))
        picture = folder / "qualitative.png"
        if picture.exists():
            self._send("picture", round_index + 1, lambda tracker: tracker.picture(
                PICTURE, picture, step=step))

    def _named(self, group: str, row: Mapping[str, object]) -> dict[str, float]:
        """The row's scalars; without what is not known (NaN). Names of classes may hold signs that
        a tracker does not take."""
        values = {name: float(value)
                  for name, value in flat_scores(dict(row), self._class_names).items()
                  if name not in ("epoch", "round")}
        return {f"{group}/" + re.sub(r"[^\w -]", "_", name): value
                for name, value in values.items() if math.isfinite(value)}

    def _send(self, what: str, number: int, send: Callable[[Tracker], None]) -> None:
        """Unless it was sent before."""
        if self._tracker is None or number <= self._state[what]:
            return

        def send_and_note() -> None:
            send(self._tracker)
            self._state[what] = number
            write_json(self._file, self._state)

        self._guarded(send_and_note)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._tracker = None
            print(f"warning: tracking by {self._kind} stops ({_line(error)}); the run goes on, and "
                  "its command sends what is missing when it is repeated", file=sys.stderr)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._tracker is not None:
            self._guarded(functools.partial(self._tracker.close, failed=kind is not None))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
