"""Rounds of asking for a few pixels an image and training on all of them; or, with
`--n_pixels_by_us 0`, training on full masks. The same command continues an interrupted run."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import args as flags
from datasets import DATASETS, DatasetSpec
from datasets.augment import Augmentation
from datasets.batches import Batch, TrainingSet, n_batches, training_batches
from datasets.images import IGNORE, has_files, resize_label
from datasets.labellers import LABELLERS, Labeller, WaitingForLabels
from datasets.points import Points, concatenate, padded, read_labels, write_labels
from datasets.queries import Query, read_query, write_query
from datasets.split import LoadedSplit, load_split
from networks import N_STATISTICS_POINTS, build_network
from networks.weights import download_imagenet_weights, load_backbone_weights
from query import ACQUISITIONS, excluding, initial_query, next_query
from utils.checkpoints import load_checkpoint
from utils.device import place, select_autocast, select_device
from utils.errors import InputError, run_program
from utils.files import read_json, write_json
from utils.inference import Predictor
from utils.losses import cross_entropy
from utils.metrics import flat_scores, iou_columns, unknown_scores
from utils.optimisation import build_optimizer, build_schedule
from utils.plots import Panel, save_curve, save_qualitative_grid
from utils.round_training import RoundTraining
from utils.runs import MetricsTable, check_flags, file_digest, move_aside, record_flags
from utils.seeds import seed_of
from utils.statistics import answer_statistics, query_statistics

N_PICTURES = 4  # images in a round's qualitative grid
WAITING = 3  # exit code: a person has to answer before it goes on


def train_one_epoch(network: nn.Module, batches: Iterable[Batch], *,
                    optimizer: torch.optim.Optimizer,
                    schedule: torch.optim.lr_scheduler.LRScheduler,
                    autocast: Callable[[], AbstractContextManager],
                    step_done: Callable[[Tensor], None]) -> float:
    """Mean loss of the epoch; `step_done` is given each step's loss, still on the device."""
    network.train()
    losses = []
    for batch in batches:
        with autocast():
            if batch.points is None:
                logits = network(batch.images)
            else:
                logits = network(batch.images, batch.points,
                                 statistics_points=batch.statistics_points)
        loss = cross_entropy(logits, batch.labels, ignore_index=batch.ignore_index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        step_done(losses[-1])
    return torch.stack(losses).mean().item()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is the same in every round. `fresh_network` draws an untrained network's weights from
    torch's generator; `uncertainty`, an acquisition function, is what the pictures show. Without a
    validation set `val` is None."""

    folder: Path
    spec: DatasetSpec
    train: LoadedSplit
    val: LoadedSplit | None
    images: Tensor
    device: torch.device
    autocast: Callable[[], AbstractContextManager]
    predictor: Predictor
    fresh_network: Callable[[], nn.Module]
    uncertainty: Callable[[Tensor], Tensor]
    augmentation: Augmentation
    optimizer: dict
    schedule: str
    batch_size: int
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
                             n_epochs=self.n_epochs, config=self.config | {"round": round_index})

    @property
    def _n_steps(self) -> int:
        return n_batches(len(self.train), self.batch_size)

    def fit(self, folder: Path, round_index: int, *, labels: np.ndarray,
            points: np.ndarray | None = None) -> RoundTraining:
        """Train a fresh network on `points` `(N, P, 2)` with `labels` `(N, P)`, or on label maps
        `(N, H, W)`; or finish the training that `folder` holds."""
        training = self.training(folder, round_index)
        data = TrainingSet(
            names=self.train.names, sizes=self.train.sizes, images=self.images,
            labels=place(labels, self.device), device=self.device,
            points=None if points is None else place(points, self.device))

        def train_epoch(epoch: int, step_done: Callable[[Tensor], None]) -> float:
            key = (self.seed, "train", round_index, epoch)
            torch.manual_seed(seed_of(*key, "dropout"))
            batches = training_batches(data, augmentation=self.augmentation, key=key,
                                       batch_size=self.batch_size,
                                       n_statistics_points=N_STATISTICS_POINTS)
            return train_one_epoch(training.network, batches, optimizer=training.optimizer,
                                   schedule=training.schedule, autocast=self.autocast,
                                   step_done=step_done)

        def evaluate(network: nn.Module) -> np.ndarray:
            return self.predictor.evaluate(network, self.val, n_classes=self.spec.n_classes,
                                           autocast=self.autocast)

        training.run(train_epoch, evaluate if self.val else None, n_steps=self._n_steps,
                     eval_interval=self.eval_interval, description=f"round {round_index + 1}")
        return training

    def save_pictures(self, folder: Path, network: nn.Module, points: Points) -> None:
        """The qualitative grid of a round: a few training images, evenly spaced."""
        chosen = np.unique(np.linspace(0, len(self.train) - 1, N_PICTURES).round().astype(int))
        split, panels = self.train.subset(chosen), []
        for index, logits in self.predictor.logits(network, split, to_labels=False):
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


class ActiveLearning:
    """The rounds: ask, get answers, train; every step is skipped that its files show as done.

    `init_query`, a file, is asked in the first round, if given."""

    def __init__(self, experiment: Experiment, *, labeller: Labeller, n_rounds: int,
                 n_init_pixels: int, init_query: str | None, asking: dict,
                 max_mask_gb: float) -> None:
        self._experiment, self._labeller, self._n_rounds = experiment, labeller, n_rounds
        self._n_init_pixels, self._init_query = n_init_pixels, init_query
        self._asking, self._max_mask_gb = asking, max_mask_gb
        self._answered: list[Points] = []

    def run(self, metrics: MetricsTable) -> None:
        """Raises WaitingForLabels if a round's answers are missing; all before it is done."""
        experiment = self._experiment
        for r in range(self._n_rounds):
            folder = self._folder(r)
            self._ask(r)
            points = concatenate(self._answered)
            if r < len(metrics.rows):
                print(round_line(metrics.rows[r], self._n_rounds))
                continue
            training = self._fit(r, points)
            experiment.save_pictures(folder, training.network, points)
            metrics.put(experiment.metrics_row(
                training, r, n_asked=len(points), n_void=points.n_void,
                query_seconds=float(self._statistics(folder)["seconds"])))
            print(round_line(metrics.rows[r], self._n_rounds), flush=True)

    def _folder(self, r: int) -> Path:
        return self._experiment.folder / f"{r}_query"

    def _fit(self, r: int, points: Points) -> RoundTraining:
        coordinates, labels = padded(points, n_images=len(self._experiment.train))
        return self._experiment.fit(self._folder(r), r, points=coordinates, labels=labels)

    def _ask(self, r: int) -> None:
        """Choose the pixels of a round and get their answers, unless that has been done."""
        folder, split = self._folder(r), self._experiment.train
        if not (folder / "query.json").exists():
            self._choose(r)
        if not (folder / "labels.csv").exists():
            self._get_answers(folder)
        self._answered.append(read_labels(
            folder / "labels.csv", names=split.names, sizes=split.sizes,
            n_classes=self._experiment.spec.n_classes))

    def _get_answers(self, folder: Path) -> None:
        split, path = self._experiment.train, folder / "query.json"
        query = read_query(path, names=split.names, sizes=split.sizes)
        points = self._labeller.answer(query, path, split=split)
        write_json(folder / "query_stats.json", self._statistics(folder) | answer_statistics(
            points, n_images=len(split), class_names=self._experiment.spec.class_names))
        write_labels(folder / "labels.csv", points, names=split.names)

    def _statistics(self, folder: Path) -> dict:
        path = folder / "query_stats.json"
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("seconds"), int | float):
            raise InputError(f"{path} is no longer what was written; delete {folder} to ask this "
                             "round again")
        return content

    def _choose(self, r: int) -> None:
        folder, split = self._folder(r), self._experiment.train
        earlier = concatenate(self._answered)
        network = None if r == 0 else self._fit(r - 1, earlier).network
        start = time.perf_counter()
        excluded = excluding(self._labeller.never_asked(split),
                             [earlier.of_image(i) for i in range(len(split))])
        query, entropies = self._query(r, network, excluded)
        write_json(folder / "query_stats.json", query_statistics(
            query.pixels, entropies=entropies, seconds=time.perf_counter() - start))
        notice = write_query(folder, query, max_mask_gb=self._max_mask_gb)
        if notice:
            print(notice, file=sys.stderr)

    def _query(self, r: int, network: nn.Module | None,
               excluded: list[np.ndarray]) -> tuple[Query, np.ndarray | None]:
        experiment, split = self._experiment, self._experiment.train
        if network is not None:
            return next_query(network, split, predictor=experiment.predictor, excluded=excluded,
                              seed=experiment.seed, round_index=r, **self._asking)
        if self._init_query is not None:
            return read_query(self._init_query, names=split.names, sizes=split.sizes), None
        return initial_query(split, n=self._n_init_pixels, excluded=excluded,
                             seed=experiment.seed), None


def train_fully(experiment: Experiment, metrics: MetricsTable) -> None:
    """Training on full masks: one round without queries, in the folder `full`."""
    if not metrics.rows:
        folder = experiment.folder / "full"
        labels = experiment.train.grid_labels()
        training = experiment.fit(folder, 0, labels=labels)
        experiment.save_pictures(folder, training.network, concatenate([]))
        metrics.put(experiment.metrics_row(
            training, 0, n_asked=int(experiment.train.sizes.prod(axis=1).sum()),
            n_void=int((labels == IGNORE).sum()), query_seconds=0.0))
    print(round_line(metrics.rows[0], 1))


def round_line(row: dict[str, str], n_rounds: int) -> str:
    pixels, percent, last, best = (float(row[name]) for name in (
        "pixels_per_image", "percent", "miou_last", "miou_best"))
    scores = f"mIoU {last:.4f} last, {best:.4f} best (epoch {row['epoch_best']})"
    if math.isnan(last):
        scores = "no mIoU without a validation set"
    return (f"round {int(row['round']) + 1}/{n_rounds}: {pixels:g} pixels per image "
            f"({percent:.3g} %), {scores}, trained in {float(row['train_seconds']):.0f} s")


def main(argv: Sequence[str] | None = None) -> int:
    args = flags.parse_arguments(argv)
    folder = Path(args.dir_checkpoints) / flags.experiment_name(args)
    recorded = vars(args) | {"weights_sha256": args.weights and file_digest(args.weights)}
    if not args.overwrite:
        check_flags(folder, flags=recorded, free=flags.NOT_THE_EXPERIMENT)
    labeller = LABELLERS[args.labeller](classes=DATASETS[args.dataset_name],
                                        **flags.annotator_kwargs(args))
    experiment = build_experiment(args, folder, with_labels=labeller.reads_truth)
    if args.overwrite and folder.exists():
        print(f"the old run is now in {move_aside(folder)}", file=sys.stderr)
    record_flags(folder, flags=recorded, repository=flags.DIR_ROOT)
    metrics = MetricsTable(folder / "metrics.csv", experiment.metrics_columns())
    done = len(metrics.rows)
    if args.n_pixels_by_us == 0:
        train_fully(experiment, metrics)
        if done:
            print("this run was finished")
        print(f"figures: {folder / 'metrics.csv'}\n"
              f"pictures: {folder / 'full' / 'qualitative.png'}")
        return 0
    n_rounds = 1 + (args.max_budget - args.n_init_pixels) // args.n_pixels_by_us
    rounds = ActiveLearning(
        experiment, labeller=labeller, n_rounds=n_rounds, n_init_pixels=args.n_init_pixels,
        init_query=args.init_query, asking=flags.asking_kwargs(args),
        max_mask_gb=args.max_mask_gb)
    try:
        rounds.run(metrics)
    except WaitingForLabels as waiting:
        print(waiting)
        return WAITING
    if done >= n_rounds:
        print(f"this run was finished; raise --max_budget ({args.max_budget}) to go on with it")
    columns = {name: [float(row[name]) for row in metrics.rows]
               for name in ("pixels_per_image", "miou_last", "miou_best")}
    if experiment.val:
        save_curve(folder / "curve.png", pixels=columns["pixels_per_image"], title=folder.name,
                   last=columns["miou_last"], best=columns["miou_best"])
        print(f"curve: {folder / 'curve.png'} (figures: metrics.csv beside it)")
    print(f"pictures: {folder / '*_query' / 'qualitative.png'}")
    return 0


def build_experiment(args: argparse.Namespace, folder: Path, *, with_labels: bool) -> Experiment:
    """Everything that can be wrong with the input is found here, before anything is written.

    with_labels: whether the training images need label maps; if not, a validation set is optional.
    """
    spec, grid = DATASETS[args.dataset_name], flags.grid_of(args)
    device = select_device(args.device)
    network = flags.network_kwargs(args)
    pretrained, source = None, "torchvision"
    if args.weight_type == "file":
        pretrained, source = load_checkpoint(args.weights), args.weights
    elif args.weight_type == "supervised":
        pretrained = download_imagenet_weights(args.backbone)

    def fresh_network() -> nn.Module:
        fresh = build_network(**network)
        if pretrained is not None:
            load_backbone_weights(fresh.backbone, pretrained, source=source)
        return fresh

    fresh_network()  # refuses weights that do not fit
    reading = dict(dir_dataset=args.dir_dataset, grid=grid, n_workers=args.n_workers,
                   limit=8 if args.debug else None)
    train, val = load_split(spec, spec.train, with_labels=with_labels, **reading), None
    if with_labels or has_files(args.dir_dataset, spec.evaluation):
        val = load_split(spec, spec.evaluation, **reading)
    else:
        print(f"no validation set ({Path(args.dir_dataset) / spec.evaluation.labels} is missing or "
              "empty): no mIoU will be reported", file=sys.stderr)
    if n_batches(len(train), args.batch_size) == 0:
        raise InputError(f"{args.dir_dataset}: {len(train)} training image; batch norm needs two")
    return Experiment(
        folder=folder, spec=spec, train=train, val=val, images=place(train.images, device),
        device=device, autocast=select_autocast(args.amp, device),
        predictor=Predictor(device=device, batch_size=args.eval_batch_size, mean=args.mean,
                            std=args.std),
        # A random draw is no uncertainty to look at.
        uncertainty=ACQUISITIONS["margin_sampling" if args.query_strategy == "random"
                                 else args.query_strategy],
        fresh_network=fresh_network, augmentation=Augmentation(**flags.augmentation_kwargs(args)),
        optimizer=flags.optimizer_kwargs(args), schedule=args.schedule,
        batch_size=args.batch_size, n_epochs=args.n_epochs, eval_interval=args.eval_interval,
        seed=args.seed,
        config={"dataset": args.dataset_name, "grid": list(grid), "network": network,
                "mean": list(args.mean), "std": list(args.std),
                "classes": list(spec.class_names), "seed": args.seed,
                "asking": flags.asking_kwargs(args)})


if __name__ == "__main__":
    run_program(main)
