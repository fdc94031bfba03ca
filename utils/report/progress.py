"""The same training images by round: what was asked, and what the network made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from datasets.images import IGNORE, has_files, resize_label
from datasets.spec import ClassSet
from datasets.split import LoadedSplit
from utils.errors import InputError
from utils.experiment import N_PICTURES
from utils.files import write_atomically
from utils.models import load_model
from utils.report.evaluation import Data
from utils.report.recorded import Round

_N_SHOWN = 5  # rounds: the first, the last, and some between


def save_progress(path: Path, rounds: Sequence[Round], data: Data, *,
                  device: torch.device) -> list[int]:
    """Draw the rounds whose networks are there; the numbers of those that are shown. Raises
    InputError without data or networks."""
    rounds = [r for r in rounds if r.checkpoint]
    if not rounds:
        raise InputError("no round has kept its network")
    chosen = np.unique(np.linspace(0, len(rounds) - 1, _N_SHOWN).round().astype(int))
    rounds = [rounds[i] for i in chosen]
    model = load_model(rounds[-1].checkpoint, device=device)
    labels = data.folder is not None and has_files(data.folder, model.spec.splits["train"])
    split = data.load(model, "train", with_labels=labels)
    names = list(split.names)
    split = split.subset(np.unique(
        np.linspace(0, len(names) - 1, N_PICTURES).round().astype(int)))
    predictions = [_predictions(r, split, data, device=device) for r in rounds]
    _draw(path, split, rounds, predictions, spec=model.spec)
    return [r.number for r in rounds]


@torch.no_grad()
def _predictions(r: Round, split: LoadedSplit, data: Data, *,
                 device: torch.device) -> dict[int, np.ndarray]:
    """Per image its classes `(h, w)` on the grid."""
    model = load_model(r.checkpoint, device=device)
    predictor = model.predictor(batch_size=data.flags.get("eval_batch_size", 8))
    return {int(i): found.byte().cpu().numpy()
            for index, logits in predictor.logits(model.network, split, to_labels=False)
            for i, found in zip(index, logits.argmax(dim=1), strict=True)}


def _draw(path: Path, split: LoadedSplit, rounds: Sequence[Round],
          predictions: Sequence[dict[int, np.ndarray]], *, spec: ClassSet) -> None:
    palette = np.zeros((256, 3), np.uint8)
    palette[: spec.n_classes] = [info.colour for info in spec.classes]
    columns = 1 + (split.labels is not None) + len(rounds)
    heights = [h / w for h, w in split.sizes.tolist()]
    figure = Figure(figsize=(2.3 * columns, 2.3 * sum(heights) + 0.4 + 0.06 * len(heights)),
                    dpi=100, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    axes = figure.subplots(len(split), columns, squeeze=False, height_ratios=heights)
    for i, row in enumerate(axes):
        height, width = split.sizes[i].tolist()
        shown = [("image", split.images[i, :height, :width])]
        if split.labels is not None:
            label = resize_label(split.labels[i], (height, width))
            shown.append(("label map", np.where((label == IGNORE)[..., None], 0, palette[label])))
        shown += [(_title(r), palette[found[i]]) for r, found in
                  zip(rounds, predictions, strict=True)]
        for axis, (title, picture) in zip(row, shown, strict=True):
            axis.imshow(picture)
            axis.set_axis_off()
            if i == 0:
                axis.set_title(title, fontsize=9)
        for axis, r in zip(row[-len(rounds):], rounds, strict=True):
            asked = _asked(r, split.names[i])
            axis.scatter(asked[:, 1], asked[:, 0], s=16, facecolors="none", edgecolors="black",
                         linewidths=1.8)
            axis.scatter(asked[:, 1], asked[:, 0], s=16, facecolors="none", edgecolors="white",
                         linewidths=0.8)
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def _title(r: Round) -> str:
    return "prediction" if r.query is None else f"after {r.metrics['pixels_per_image']:.4g} pixels"


def _asked(r: Round, name: str) -> np.ndarray:
    """(y, x) of one image in this round, `(n, 2)`."""
    if r.query is None or name not in r.query.names:
        return np.zeros((0, 2), np.int64)
    return r.query.pixels[list(r.query.names).index(name)]
