"""The pictures of a report, by matplotlib without a display. All on white; the page inverts them in
the dark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils.calibration import Reliability
from utils.files import write_atomically
from utils.report.asked import Uncertainty

_DPI = 110


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _save(path: Path, figure: Figure) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def save_class_lines(path: Path, iou: np.ndarray, *, names: Sequence[str],
                     rounds: Sequence[str]) -> None:
    """IoU `(R, C)` in 0..1: a small plot for each class."""
    columns = 4
    rows = -(-len(names) // columns)
    height = 1.35 * rows + 0.4  # inches
    figure = Figure(figsize=(8, height), dpi=_DPI)
    figure.subplots_adjust(left=0.09, right=0.99, bottom=0.5 / height, top=1 - 0.25 / height,
                           hspace=0.35, wspace=0.08)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, name, values in zip(axes, names, iou.T, strict=False):
        axis.plot(range(len(values)), 100 * values, "o-", markersize=3)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(0, 100)
        axis.set_xticks(range(len(rounds)), rounds, fontsize=7)
        axis.tick_params(axis="y", labelsize=7)
        axis.grid(alpha=0.3)
    for axis in axes[len(names):]:
        axis.set_visible(False)
    figure.supxlabel("labelled pixels per image", fontsize=9)
    figure.supylabel("IoU (%)", fontsize=9)
    _save(path, figure)


def save_confusion(path: Path, confusion: np.ndarray, *, names: Sequence[str]) -> None:
    """Counts `(C, C)`: colour and large figures are percent of the row, small ones the pixels."""
    total = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(total, 1)
    size = 1.8 + 0.62 * len(names)
    figure = _figure(size, size)
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*confusion.shape):
        if not confusion[row, column]:
            continue
        colour = "white" if share[row, column] > 0.55 else "black"
        axis.text(column, row - 0.1, f"{100 * share[row, column]:.0f}", ha="center", va="center",
                  fontsize=10, color=colour)
        axis.text(column, row + 0.28, short_count(confusion[row, column]), ha="center",
                  va="center", fontsize=6, color=colour)
    labels = range(len(names))
    axis.set_xticks(labels, names, rotation=45, ha="right")
    axis.set_yticks(labels, [f"{name} ({short_count(n)})" for name, n in
                             zip(names, total[:, 0], strict=True)])
    axis.set_xlabel("predicted")
    axis.set_ylabel("true (pixels)")
    _save(path, figure)


def short_count(n: int) -> str:
    """1234567 as 1.2M."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= unit:
            return f"{n / unit:.2g}{letter}" if n < 100 * unit else f"{n / unit:.0f}{letter}"
    return str(int(n))


def save_asked_classes(path: Path, shares: dict[str, np.ndarray], *, names: Sequence[str]) -> None:
    """Bars by class; `shares`: what they are of -> `(C,)` in 0..1."""
    figure = _figure(8, 0.6 + 0.34 * len(names))
    axis = figure.subplots()
    height = 0.8 / len(shares)
    colours = {"all pixels of the images": "0.65"}
    for number, (label, share) in enumerate(shares.items()):
        axis.barh(np.arange(len(names)) + (number - (len(shares) - 1) / 2) * height, 100 * share,
                  height=height, label=label, color=colours.get(label, f"C{number}"))
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("share (%)")
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=8)
    _save(path, figure)


def save_positions(path: Path, maps: dict[str, np.ndarray], *, aspect: float) -> None:
    """Densities over the image, 1 is uniform; side by side."""
    figure = _figure(8, 0.5 + 8 / len(maps) / aspect * 0.72)
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for axis, (title, cells) in zip(axes, maps.items(), strict=True):
        shown = axis.imshow(cells, cmap="viridis", vmin=0, vmax=max(2, min(cells.max(), 5)),
                            extent=(0, aspect, 1, 0))
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(shown, ax=axis, shrink=0.8, label="times as often as uniform")
    _save(path, figure)


def save_uncertainty(path: Path, found: dict[str, Uncertainty], *, strategy: str) -> None:
    """Boxes by round: the predicted class' probability, and the acquisition score."""
    figure = _figure(8, 3.2)
    for axis, values, label in zip(
            figure.subplots(1, 2), ([u.probability for u in found.values()],
                                    [u.score for u in found.values()]),
            ("probability of the predicted class", f"score ({strategy})"), strict=True):
        axis.boxplot(values, whis=(5, 95), showfliers=False, widths=0.6)
        axis.set_xticks(range(1, len(found) + 1), list(found))
        axis.set_xlabel("round")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3, axis="y")
    _save(path, figure)


def save_reliability(path: Path, found: Reliability) -> None:
    """Accuracy against confidence, and how many pixels are in each bin."""
    n = len(found.count)
    figure = _figure(5, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centres = (np.arange(n) + 0.5) / n
    upper.plot([0, 1], [0, 1], "--", color="0.5", label="perfect")
    upper.bar(centres, np.nan_to_num(found.accuracy), width=0.9 / n, color="C0", alpha=0.35)
    known = found.count > 0
    upper.plot(found.confidence[known], found.accuracy[known], "o-", color="C0", markersize=4,
               label="the network")
    upper.set_ylabel("share that is right")
    upper.set_ylim(0, 1)
    upper.legend(fontsize=8)
    lower.bar(centres, 100 * found.count / max(found.count.sum(), 1), width=0.9 / n, color="0.6")
    lower.set_ylabel("% of pixels")
    lower.set_xlabel("confidence")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
        axis.set_xlim(0, 1)
    _save(path, figure)


def save_reliabilities(path: Path, found: dict[str, dict[str, Reliability]]) -> None:
    """Title -> label -> what is compared: a panel each, accuracy against confidence, and how many
    pixels are in each bin."""
    figure = _figure(1 + 4.2 * len(found), 5.4 + 0.15 * max(map(len, found.values())))
    axes = figure.subplots(2, len(found), sharex=True, sharey="row", squeeze=False,
                           height_ratios=(3, 1))
    labels = list(dict.fromkeys(label for panel in found.values() for label in panel))
    for (title, panel), upper, lower in zip(found.items(), *axes, strict=True):
        upper.plot([0, 1], [0, 1], "--", color="0.5")
        for label, curve in panel.items():
            colour, known = f"C{labels.index(label) % 10}", curve.count > 0
            upper.plot(curve.confidence[known], curve.accuracy[known], "o-", color=colour,
                       markersize=4, label=label)
            lower.stairs(100 * curve.count / max(curve.count.sum(), 1),
                         np.linspace(0, 1, len(curve.count) + 1), color=colour)
        upper.set_title(title, fontsize=10)
        upper.set_ylim(0, 1)
        lower.set_xlabel("confidence")
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
            axis.set_xlim(0, 1)
    handles = {label: handle for axis in axes[0] for handle, label in
               zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", fontsize=7)
    axes[0, 0].set_ylabel("share that is right")
    axes[1, 0].set_ylabel("% of pixels")
    _save(path, figure)
