"""What exact points are worth: against points as pixels of a mask.

    python benchmarks/masked_points.py --json FILE
    python benchmarks/masked_points.py --points mask --json FILE -- --dataset_name cv ...

The original program keeps the labels of an image as a mask, empty but for the asked pixels, which
is resized with the image by nearest neighbour: below scale 1 labels are lost, above it they are
repeated, and all move by part of a pixel. The first line measures that, without training. The
second one also trains with such masks: train.py with the flags behind `--`, in a run of its own
(suffix `mask`); batch norm, decoder and all draws are those of train.py. With `--points exact` it
is train.py itself. For several seeds, repeat both with --seed; `python -m utils.table RUN...` then
compares the runs. (Do not repeat the suffix with train.py or in a study: they go on with exact
points.) It differs from the original in that a crop may begin between two pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets.batches
import train
from args import experiment_name, parse_arguments
from benchmarks.machine import print_table
from datasets.augment import Augmentation, Draw, Warp
from datasets.images import IGNORE
from datasets.points import VOID, Points, padded
from utils.device import select_device
from utils.errors import InputError, run_program
from utils.files import read_csv, write_json
from utils.flags import DIR_ROOT
from utils.machine import describe_machine
from utils.parsing import Parser, known, split_at_dashes
from utils.runs import public_command
from utils.seeds import random_generator
from utils.version import git_commit

SCALES = (0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 1.75, 2.0)
_SIZE, _N_POINTS, _N_IMAGES = (90, 120), 200, 40


class MaskedWarp(Warp):
    """Moves points as the pixels of a mask are moved, by nearest neighbour."""

    def points(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, P, 2)` pixels and `(B, P)` -> the labelled pixels of the output, `(B, Q, 2)` and
        `(B, Q)`, VOID pads."""
        image, slot = (labels != VOID).nonzero(as_tuple=True)
        y, x = points[image, slot].long().unbind(dim=-1)
        height, width = self._sizes.amax(dim=0).int().tolist()
        masks = torch.full((len(points), height, width), IGNORE, dtype=torch.uint8,
                           device=labels.device)
        masks[image, y, x] = labels[image, slot].byte()
        warped = self.labels(masks).cpu().numpy()
        image, y, x = (warped != IGNORE).nonzero()
        moved = padded(Points(image, y, x, warped[image, y, x]), n_images=len(warped))
        return tuple(torch.from_numpy(array).to(labels.device) for array in moved)


@contextmanager
def masked_points() -> Iterator[None]:
    """Within it training batches have their points from masks."""
    datasets.batches.Warp = MaskedWarp
    try:
        yield
    finally:
        datasets.batches.Warp = Warp


def what_masks_do(scale: float) -> dict[str, float]:
    """To points of images of 90x120, scaled by `scale`, cropped to that size and flipped or not. Of
    those inside the crop: which part of them is `lost`, how many pixels one becomes on average
    (`copies`), and how far these are from its place, in pixels of the output (`moved`)."""
    augmentation = Augmentation(crop=_SIZE, scale=(scale, scale), mean=(0.5,) * 3, std=(0.5,) * 3)
    draws, pixels = [], []
    for number in range(_N_IMAGES):
        rng = random_generator(0, "masks", number)
        draws.append(augmentation.draw(rng, _SIZE))
        chosen = rng.choice(_SIZE[0] * _SIZE[1], _N_POINTS, replace=False)
        pixels.append(np.stack(np.unravel_index(chosen, _SIZE), axis=-1))
    points = torch.from_numpy(np.stack(pixels)).float()
    labels = torch.arange(_N_POINTS).repeat(_N_IMAGES, 1)  # each its own, to know it again
    where = dict(sizes=np.tile(_SIZE, (_N_IMAGES, 1)), crop=_SIZE, device=torch.device("cpu"))
    exact, inside = Warp(Draw.stack(draws), **where).points(points, labels)
    moved, found = MaskedWarp(Draw.stack(draws), **where).points(points, labels)
    image, slot = (found != VOID).nonzero(as_tuple=True)
    point = found[image, slot]
    copies = torch.zeros_like(inside).index_put((image, point), torch.tensor(1), accumulate=True)
    distance = (moved[image, slot] - exact[image, point]).norm(dim=-1)
    copies = copies[inside != VOID].float()
    return {"scale": scale, "lost": (copies == 0).float().mean().item(),
            "copies": copies.mean().item(), "moved": distance.mean().item()}


def checked(words: Sequence[str], *, points: str) -> list[str]:
    """The flags of train.py for a run with such points. Raises InputError."""
    args = parse_arguments(words)
    if args.n_pixels_by_us == 0:
        raise InputError("--n_pixels_by_us 0 has no points to compare")
    if points == "exact":
        return list(words)
    if args.compile:
        raise InputError("--compile is for batches of one shape; masks have any number of labelled "
                         "pixels")
    return [*words, "--suffix", "_".join(filter(None, [args.suffix, points]))]


def run(words: Sequence[str], *, points: str) -> dict:
    """A run of train.py; what its metrics.csv says. Raises InputError."""
    if code := WAYS[points](words):
        raise InputError(f"train.py ended with exit code {code}; the same command continues")
    args = parse_arguments(words)
    folder = Path(args.dir_checkpoints) / experiment_name(args)
    shown = ("pixels_per_image", "miou_last", "miou_best", "train_seconds")
    return {"points": points, "run": folder.name,
            "rounds": [{name: float(row[name]) for name in shown}
                       for row in read_csv(folder / "metrics.csv")]}


def _train_with_masks(words: Sequence[str]) -> int:
    with masked_points():
        return train.main(words)


WAYS = {"exact": train.main, "mask": _train_with_masks}


def main(argv: Sequence[str] | None = None) -> int:
    ours, words = split_at_dashes(sys.argv[1:] if argv is None else argv)
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", choices=WAYS, default="mask", help=known(WAYS))
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--note", default="", help="kept in the JSON")
    args = parser.parse_args(ours)
    flags = checked(words, points=args.points) if words else []
    content = {"command": public_command(["benchmarks/masked_points.py", *ours, "--", *words]),
               "note": args.note, "git_commit": git_commit(DIR_ROOT),
               "machine": describe_machine(select_device("auto")),
               "masks": [what_masks_do(scale) for scale in SCALES]}
    print_table(["scale", "lost, %", "copies", "moved, pixels"],
                [[row["scale"], 100 * row["lost"], row["copies"], row["moved"]]
                 for row in content["masks"]])
    if flags:
        content["training"] = run(flags, points=args.points)
    if args.json:
        write_json(args.json, content)
    return 0


if __name__ == "__main__":
    run_program(main)
