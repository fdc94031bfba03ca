"""One training step on random images and labels: the plain way, and ours.

The plain way is what PixelPick's authors do: float32, logits of the whole map resized to the image,
dense cross-entropy with all but the labelled pixels ignored; they also resize the decoder's 256
channels to the image. `plain` does that too, `plain_lean` does not. `ours` is train.py's step:
logits at the points alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import peak_memory_mb, synchronise
from datasets.batches import Batch
from datasets.images import IGNORE
from datasets.points import VOID
from networks import N_STATISTICS_POINTS, build_network
from train import backward, forward_of
from utils.compiling import compiled
from utils.device import select_autocast, select_device
from utils.losses import cross_entropy
from utils.optimisation import build_optimizer

N_CLASSES = 11
WAYS = ("plain", "plain_lean", "ours")
WARMING_TURNS = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is measured. `size` (h, w) in pixels; `points` labels an image; `amp` as --amp."""

    way: str = "ours"
    network: str = "deeplab"
    backbone: str = "mobilenetv2"
    size: tuple[int, int] = (360, 480)
    batch_size: int = 4
    points: int = 10
    amp: str = "auto"
    compile: bool = False

    def build(self, device: torch.device) -> Callable[[], None]:
        """A function that makes one step."""
        torch.manual_seed(0)
        network = build_network(self.network, backbone=self.backbone,
                                n_classes=N_CLASSES).to(device).train()
        images = torch.randn(self.batch_size, 3, *self.size, device=device)
        scale = torch.tensor(self.size, device=device)
        points = (torch.rand(self.batch_size, self.points, 2, device=device) * scale).floor()
        labels = torch.randint(N_CLASSES, (self.batch_size, self.points), device=device)
        if self.way == "ours":
            network = network.to(memory_format=torch.channels_last)
            images = images.contiguous(memory_format=torch.channels_last)
            optimizer = build_optimizer(network, name="adam", lr=5e-4, backbone_lr_factor=0.1,
                                        weight_decay=2e-4)
            drawn = torch.rand(self.batch_size, N_STATISTICS_POINTS, 2, device=device)
            drawn = drawn * scale - 0.5
            forward, step_backward = forward_of(select_autocast(self.amp, device)), backward
            if self.compile:
                forward, step_backward = compiled(forward, backward, device=device,
                                                  batch_size=self.batch_size)
            batch = Batch(images=images, labels=labels, points=points, statistics_points=drawn)

            def add_gradients() -> None:
                step_backward(network, batch, (labels != VOID).sum(), forward=forward,
                              loss=cross_entropy)
        else:
            optimizer = torch.optim.Adam(network.parameters(), lr=5e-4)
            loss_of = _plain_loss(network, images, points, labels, embedding=self.way == "plain")

            def add_gradients() -> None:
                loss_of().backward()

        def step() -> None:
            optimizer.zero_grad()
            add_gradients()
            optimizer.step()

        return step


def _plain_loss(network: nn.Module, images: Tensor, points: Tensor, labels: Tensor, *,
                embedding: bool) -> Callable[[], Tensor]:
    size = images.shape[-2:]
    dense = torch.full((len(images), *size), IGNORE, device=images.device)
    y, x = points.long().unbind(dim=-1)
    dense[torch.arange(len(images), device=images.device)[:, None], y, x] = labels
    kept: list[Tensor] = []
    if embedding:
        network.decoder.classifier.register_forward_pre_hook(
            lambda _, inputs: kept.append(F.interpolate(inputs[0], size=size, mode="bilinear",
                                                        align_corners=True)))

    def loss_of() -> Tensor:
        kept.clear()
        return cross_entropy(network(images), dense, ignore_index=IGNORE)

    return loss_of


def seconds_in_turns(made: Sequence[Callable[[], None]], *, repeats: int, device: torch.device
                     ) -> tuple[list[float], list[float]]:
    """Of each, built by `Step.build`, median seconds of a step and seconds until it was warm; the
    steps take turns, so that all see the same machine. A turn on a GPU is ten steps, queued without
    waiting."""
    n = 10 if device.type == "cuda" else 1
    seconds: list[list[float]] = [[] for _ in made]
    for turn in range(repeats + WARMING_TURNS):
        for step, times in zip(made, seconds, strict=True):
            synchronise(device)
            start = time.perf_counter()
            for _ in range(n):
                step()
            synchronise(device)
            times.append((time.perf_counter() - start) / (1 if turn < WARMING_TURNS else n))
    return ([statistics.median(times[WARMING_TURNS:]) for times in seconds],
            [sum(times[:WARMING_TURNS]) for times in seconds])


def peak_mb_alone(step: Step, *, device: str) -> float:
    """Peak memory of three steps in a process of their own."""
    command = [sys.executable, __file__, device, json.dumps(asdict(step))]
    return float(subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    used = select_device(sys.argv[1])
    described = json.loads(sys.argv[2])
    run = Step(**described | {"size": tuple(described["size"])}).build(used)
    for _ in range(3):
        run()
    print(peak_memory_mb(used))
