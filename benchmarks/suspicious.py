"""How well utils/suspicious.py finds wrong answers, on a run whose answers are known to be wrong.

    python benchmarks/suspicious.py spoil --dataset_name demo --dir_dataset data/demo \
        --fraction 0.1 --output data/demo_wrong
    python train.py --dataset_name demo --dir_dataset data/demo_wrong --dir_checkpoints DIR
    python benchmarks/suspicious.py measure DIR/RUN... --truth data/demo

`spoil` copies a data set, with a uniformly drawn wrong class in that fraction of the training label
maps' pixels. `measure` prints, for every choice of --networks and --score, the area under the ROC
curve (0.5: a random order) and how many of the first n answers of the list are wrong; then how many
answers a --min_confidence lets through. With several runs: the mean over them."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets import DATASET_NAMES, DATASETS, DatasetSpec
from datasets.images import list_samples, read_label, read_raw_label
from datasets.points import VOID, answer
from utils.answered import Answered, finished_round, read_record
from utils.contradictions import JUDGES, SCORES, rank
from utils.errors import InputError, run_program
from utils.parsing import Parser, fraction, named
from utils.seeds import random_generator
from utils.suspicious import judge

_FIRST = (25, 50, 100)
_CONFIDENCES = (0.0, 0.8, 0.9, 0.95)


def spoil(source: Path, target: Path, *, spec: DatasetSpec, share: float) -> None:
    """Raises InputError if `target` is there, or label files hold no class indices."""
    if target.exists():
        raise InputError(f"{target} is there already")
    if spec.label_ids is not None or spec.void_colours is not None:
        raise InputError(f"{spec.name}: its label files do not hold class indices")
    shutil.copytree(source, target)
    for sample in list_samples(target, spec.splits["train"]):
        label = read_raw_label(sample.label)
        rng = random_generator(0, "wrong", sample.name)
        wrong = (rng.random(label.shape) < share) & (label < spec.n_classes)
        shift = rng.integers(1, spec.n_classes, size=label.shape)
        label = np.where(wrong, (label + shift) % spec.n_classes, label)
        Image.fromarray(label.astype(np.uint8)).save(sample.label)


def wrong_answers(answered: Answered, *, truth: str, spec: DatasetSpec) -> np.ndarray:
    """`(K,)` bool: another class than in the ground truth of the data set in `truth`."""
    path_of = {sample.name: sample.label for sample in list_samples(truth, spec.splits["train"])}
    points = answered.points
    right = answer(points.by_image(len(answered.names)),
                   [read_label(path_of[name], spec=spec) for name in answered.names],
                   answered.sizes)
    label_of = dict(zip(zip(right.image, right.y, right.x, strict=True), right.label, strict=True))
    places = zip(points.image, points.y, points.x, strict=True)
    return np.array([label_of[place] != label
                     for place, label in zip(places, points.label, strict=True)], bool)


def area_under_roc(scores: np.ndarray, wrong: np.ndarray) -> float:
    """The probability that a wrong answer is ranked above a right one."""
    n = wrong.sum()
    return (rankdata(scores)[wrong].sum() - n * (n + 1) / 2) / (n * (~wrong).sum())


def measure(run: Path, *, truth: str) -> dict[tuple[str, str], list[float]]:
    """By (networks, score): area, precision of the first _FIRST, and for each of _CONFIDENCES how
    many are listed and how many of these are wrong."""
    flags = read_record(run)["flags"]
    spec, answered, found = judge(
        run, flags, last=finished_round(run, -1), judges=list(JUDGES), device_name="auto",
        dir_dataset=flags["dir_dataset"], batch_size=8, n_workers=1)
    wrong = wrong_answers(answered, truth=truth, spec=spec)
    known = answered.points.label != VOID
    print(f"{run.name}: {wrong.sum()} of {len(wrong)} answers are wrong")
    rows = {}
    for name, probabilities in zip(JUDGES, found, strict=True):
        for score in SCORES:
            row = [area_under_roc(SCORES[score](probabilities, np.maximum(
                answered.points.label, 0))[known], wrong[known])]
            listed = rank(probabilities, answered.points, score=score, min_confidence=0.0).index
            row += [wrong[listed[:n]].mean() for n in _FIRST]
            for least in _CONFIDENCES:
                listed = rank(probabilities, answered.points, score=score,
                              min_confidence=least).index
                row += [len(listed), wrong[listed].sum()]
            rows[name, score] = row
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description="How well suspicious answers are found.",
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("spoil", help="copy a data set with wrong labels")
    p.add_argument("--dataset_name", type=named("dataset", DATASET_NAMES), default="demo")
    p.add_argument("--dir_dataset", required=True)
    p.add_argument("--fraction", type=fraction, default=0.1)
    p.add_argument("--output", required=True)
    p = commands.add_parser("measure", help="compare the order with the truth")
    p.add_argument("runs", nargs="+", metavar="RUN")
    p.add_argument("--truth", required=True, help="the data set with the right labels")
    args = parser.parse_args(argv)
    if args.command == "spoil":
        spoil(Path(args.dir_dataset), Path(args.output), share=args.fraction,
              spec=DATASETS[DATASET_NAMES[args.dataset_name]])
        return 0
    of_run = [measure(Path(run), truth=args.truth) for run in args.runs]
    header = ["networks", "score", "ROC area", *(f"wrong of first {n}, %" for n in _FIRST),
              *(f"listed at {c:g} (wrong)" for c in _CONFIDENCES)]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for key in of_run[0]:
        area, *rest = np.mean([rows[key] for rows in of_run], axis=0).tolist()
        first, listed = rest[:len(_FIRST)], rest[len(_FIRST):]
        cells = [*key, f"{area:.3f}", *(f"{100 * value:.0f}" for value in first),
                 *(f"{n:.0f} ({w:.0f})" for n, w in zip(listed[::2], listed[1::2], strict=True))]
        print("| " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    run_program(main)
