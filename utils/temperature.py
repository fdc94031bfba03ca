"""Which temperature calibrates a network: `python -m utils.temperature --checkpoint FILE
--dir_dataset DIR --split NAME`, for --temperature of train.py and query.py.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017:
the one number T for which the probabilities softmax(logits / T) make labels that the network was
not trained on likeliest. Of the network itself, not of a committee's mean."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from datasets.images import IGNORE
from datasets.split import LoadedSplit
from utils.calibration import Calibration
from utils.device import select_device, upload
from utils.errors import InputError, run_program
from utils.flags import temperature_parser
from utils.inference import Predictor
from utils.models import load_model
from utils.report.evaluation import Data
from utils.seeds import random_generator

N_PIXELS = 2000  # drawn of each image: they are on its label map, so few that all fit into memory
_LOWEST, _HIGHEST = 0.05, 20.0


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T, in 0.05..20, that minimises the negative log likelihood of labels `(K,)` under
    softmax(logits / T), logits `(K, C)`. Raises InputError if there are none, and for logits that
    are not finite."""
    if not len(labels):
        raise InputError("no labelled pixel to fit a temperature to")
    if not logits.isfinite().all():
        raise InputError("the network's logits are not finite; did the training diverge? Try "
                         "another checkpoint")
    found = minimize_scalar(lambda log: negative_log_likelihood(logits, labels, math.exp(log)),
                            bounds=(math.log(_LOWEST), math.log(_HIGHEST)), method="bounded")
    return math.exp(found.x)


def negative_log_likelihood(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """The mean, in nats."""
    return F.cross_entropy(logits.double() / temperature, labels).item()


def drawn_logits(network: nn.Module, split: LoadedSplit,
                 predictor: Predictor) -> tuple[Tensor, Tensor]:
    """Logits `(K, C)` and labels `(K,)` int64 of at most N_PIXELS labelled pixels of each image,
    drawn uniformly by its name."""
    logits, labels = [], []
    for batch, of_batch in predictor.logits(network, split, to_labels=True, exact=True):
        for index, of_image in zip(batch, of_batch, strict=True):  # (C, H, W)
            label = split.labels[index].ravel()
            known = np.flatnonzero(label != IGNORE)
            chosen = random_generator(0, "temperature", split.names[index]).choice(
                known, min(N_PIXELS, len(known)), replace=False)
            logits.append(of_image.flatten(1)[:, upload(chosen, of_image.device)].T)
            labels.append(torch.from_numpy(label[chosen].astype(np.int64)))
    return torch.cat(logits).cpu(), torch.cat(labels)


def calibration_error(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """Expected calibration error, in 0..1."""
    calibration = Calibration(ignore_index=IGNORE, device=logits.device)
    calibration.update((logits / temperature).softmax(dim=1), labels)
    return calibration.compute().error


def main(argv: Sequence[str] | None = None) -> int:
    args = temperature_parser().parse_args(argv)
    model = load_model(args.checkpoint, device=select_device(args.device))
    data = Data(folder=Path(args.dir_dataset), flags={}, n_workers=args.n_workers)
    logits, labels = drawn_logits(model.network, data.load(model, args.split, with_labels=True),
                                  model.predictor(batch_size=args.batch_size))
    temperature = round(fitted_temperature(logits, labels), 3)
    before, after = ((negative_log_likelihood(logits, labels, t),
                      100 * calibration_error(logits, labels, t)) for t in (1.0, temperature))
    print(f"negative log likelihood {before[0]:.3f} -> {after[0]:.3f} nats, expected calibration "
          f"error {before[1]:.1f} -> {after[1]:.1f} %, on {len(labels)} pixels of {args.split}",
          file=sys.stderr)
    print(f"--temperature {temperature:g}")
    return 0


if __name__ == "__main__":
    run_program(main)
