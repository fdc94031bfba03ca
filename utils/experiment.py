"""What is the same in every round of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets import DatasetSpec
from datasets.augment import Augmentation
from datasets.batches import Splitting, TrainingSet, n_batches, training_batches
from datasets.images import resize_label
from datasets.points import Points
from datasets.split import LoadedSplit
from datasets.stored import Canvas
from networks import N_STATISTICS_POINTS
from utils.device import place
from utils.distributed import data_parallel, is_parallel, rank, share_buffers
from utils.inference import Predictor
from utils.losses import CrossEntropy
from utils.metrics import flat_scores, iou_columns, unknown_scores
from utils.optimisation import Average, build_optimizer, build_schedule
from utils.plots import Panel, save_qualitative_grid
from utils.round_training import RoundTraining
from utils.seeds import seed_of
from utils.teacher import Teacher

N_PICTURES = 4  # images in a round's qualitative grid


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is the same in every round: data, and how a round is trained, evaluated and pictured.

    `train_one_epoch` trains with `forward` (see train.py); `fresh_network` draws an untrained
    network's weights from torch's generator; `loss_of` makes the loss for labels; `ema` is the
    decay of the weights' average that is evaluated and asked, 0 for none; `teacher`: keyword
    arguments of utils.teacher.Teacher; `uncertainty`, an acquisition function, is what the pictures
    show.
    Without a validation set `val` is None."""

    folder: Path
    spec: DatasetSpec
    train: LoadedSplit
    val: LoadedSplit | None
    device: torch.device
    autocast: Callable[[], AbstractContextManager]
    forward: Callable[..., Tensor]
    predictor: Predictor
    train_one_epoch: Callable[..., float]
    fresh_network: Callable[[], nn.Module]
    loss_of: Callable[..., CrossEntropy]
    ema: float
    teacher: dict | None
    uncertainty: Callable[[Tensor], Tensor]
    augmentation: Augmentation
    optimizer: dict
    schedule: str
    batch_size: int
    splitting: Splitting
    n_epochs: int
    eval_interval: int
    seed: int
    config: dict

    def training(self, folder: Path, round_index: int) -> RoundTraining:
        """The training of a round, at its start or wherever it was left."""
        torch.manual_seed(seed_of(self.seed, "network", round_index))
        network = self.fresh_network().to(device=self.device, memory_format=torch.channels_last)
        optimizer = build_optimizer(network, **self.optimizer)
        schedule = build_schedule(optimizer, name=self.schedule,
                                  n_steps=self.n_epochs * self._n_steps)
        return RoundTraining(folder, network=network, optimizer=optimizer, schedule=schedule,
                             average=Average(network, decay=self.ema) if self.ema else None,
                             n_epochs=self.n_epochs, config=self.config | {"round": round_index})

    @property
    def _n_steps(self) -> int:
        return n_batches(len(self.train), self.batch_size, smallest=self.splitting.smallest_batch)

    def training_set(self, points: np.ndarray | None,
                     labels: np.ndarray | Canvas) -> TrainingSet:
        """The training images with points and labels, or with None and label maps, as in `fit`."""
        return TrainingSet(names=self.train.names, sizes=self.train.sizes,
                           images=self.train.images, labels=place(labels, self.device),
                           points=None if points is None else place(points, self.device),
                           device=self.device)

    def fit(self, folder: Path, round_index: int, *,
            supervision: Callable[[int], tuple[np.ndarray | None, np.ndarray]],
            epoch_done: Callable[[list[dict], list[dict]], None] = lambda *_: None
            ) -> RoundTraining:
        """Train a fresh network, or finish the training that `folder` holds.

        `supervision(epoch)` gives points `(N, P, 2)` with labels `(N, P)`, or None and label maps
        `(N, H, W)`; what is the same in two epochs should be the same arrays.
        `epoch_done` as in RoundTraining.run."""
        training = self.training(folder, round_index)
        if training.finished:
            return training
        network = data_parallel(training.trained)

        placed: list = [None, None, None]  # labels, the training set with them, the loss for them

        def data(epoch: int) -> tuple[TrainingSet, CrossEntropy]:
            points, labels = supervision(epoch)
            if labels is not placed[0]:
                placed[:] = labels, self.training_set(points, labels), self.loss_of(
                    labels, n_classes=self.spec.n_classes, device=self.device)
            return placed[1], placed[2]

        def train_epoch(epoch: int, step_done: Callable[[Tensor], None]) -> float:
            key = (self.seed, "train", round_index, epoch)
            # The processes' images are different ones, and so are their dropout's masks.
            torch.manual_seed(seed_of(*key, "dropout", *[rank()] * is_parallel()))
            training_set, criterion = data(epoch)
            batches = training_batches(training_set, augmentation=self.augmentation, key=key,
                                       batch_size=self.batch_size, splitting=self.splitting,
                                       n_statistics_points=N_STATISTICS_POINTS,
                                       with_weak=self.teacher is not None)
            teacher = self.teacher and Teacher(
                network=training.network, autocast=self.autocast,
                progress=lambda: training.schedule.last_epoch / (self.n_epochs * self._n_steps),
                class_weights=criterion.weights, **self.teacher)
            loss = self.train_one_epoch(network, batches, optimizer=training.optimizer,
                                        schedule=training.schedule, forward=self.forward,
                                        loss=criterion, teacher=teacher, step_done=step_done)
            for module in dict.fromkeys([training.trained, training.network]):
                share_buffers(module)
            return loss

        def evaluate(network: nn.Module) -> np.ndarray:
            return self.predictor.evaluate(network, self.val, n_classes=self.spec.n_classes,
                                           autocast=self.autocast)

        training.run(train_epoch, evaluate if self.val else None, n_steps=self._n_steps,
                     eval_interval=self.eval_interval, description=f"round {round_index + 1}",
                     epoch_done=epoch_done)
        return training

    def save_pictures(self, folder: Path, network: nn.Module, points: Points) -> None:
        """The qualitative grid of a round: a few training images, evenly spaced."""
        chosen = np.unique(np.linspace(0, len(self.train) - 1, N_PICTURES).round().astype(int))
        split, panels = self.train.subset(chosen), []
        predictor = replace(self.predictor, share=(0, 1))
        for index, logits in predictor.logits(network, split, to_labels=False):
            for i, probabilities in zip(index, logits.softmax(dim=1), strict=True):
                height, width = split.sizes[i]
                panels.append(Panel(
                    title=split.names[i], image=split.images[i, :height, :width],
                    truth=split.labels and resize_label(split.labels[i], (height, width)),
                    prediction=probabilities.argmax(dim=0).byte().cpu().numpy(),
                    uncertainty=self.uncertainty(probabilities[None])[0].cpu().numpy(),
                    asked=points.of_image(chosen[i])))
        save_qualitative_grid(folder / "qualitative.png", panels, spec=self.spec)

    def metrics_columns(self) -> list[str]:
        return ["round", "pixels_per_image", "pixels_total", "percent", "pixels_trained",
                "void_answers", "miou_last", "miou_best", "epoch_best", "pixel_accuracy",
                "mean_accuracy", *iou_columns(self.spec.class_names), "train_seconds",
                "val_seconds", "query_seconds"]

    def metrics_row(self, training: RoundTraining, round_index: int, *, n_asked: int, n_void: int,
                    query_seconds: float) -> dict[str, object]:
        last = training.log_val[-1] if self.val else unknown_scores(self.spec.n_classes)
        best = training.best or {"miou": last["miou"], "epoch": training.epoch}
        return flat_scores(last, self.spec.class_names) | {
            "round": round_index,
            "pixels_per_image": n_asked / len(self.train),
            "pixels_total": n_asked,
            "percent": 100 * n_asked / int(self.train.sizes.prod(axis=1).sum()),
            "pixels_trained": n_asked - n_void,
            "void_answers": n_void,
            "miou_last": last["miou"],
            "miou_best": best["miou"],
            "epoch_best": best["epoch"],
            "train_seconds": sum(row["seconds"] for row in training.log_train),
            "val_seconds": sum(row["seconds"] for row in training.log_val),
            "query_seconds": query_seconds,
        }
