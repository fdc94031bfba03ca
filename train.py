"""Rounds of asking for a few pixels an image and training on all of them; or, with
`--n_pixels_by_us 0`, training on full masks. The same command continues an interrupted run."""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import args as flags
from datasets import DatasetSpec
from datasets.augment import Augmentation
from datasets.batches import Batch, Splitting, n_batches
from datasets.caches import Cache
from datasets.labellers import LABELLERS, Labeller, WaitingForLabels, void_masks
from datasets.loading import load_both
from datasets.noise import LabelNoise
from datasets.points import Points, concatenate, padded, read_labels, write_labels
from datasets.queries import Query, read_query, write_query
from datasets.split import LoadedSplit
from networks import build_network
from networks.weights import load_backbone_weights, pretrained_weights
from query import ACQUISITIONS, excluding, initial_query, next_query
from utils.acquisition import needs
from utils.batch_norm import train_mode, with_sync_bn
from utils.compiling import compiled
from utils.device import select_autocast, select_device
from utils.distributed import (
    from_main,
    is_main,
    is_parallel,
    local_world_size,
    main_first,
    process_group,
    rank,
    sum_over_ranks,
    without_exchange,
    world_size,
)
from utils.dropout import active_dropout
from utils.errors import InputError, run_program
from utils.experiment import Experiment
from utils.files import read_json, write_json
from utils.flags import DIR_ROOT
from utils.inference import Predictor
from utils.losses import CrossEntropy, balanced
from utils.machine import describe_machine
from utils.plots import save_curve
from utils.round_training import RoundTraining
from utils.run_groups import rounds_of
from utils.runs import (
    NOT_THE_EXPERIMENT,
    MetricsTable,
    check_flags,
    move_aside,
    record_flags,
    round_line,
    with_digests,
)
from utils.statistics import answer_statistics, query_statistics
from utils.teacher import Teacher
from utils.tracking import Tracking, check_tracker

WAITING = 3  # exit code: a person has to answer before it goes on


def forward_of(autocast: Callable[[], AbstractContextManager], *,
               at_all: bool = False) -> Callable[..., Tensor]:
    """The forward pass of training, under `autocast`; `at_all`: see `network(x, points)`."""
    def forward(network: nn.Module, images: Tensor, points: Tensor | None = None,
                statistics_points: Tensor | None = None) -> Tensor:
        with autocast():
            if points is None:
                return network(images)
            return network(images, points, statistics_points=statistics_points, at_all=at_all)

    return forward


def train_one_epoch(network: nn.Module, batches: Iterable[Batch], *,
                    optimizer: torch.optim.Optimizer,
                    schedule: torch.optim.lr_scheduler.LRScheduler,
                    backward: Callable[..., Tensor], forward: Callable[..., Tensor],
                    step_done: Callable[[Tensor], None], loss: CrossEntropy,
                    teacher: Teacher | None = None, n_pieces: int = 1,
                    freeze_bn: bool = False) -> float:
    """Mean loss of the epoch; `forward` as `forward_of` returns it, called by `backward` as the
    function below does; `step_done` is called after each step with its loss, still on the device.

    A step is made of `n_pieces` batches in a row, and of those of all processes: its loss is the
    (weighted) mean over the labelled positions in all of them, and what a `teacher` adds."""
    train_mode(network, freeze_bn=freeze_bn)
    batches, losses = iter(batches), []
    while pieces := list(itertools.islice(batches, n_pieces)):
        weights = [loss.weight_of(batch.labels, ignore_index=batch.ignore_index)
                   for batch in pieces]
        total = sum_over_ranks(sum(weights[1:], start=weights[0]))
        part = functools.partial(backward, network, total=total, forward=forward, loss=loss,
                                 teacher=teacher, n_pieces=len(pieces))
        optimizer.zero_grad()
        with without_exchange(network):
            parts = [part(batch) for batch in pieces[:-1]]
        parts.append(part(pieces[-1]))
        optimizer.step()
        schedule.step()
        losses.append(sum(parts[1:], start=parts[0]))
        step_done(losses[-1])
    return (sum_over_ranks(torch.stack(losses).mean()) / world_size()).item()


def backward(network: nn.Module, batch: Batch, total: Tensor, *, forward: Callable[..., Tensor],
             loss: CrossEntropy, teacher: Teacher | None = None, n_pieces: int = 1) -> Tensor:
    """Adds the gradient of a batch's part of a mean over positions of weight `total` in all; that
    part. Both times the number of processes, over which they are averaged later."""
    logits = forward(network, batch.images, batch.points, batch.statistics_points)
    if teacher:
        logits, drawn = logits.tensor_split([batch.points.shape[1]], dim=1)
    part = loss(logits, batch.labels, ignore_index=batch.ignore_index, total=total)
    if is_parallel():
        part = world_size() * part
    if teacher:
        part = part + teacher.loss(batch, drawn) / n_pieces
    part.backward()
    return part.detach()


class ActiveLearning:
    """The rounds: ask, get answers, train; every step is skipped that its files show as done.

    `init_query`, a file, is asked in the first round, if given. Of several processes the main one
    reads and writes the files; all know what is in them."""

    def __init__(self, experiment: Experiment, *, labeller: Labeller, n_rounds: int,
                 n_init_pixels: int, init_query: str | None, asking: dict, noise: LabelNoise,
                 max_mask_gb: float, tracking: Tracking) -> None:
        self._experiment, self._labeller, self._n_rounds = experiment, labeller, n_rounds
        self._n_init_pixels, self._init_query = n_init_pixels, init_query
        self._asking, self._noise, self._max_mask_gb = asking, noise, max_mask_gb
        self._tracking = tracking
        self._answered: list[Points] = []

    def run(self, metrics: MetricsTable) -> None:
        """Raises WaitingForLabels if a round's answers are missing; all before it is done."""
        experiment = self._experiment
        for r in range(self._n_rounds):
            folder = self._folder(r)
            self._ask(r)
            points = concatenate(self._answered)
            if r < len(metrics.rows):
                self._tracking.round_done(r, metrics.rows[r], folder)
                print(round_line(metrics.rows[r], self._n_rounds))
                continue
            training = self._fit(r)
            if is_main():
                experiment.save_pictures(folder, training.network, points)
            metrics.put(experiment.metrics_row(
                training, r, n_asked=len(points), n_void=points.n_void,
                query_seconds=from_main(lambda f=folder: float(self._statistics(f)["seconds"]))),
                write=is_main())
            self._tracking.round_done(r, metrics.rows[r], folder)
            print(round_line(metrics.rows[r], self._n_rounds), flush=True)

    def _folder(self, r: int) -> Path:
        return self._experiment.folder / f"{r}_query"

    def _fit(self, r: int) -> RoundTraining:
        def supervision(epoch: int) -> tuple[np.ndarray, np.ndarray]:
            points = [answers if i == 0 else self._noise.apply(answers, round_index=i, use=epoch)
                      for i, answers in enumerate(self._answered)]
            return padded(concatenate(points), n_images=len(self._experiment.train))

        once = functools.cache(lambda: supervision(0))
        every = supervision if self._noise.p and self._noise.redraw else lambda _: once()
        return self._experiment.fit(self._folder(r), r, supervision=every,
                                    epoch_done=functools.partial(self._tracking.epochs_done, r))

    def _ask(self, r: int) -> None:
        """Choose the pixels of a round and get their answers, unless that has been done."""
        folder = self._folder(r)
        if not from_main((folder / "query.json").exists):
            self._choose(r)
        self._answered.append(from_main(lambda: self._answers(folder)))

    def _answers(self, folder: Path) -> Points:
        split = self._experiment.train
        if not (folder / "labels.csv").exists():
            self._get_answers(folder)
        return read_labels(folder / "labels.csv", names=split.names, sizes=split.sizes,
                           n_classes=self._experiment.spec.n_classes)

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
        network = None if r == 0 else self._fit(r - 1).network
        start = time.perf_counter()
        excluded = excluding(self._labeller.never_asked(split),
                             earlier.by_image(len(split)))
        query, entropies = self._query(r, network, excluded)
        if not is_main():
            return
        write_json(folder / "query_stats.json", query_statistics(
            query.pixels, entropies=entropies, seconds=time.perf_counter() - start))
        notice = write_query(folder, query, max_mask_gb=self._max_mask_gb)
        if notice:
            print(notice, file=sys.stderr)

    def _query(self, r: int, network: nn.Module | None,
               excluded: Sequence[np.ndarray]) -> tuple[Query, np.ndarray | None]:
        experiment, split = self._experiment, self._experiment.train
        if network is not None:
            return next_query(network, split, predictor=experiment.predictor, excluded=excluded,
                              seed=experiment.seed, round_index=r, **self._asking)
        if self._init_query is not None:
            return read_query(self._init_query, names=split.names, sizes=split.sizes), None
        return initial_query(split, n=self._n_init_pixels, excluded=excluded,
                             seed=experiment.seed), None


def train_fully(experiment: Experiment, metrics: MetricsTable, *, tracking: Tracking) -> None:
    """Training on full masks: one round without queries, in the folder `full`."""
    folder = experiment.folder / "full"
    if not metrics.rows:
        labels = experiment.train.grid_labels()
        training = experiment.fit(folder, 0, supervision=lambda _: (None, labels),
                                  epoch_done=functools.partial(tracking.epochs_done, 0))
        if is_main():
            experiment.save_pictures(folder, training.network, concatenate([]))
        metrics.put(experiment.metrics_row(
            training, 0, n_asked=int(experiment.train.sizes.prod(axis=1).sum()),
            n_void=sum(int(mask.sum()) for mask in void_masks(experiment.train)),
            query_seconds=0.0), write=is_main())
    tracking.round_done(0, metrics.rows[0], folder)
    print(round_line(metrics.rows[0], 1))


def main(argv: Sequence[str] | None = None) -> int:
    with process_group():
        return run(flags.parse_arguments(argv))


def run(args: argparse.Namespace) -> int:
    folder = Path(args.dir_checkpoints) / flags.experiment_name(args)
    recorded = with_digests(vars(args))
    from_main(lambda: check_tracker(args.tracker))
    spec = flags.spec_of(args)
    if not args.overwrite:
        from_main(lambda: check_flags(folder, flags=recorded, free=NOT_THE_EXPERIMENT))
    labeller = LABELLERS[args.labeller](classes=spec, **flags.annotator_kwargs(args))
    experiment = build_experiment(args, folder, spec=spec, with_labels=labeller.reads_truth)
    tracking = Tracking(args.tracker, run=folder, flags=recorded, class_names=spec.class_names,
                        n_epochs=args.n_epochs)

    def open_run() -> MetricsTable:
        if args.overwrite and folder.exists():
            print(f"the old run is now in {move_aside(folder)}", file=sys.stderr)
        record_flags(folder, flags=recorded, repository=DIR_ROOT, n_processes=world_size(),
                     machine=describe_machine(experiment.device))
        metrics = MetricsTable(folder / "metrics.csv", experiment.metrics_columns())
        tracking.open()
        return metrics

    metrics = from_main(open_run)
    with tracking:
        return train_and_ask(args, experiment, metrics, labeller=labeller, tracking=tracking)


def train_and_ask(args: argparse.Namespace, experiment: Experiment, metrics: MetricsTable, *,
                  labeller: Labeller, tracking: Tracking) -> int:
    """What is left of the run; the exit code."""
    folder, spec, done = experiment.folder, experiment.spec, len(metrics.rows)
    if args.n_pixels_by_us == 0:
        train_fully(experiment, metrics, tracking=tracking)
        if done:
            print("this run was finished")
        print(f"figures: {folder / 'metrics.csv'}\n"
              f"pictures: {folder / 'full' / 'qualitative.png'}")
        return 0
    n_rounds = rounds_of(vars(args))
    rounds = ActiveLearning(
        experiment, labeller=labeller, n_rounds=n_rounds, n_init_pixels=args.n_init_pixels,
        init_query=args.init_query, asking=flags.asking_kwargs(args),
        noise=LabelNoise(p=args.label_noise, redraw=args.label_noise_redraw,
                         n_classes=spec.n_classes, seed=args.seed),
        max_mask_gb=args.max_mask_gb, tracking=tracking)
    try:
        rounds.run(metrics)
    except WaitingForLabels as waiting:
        print(waiting)
        return WAITING
    if done >= n_rounds:
        print(f"this run was finished; raise --max_budget ({args.max_budget}) to go on with it")
    columns = {name: [float(row[name]) for row in metrics.rows]
               for name in ("pixels_per_image", "miou_last", "miou_best")}
    if experiment.val and is_main():
        save_curve(folder / "curve.png", pixels=columns["pixels_per_image"], title=folder.name,
                   last=columns["miou_last"], best=columns["miou_best"])
        print(f"curve: {folder / 'curve.png'} (figures: metrics.csv beside it)")
    print(f"pictures: {folder / '*_query' / 'qualitative.png'}")
    return 0


def load_data(args: argparse.Namespace, spec: DatasetSpec, *,
              with_labels: bool) -> tuple[LoadedSplit, LoadedSplit | None]:
    cache = Cache(device=select_device(args.device), n_processes=local_world_size(),
                  **flags.cache_kwargs(args))
    train, val = load_both(spec, cache=cache, with_labels=with_labels, **flags.data_kwargs(args))
    if n_batches(len(train), args.batch_size, smallest=1 if args.freeze_bn else 2) == 0:
        raise InputError(f"{args.dir_dataset}: {len(train)} training image; batch norm needs two")
    return train, val


def build_experiment(args: argparse.Namespace, folder: Path, *, spec: DatasetSpec,
                     with_labels: bool) -> Experiment:
    """Everything that can be wrong with the input is found here, before anything is written.

    with_labels: whether the training images need label maps; if not, a validation set is optional.
    """
    device = select_device(args.device)
    splitting = Splitting(**flags.splitting_kwargs(args, rank=rank(), world_size=world_size()))
    if args.sync_bn and device.type != "cuda":
        raise InputError(f"--sync_bn works on GPUs, not on the device {device}; give --batch_size "
                         f"{2 * splitting.world_size * splitting.n_pieces} or more instead, or "
                         "--freeze_bn")
    if args.compile and device.type == "cuda" and splitting.world_size * splitting.n_pieces > 1:
        raise InputError("--compile on a GPU is for one process and --grad_accum 1; leave it out")
    if args.compile and args.teacher and device.type == "cuda":
        raise InputError("--compile on a GPU records a step, and --teacher's weight grows from "
                         "step to step; leave one of them out")
    network = flags.network_kwargs(args, n_classes=spec.n_classes)
    trial = build_network(**network)
    with main_first():
        pretrained = pretrained_weights(trial.backbone, **flags.pretrained_kwargs(args))
    if args.use_mc_dropout:
        active_dropout(trial)

    def fresh_network() -> nn.Module:
        fresh = build_network(**network)
        if pretrained is not None:
            load_backbone_weights(fresh.backbone, pretrained, source=args.weight_type)
        return with_sync_bn(fresh) if args.sync_bn else fresh

    train, val = load_data(args, spec, with_labels=with_labels)
    autocast = select_autocast(args.amp, device)
    forward, step_backward = forward_of(autocast, at_all=args.teacher > 0), backward
    if args.compile:
        forward, step_backward = compiled(forward, backward, device=device,
                                          batch_size=args.batch_size)
    return Experiment(
        folder=folder, spec=spec, train=train, val=val, device=device, autocast=autocast,
        forward=forward,
        predictor=Predictor(device=device, batch_size=args.eval_batch_size, mean=args.mean,
                            std=args.std, share=(rank(), world_size())),
        # Neither a random draw nor one network's committee is an uncertainty to look at.
        uncertainty=ACQUISITIONS["margin_sampling" if needs(args.query_strategy)
                                 else args.query_strategy],
        train_one_epoch=functools.partial(train_one_epoch, backward=step_backward,
                                          n_pieces=args.grad_accum, freeze_bn=args.freeze_bn),
        loss_of=functools.partial(balanced, **flags.loss_kwargs(args)), ema=args.ema,
        teacher=flags.teacher_kwargs(args),
        fresh_network=fresh_network,
        augmentation=Augmentation(**flags.augmentation_kwargs(args, canvas=train.canvas)),
        optimizer=flags.optimizer_kwargs(args), schedule=args.schedule,
        batch_size=args.batch_size, splitting=splitting, n_epochs=args.n_epochs,
        eval_interval=args.eval_interval, seed=args.seed,
        config={"dataset": spec.to_dict(), "downsample": args.downsample, "network": network,
                "mean": list(args.mean), "std": list(args.std), "n_images": args.n_images,
                "classes": list(spec.class_names), "seed": args.seed,
                "asking": flags.asking_kwargs(args)})


if __name__ == "__main__":
    run_program(main)
