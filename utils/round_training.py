"""The training of one round: epochs, evaluations, logs, checkpoints; resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utils.checkpoints import cpu_state, load_checkpoint, save_checkpoint
from utils.distributed import from_main, is_main
from utils.errors import InputError
from utils.files import write_csv
from utils.metrics import flat_scores, segmentation_scores
from utils.optimisation import Average
from utils.progress import Progress

SAVE_SECONDS = 30  # last.pt is written no more often than this, and at the end of a round


class RoundTraining:
    """A network on its way through `n_epochs`, resumable at the end of each from `last.pt`.
    Of several processes the main one reads and writes the files.

    trained: what the optimiser changes. network: what is evaluated, saved and used in the end: the
        `average` of its weights if there is one, else the same."""

    def __init__(self, folder: Path, *, network: nn.Module, optimizer: torch.optim.Optimizer,
                 schedule: torch.optim.lr_scheduler.LRScheduler, average: Average | None,
                 n_epochs: int, config: dict) -> None:
        self.folder, self.trained, self.n_epochs = folder, network, n_epochs
        self.average, self.network = average, average.module if average else network
        self.optimizer, self.schedule, self._config = optimizer, schedule, config
        self.epoch = 0  # finished ones
        self.log_train: list[dict] = []
        self.log_val: list[dict] = []
        self._best: dict[str, Tensor] | None = None
        self._saved = time.monotonic()
        saved = from_main(self._saved_content)
        if saved is not None:
            self._restore(saved)

    @property
    def finished(self) -> bool:
        return self.epoch == self.n_epochs

    @property
    def best(self) -> dict | None:
        """The evaluation of highest mIoU; None without a validation set."""
        return max(self.log_val, key=lambda row: row["miou"], default=None)

    def run(self, train_epoch: Callable[[int, Callable[[Tensor], None]], float],
            evaluate: Callable[[nn.Module], np.ndarray] | None, *, n_steps: int,
            eval_interval: int, description: str,
            epoch_done: Callable[[list[dict], list[dict]], None]) -> None:
        """Train the epochs that are left, each of `n_steps` steps.

        `train_epoch(epoch, step_done)` trains `trained` for one, reports each step's loss (still on
        the device) to `step_done`, and returns the mean loss; `evaluate` returns the confusion
        matrix, and is None without a validation set (best.pt is then the last epoch's network);
        `epoch_done` is given both logs after each epoch."""
        shown: dict[str, object] = {"loss": None, "miou": ""}

        def details() -> str:
            loss = shown["loss"]
            return f"loss {loss.item():.3f}{shown['miou']}" if loss is not None else ""

        with Progress(self.n_epochs * n_steps, description, done=self.epoch * n_steps,
                      unit="step", details=details) as progress:
            def step_done(loss: Tensor) -> None:
                if self.average:
                    self.average.update(self.trained)
                shown["loss"] = loss
                progress.advance()

            while not self.finished:
                start = time.perf_counter()
                loss = train_epoch(self.epoch, step_done)
                self.epoch += 1
                if not math.isfinite(loss):
                    raise InputError(f"the loss is {loss} in epoch {self.epoch} of {description}; "
                                     "try a smaller --lr or --amp off")
                self.log_train.append({"epoch": self.epoch, "loss": loss,
                                       "seconds": time.perf_counter() - start})
                if evaluate and (self.epoch % eval_interval == 0 or self.finished):
                    self._evaluate(evaluate)
                    shown["miou"] = f", mIoU {self.log_val[-1]['miou']:.3f}"
                if is_main() and (self.finished or time.monotonic() - self._saved > SAVE_SECONDS):
                    self._save()
                epoch_done(self.log_train, self.log_val)

    def _evaluate(self, evaluate: Callable[[nn.Module], np.ndarray]) -> None:
        start = time.perf_counter()
        scores = segmentation_scores(evaluate(self.network))
        self.log_val.append({"epoch": self.epoch, **scores,
                             "seconds": time.perf_counter() - start})
        if is_main() and self.best is self.log_val[-1]:
            self._best = cpu_state(self.network)

    def _save(self) -> None:
        """Write logs and best.pt, then last.pt, which alone says how far the round is."""
        for name, rows in (("log_train.csv", self.log_train), ("log_val.csv", self.log_val)):
            if rows:
                flat = [flat_scores(row, self._config["classes"]) for row in rows]
                write_csv(self.folder / name, list(flat[0]), [list(row.values()) for row in flat])
        content = {"config": self._config, "epoch": self.epoch, "log_train": self.log_train,
                   "log_val": self.log_val, "network": cpu_state(self.network)}
        # A finished round is never trained again: its last.pt holds the network alone.
        if self.finished:
            best = self.best or {"epoch": self.epoch}
            save_checkpoint(self.folder / "best.pt", {
                "config": self._config, "epoch": best["epoch"],
                "network": self._best or content["network"]})
        else:
            content |= {"best": self._best, "optimizer": self.optimizer.state_dict(),
                        "schedule": self.schedule.state_dict()}
            if self.average:
                content |= {"trained": cpu_state(self.trained),
                            "n_averaged": self.average.n_averaged}
        save_checkpoint(self.folder / "last.pt", content)
        self._saved = time.monotonic()

    def _saved_content(self) -> dict | None:
        path = self.folder / "last.pt"
        if not path.exists():
            return None
        return load_checkpoint(path, needs=("network", "epoch", "log_train", "log_val"))

    def _restore(self, content: dict) -> None:
        self.epoch, self.log_train, self.log_val = (
            content[key] for key in ("epoch", "log_train", "log_val"))
        self.network.load_state_dict(content["network"])
        if not self.finished:
            self._best = content["best"]
            self.optimizer.load_state_dict(content["optimizer"])
            self.schedule.load_state_dict(content["schedule"])
            if self.average:
                self.trained.load_state_dict(content["trained"])
                self.average.n_averaged = content["n_averaged"]
