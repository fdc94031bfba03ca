"""The card of a published checkpoint: what it is, what it was measured at, how it was made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.metrics import iou_columns


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a precision changes, over `n_images` of the evaluation split in float32: the largest
    difference of a logit, the fraction of pixels of another class, mIoU before and after."""

    n_images: int
    logit: float
    pixels: float
    miou: tuple[float, float]

    def __str__(self) -> str:
        before, after = self.miou
        return (f"On {self.n_images} evaluation images, computed in float32, the largest "
                f"difference of a logit is {self.logit:.2g}, {100 * self.pixels:.3g} % of the "
                f"pixels get another class, and the mIoU goes from {percent(before, 3)} to "
                f"{percent(after, 3)} %.")


@dataclass(frozen=True, kw_only=True)
class Card:
    """`config` as in the checkpoint; `row`: the round's of metrics.csv; `scores`: the evaluation of
    this very network, a row of log_val.csv, None without a validation set. `which`: last or best.
    `change`: None where nothing was measured, or nothing can change."""

    name: str
    sha256: str
    n_bytes: int
    precision: str
    which: str
    epoch: int
    config: dict
    row: dict[str, str]
    scores: dict[str, str] | None
    command: str
    git_commit: str | None
    versions: dict[str, str]
    licence: str | None
    change: Change | None

    def markdown(self) -> str:
        return "\n\n".join([
            f"# {self.name}", self._what(), "## Scores\n\n" + self._scores(),
            "## Precision\n\n" + self._precision(), "## Use\n\n" + self._use(),
            "## How it was made\n\n" + self._made(),
            "## Licence\n\n" + (self.licence or "Not stated: ask those who publish it. The data "
                                "set's own terms may bind what was trained on it.")]) + "\n"

    def _what(self) -> str:
        config, dataset, row = self.config, self.config["dataset"], self.row
        network, asking = config["network"], config["asking"]
        if asking["n"] == 0:
            pixels = f"all of the training images' pixels ({row['pixels_total']})"
            asked = "none: trained on full masks"
        else:
            pixels = (f"{float(row['pixels_per_image']):g} an image, {row['pixels_total']} in all "
                      f"({float(row['percent']):.3g} %), {row['void_answers']} of them answered "
                      "with void")
            asked = (f"{asking['strategy']}, {asking['n']} pixels an image a round, drawn from the "
                     f"top {100 * asking['top_n_percent']:g} %; seed {config['seed']}")
        reduced = f", divided by {config['downsample']}" if config["downsample"] > 1 else ""
        size = dataset["grid"]["size"]
        longer = dataset["grid"]["longer_side"]
        grid = (f"{size[0]}x{size[1]} (height x width)" if size else
                f"longer side {longer}" if longer else "the images' own size")
        return _table(("", ""), [
            ("Network", f"{network['name']}, {network['backbone']}, output stride "
                        f"{network['output_stride']}"),
            ("Data", f"{dataset['name']}; grid {grid}{reduced}"),
            ("Classes", ", ".join(info["name"] for info in dataset["classes"])),
            ("Labelled pixels", pixels), ("Asking", asked),
            ("Normalisation", f"RGB in 0..1, mean {config['mean']}, std {config['std']}"),
            ("File", f"{self.name}.safetensors, {self.n_bytes / 1e6:.1f} MB"),
            ("SHA-256", f"`{self.sha256}`")])

    def _scores(self) -> str:
        split = self.config["dataset"]["evaluation"]
        if self.scores is None:
            return "There was no validation set: the mIoU is not known."
        last, best = float(self.row["miou_last"]), float(self.row["miou_best"])
        this = {"last": "This is the network of the last epoch.",
                "best": "This is the network of the best epoch."}[self.which]
        classes = [info["name"] for info in self.config["dataset"]["classes"]]
        return "\n\n".join([
            f"On the split `{split}`, in percent, as the training run measured it. {this} The best "
            "epoch was chosen by its mIoU on this same split: its number is too high for what is "
            "to be expected of new images.",
            _table(("epoch", "mIoU"), [
                (f"last{' (this file)' * (self.which == 'last')}", percent(last)),
                (f"best, epoch {self.row['epoch_best']}{' (this file)' * (self.which == 'best')}",
                 percent(best))]),
            f"Of this file, epoch {self.epoch}: pixel accuracy "
            f"{percent(float(self.scores['pixel_accuracy']))}, mean accuracy "
            f"{percent(float(self.scores['mean_accuracy']))}.",
            _table(("class", "IoU"), [
                (name, percent(float(self.scores[column])))
                for name, column in zip(classes, iou_columns(classes), strict=True)])])

    def _precision(self) -> str:
        if self.precision == "float32":
            return "float32: the weights of the training run, bit for bit."
        stored = ("The weights of convolutions are stored in float16; biases and all of batch norm "
                  "(statistics above 65504 would be infinite, variances under 1e-7 zero) in "
                  "float32. Everything is computed in float32 after loading. ")
        return stored + (str(self.change) if self.change else
                         "What that changes has not been measured; the scores above are those of "
                         "the weights in float32.")

    def _use(self) -> str:
        file = f"{self.name}.safetensors"
        return ("One file has all that is needed: network, classes, colours, normalisation, grid."
                f"\n\n    python predict.py --checkpoint {file} --input IMAGES --output DIR\n"
                f"    python query.py --checkpoint {file} --dir_dataset DIR")

    def _made(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (f"    {self.command}\n\nGit commit {self.git_commit or 'unknown'}; {versions}.")


def percent(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                     for line in lines)
