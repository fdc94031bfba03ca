"""Time and memory of one training step, the plain way and ours, side by side.

    python benchmarks/step.py --json step.json

The plain way is what PixelPick's authors do: float32, logits of the whole map resized to the image,
dense cross-entropy with all but the labelled pixels ignored; they also resize the decoder's 256
channels to the image. `plain` does that too, `plain_lean` does not. Ours: logits at the points
alone, in bfloat16 where the hardware has it (`ours`) and in float32 (`ours_float32`). All variants
take turns in one process; each one's peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import (
    describe_machine,
    peak_memory_mb,
    print_table,
    synchronise,
)
from datasets.images import IGNORE
from datasets.points import VOID
from networks import BACKBONES, N_STATISTICS_POINTS, build_network
from utils.device import select_autocast, select_device
from utils.errors import run_program
from utils.files import write_json
from utils.losses import cross_entropy
from utils.optimisation import OPTIMIZERS

N_CLASSES = 11
VARIANTS = ("plain", "plain_lean", "ours_float32", "ours")


def make_step(variant: str, *, backbone: str, size: tuple[int, int], batch_size: int,
              n_points: int, device: torch.device) -> Callable[[], None]:
    """One training step on random images with `n_points` random labels each."""
    torch.manual_seed(0)
    network = build_network("deeplab", backbone=backbone, n_classes=N_CLASSES).to(device).train()
    images = torch.randn(batch_size, 3, *size, device=device)
    scale = torch.tensor(size, device=device)
    points = (torch.rand(batch_size, n_points, 2, device=device) * scale).floor()
    labels = torch.randint(N_CLASSES, (batch_size, n_points), device=device)
    if variant.startswith("plain"):
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-4)
        loss_of = plain_loss(network, images, points, labels, embedding=variant == "plain")
    else:
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
        optimizer = OPTIMIZERS["adam"](network.parameters(), lr=5e-4)
        drawn = torch.rand(batch_size, N_STATISTICS_POINTS, 2, device=device) * scale - 0.5
        autocast = select_autocast("auto" if variant == "ours" else "off", device)

        def loss_of() -> Tensor:
            with autocast():
                logits = network(images, points, statistics_points=drawn)
            return cross_entropy(logits, labels, ignore_index=VOID)

    def step() -> None:
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def plain_loss(network: nn.Module, images: Tensor, points: Tensor, labels: Tensor, *,
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


def time_variants(steps: dict[str, Callable[[], None]], *, repeats: int,
                  device: torch.device) -> dict[str, float]:
    """Median seconds of a step of each variant, the variants taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 2):
        for name, step in steps.items():
            synchronise(device)
            start = time.perf_counter()
            step()
            synchronise(device)
            if turn >= 2:  # the first ones warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the rows here")
    parser.add_argument("--backbone", choices=BACKBONES, default="mobilenetv2")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("H", "W"))
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--points", type=int, nargs="+", default=(10, 100))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory_of", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = select_device(args.device)
    setting = dict(backbone=args.backbone, size=tuple(args.size), batch_size=args.batch_size,
                   device=device)
    if args.memory_of:
        step = make_step(args.memory_of, n_points=args.points[0], **setting)
        for _ in range(3):
            step()
        print(peak_memory_mb(device))
        return 0
    rows = []
    for n_points in args.points:
        steps = {name: make_step(name, n_points=n_points, **setting) for name in VARIANTS}
        row: dict[str, float] = {"points": n_points}
        row |= {f"{name}_s": value for name, value in
                time_variants(steps, repeats=args.repeats, device=device).items()}
        del steps
        for name in VARIANTS:
            command = [sys.executable, __file__, "--memory_of", name, "--points", str(n_points),
                       "--backbone", args.backbone, "--size", *map(str, args.size),
                       "--batch_size", str(args.batch_size), "--device", args.device]
            row[f"{name}_peak_mb"] = float(subprocess.check_output(command, text=True))
        rows.append(row)
    print(json.dumps(describe_machine(device)))
    print_table(["points", "variant", "s a step", "of plain", "peak MB", "of plain"], [
        [row["points"], name, row[f"{name}_s"], row[f"{name}_s"] / row["plain_s"],
         f"{row[f'{name}_peak_mb']:.0f}", row[f"{name}_peak_mb"] / row["plain_peak_mb"]]
        for row in rows for name in VARIANTS])
    if args.json:
        write_json(args.json, rows)
    return 0


if __name__ == "__main__":
    run_program(main)
