"""The sections of one run. What cannot be shown is left out, with one line that says why."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utils.errors import InputError
from utils.files import file_digest
from utils.metrics import iou_columns
from utils.models import Model, load_model
from utils.report import asked, pictures
from utils.report.cost import SECONDS, annotation_rate, computing_minutes, device_name
from utils.report.evaluation import Data, Evaluation, evaluate, pixels_by_class
from utils.report.html import (
    Heat,
    Html,
    code,
    facts,
    folded,
    heading,
    joined,
    note,
    paragraph,
    picture,
    table,
)
from utils.report.progress import save_progress
from utils.report.recorded import Record, Round


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all parts of a report share.

    seconds_per_pixel: of annotation, where it was not measured; None: not known.
    unusual: flags -> those that differ from the recipe, as text; raises InputError if that cannot
        be said."""

    output: Path
    device: torch.device
    dir_dataset: str | None
    n_workers: int
    seconds_per_pixel: float | None
    unusual: Callable[[dict], list[tuple[str, str]]]

    def data(self, record: Record) -> Data:
        return Data.of(record.flags, dir_dataset=self.dir_dataset, n_workers=self.n_workers)


class RunPart:
    """One run: its network, if it has one, is loaded once."""

    def __init__(self, record: Record, setting: Setting) -> None:
        self.record, self._setting = record, setting
        self._model: Model | None = None
        self._why_no_model = "no finished round has kept its network (last.pt)"
        if record.last:
            try:
                self._model = load_model(record.last.checkpoint, device=setting.device)
            except InputError as error:
                self._why_no_model = str(error)

    def file(self, name: str) -> Path:
        return self._setting.output / f"{self.record.name}_{name}"

    @property
    def class_names(self) -> list[str]:
        if self._model:
            return list(self._model.spec.class_names)
        for r in self.record.rounds:
            if isinstance(names := r.statistics.get("label_distribution"), dict):
                return list(names)
        row = self.record.finished[0].metrics if self.record.finished else {}
        return [name.removeprefix("iou_") for name in row if name.startswith("iou_")]

    def html(self) -> Html:
        parts = [note(problem) for problem in self.record.problems]
        for title, make in (("IoU by class", self._classes), ("Confusion", self._confusion),
                            ("What was asked", self._asked), ("By round", self._progress),
                            ("Calibration", self._calibration),
                            ("Time and cost", self._cost), ("To reproduce it", self._reproduce)):
            try:
                content = make()
            except InputError as error:
                content = note(f"Left out: {error}")
            if content:
                parts += [heading(title, level=3), content]
        return joined(parts)

    # --- scores ---------------------------------------------------------------------------------

    def _classes(self) -> Html:
        names, finished = self.class_names, self.record.finished
        iou = np.array([[r.metrics.get(column, math.nan) for column in iou_columns(names)]
                        for r in finished]).reshape(len(finished), len(names))
        if not iou.size or np.isnan(iou).all():
            return note("Left out: no round has been evaluated (no validation set, or none "
                        "finished).")
        rows = [[name, *(Heat(v, "-" if math.isnan(v) else f"{100 * v:.1f}") for v in values),
                 *[_change(values)] * (len(finished) > 1)]
                for name, values in zip(names, iou.T, strict=True)]
        miou = [r.metrics.get("miou_last", math.nan) for r in finished]
        rows.append(["mean", *(_percent(v) for v in miou),
                     *[_change(np.array(miou))] * (len(finished) > 1)])
        header = ["percent, at pixels per image", *self.record.pixels,
                  *["change"] * (len(finished) > 1)]
        parts = [table(header, rows)]
        if len(finished) > 1:
            path = self.file("classes.png")
            pictures.save_class_lines(path, iou, names=names, rounds=self.record.pixels)
            parts.append(picture(path, caption="IoU of each class by round, last epoch."))
        return joined(parts)

    def _evaluation(self) -> Evaluation:
        return evaluate(self._loaded(), self._setting.data(self.record),
                        cache=self.file("evaluation.json"),
                        key=file_digest(str(self.record.last.checkpoint)))

    def _loaded(self) -> Model:
        if self._model is None:
            raise InputError(self._why_no_model)
        return self._model

    def _confusion(self) -> Html:
        found, path = self._evaluation(), self.file("confusion.png")
        pictures.save_confusion(path, found.confusion, names=self.class_names)
        recorded = self.record.last.metrics.get("miou_last", math.nan)
        text = (f"The network of {self._which()} on the split {found.split!r}: mIoU "
                f"{_percent(found.miou)} %, {_percent(recorded)} % in metrics.csv.")
        return joined([paragraph(text), picture(
            path, kind="chart wide", caption="A row is a true class: percent of its pixels by "
            "predicted class (large), and their number (small).")])

    def _which(self) -> str:
        record = self.record
        return "the run on full masks" if record.run.is_full else f"round {record.last.number + 1}"

    def _calibration(self) -> Html:
        found, path = self._evaluation().reliability, self.file("reliability.png")
        pictures.save_reliability(path, found)
        return joined([
            facts([("expected calibration error", f"{_percent(found.error)} %"),
                   ("mean confidence", f"{_percent(found.mean_confidence)} %"),
                   ("pixel accuracy", f"{_percent(found.mean_accuracy)} %")]),
            picture(path, caption=f"Accuracy against confidence on the validation split, "
                    f"{len(found.count)} bins of equal width; the error is the mean distance from "
                    "the dashed line, weighted by the pixels of each bin (Guo et al., ICML 2017).")
        ])

    # --- queries --------------------------------------------------------------------------------

    def _asked(self) -> Html | None:
        if self.record.run.is_full:
            return None
        rounds = [r for r in self.record.rounds if r.query is not None]
        if not rounds:
            raise InputError("no query.json can be read")
        parts = [self._asked_table(rounds), self._asked_classes(rounds),
                 self._asked_positions(rounds)]
        found = {f"{r.number + 1}": u for r in rounds if (u := asked.uncertainty(r)) is not None}
        if found:
            path = self.file("uncertainty.png")
            pictures.save_uncertainty(path, found, strategy=rounds[-1].query.strategy)
            parts.append(picture(path, caption="What the network of the round before said of the "
                                 "asked pixels: median, quartiles, 5th and 95th percentile. "
                                 "Scores: higher is asked first."))
        return joined(parts)

    def _asked_table(self, rounds: Sequence[Round]) -> Html:
        rows = []
        for r in rounds:
            u, said = asked.uncertainty(r), r.statistics
            rows.append([f"{r.number + 1}", r.query.strategy, f"{r.query.n_pixels}",
                         "-" if r.answers is None else f"{len(r.answers)}",
                         "-" if r.answers is None else f"{r.answers.n_void}",
                         "-" if u is None else f"{_percent(u.right)}",
                         _number(u and u.probability.mean() if u and len(u.probability) else None),
                         _number(said.get("mean_entropy")), _number(said.get("spatial_spread"), 1),
                         _number(said.get("classes_per_image"))])
        about = paragraph(
            "By round. right: the network of the round before predicted the answer; confidence: "
            "its mean probability for the class it predicted; entropy: mean, in nats; spread: mean "
            "distance of two asked pixels of an image; classes: different ones among the answers "
            "in an image, mean.")
        return joined([about, table(["round", "asked by", "pixels", "answers", "void", "right, %",
                      "confidence", "entropy", "spread, px", "classes"], rows)])

    def _asked_classes(self, rounds: Sequence[Round]) -> Html:
        answered = [r for r in rounds if r.answers is not None]
        names = self.class_names
        if not answered or not names:
            return note("The classes of the answers are left out: no labels.csv can be read.")
        counts = asked.answers_by_class(answered, len(names))
        shares, parts = {}, []
        try:
            of_data = pixels_by_class(self._loaded(), self._setting.data(self.record),
                                      cache=self.file("pixels.json"))
            shares["all pixels of the images"] = of_data / max(of_data.sum(), 1)
        except InputError as error:
            parts.append(note(f"The share of each class in the data is left out: {error}"))
        shares["answers of the first round"] = counts[0] / max(counts[0].sum(), 1)
        if len(counts) > 1:
            later = counts[1:].sum(axis=0)
            shares["answers of later rounds"] = later / max(later.sum(), 1)
        path = self.file("asked_classes.png")
        pictures.save_asked_classes(path, shares, names=names)
        return joined([*parts, picture(path, caption="What the answers were, beside what the "
                                       "training images hold. Void is left out.")])

    def _asked_positions(self, rounds: Sequence[Round]) -> Html:
        sizes = np.concatenate([r.query.sizes for r in rounds])
        aspect = float(np.median(sizes[:, 1] / sizes[:, 0]))
        maps = {title: asked.density(places, aspect=aspect) for title, places in (
            ("first round", asked.positions(rounds[:1])),
            ("later rounds", asked.positions(rounds[1:]))) if len(places)}
        if not maps:
            return note("No pixel has been asked.")
        path = self.file("positions.png")
        pictures.save_positions(path, maps, aspect=aspect)
        return picture(path, kind="photo", caption="Where in the image pixels were asked; images "
                       "of other sizes are stretched to one.")

    def _progress(self) -> Html:
        path = self.file("progress.png")
        try:
            shown = save_progress(path, self.record.finished, self._setting.data(self.record),
                                  device=self._setting.device)
            left_out = len(self.record.finished) - len(shown)
            return picture(path, kind="photo wide", caption="The same training images by round; "
                           "circles: the pixels that were asked in it (with the network before)."
                           + f" {left_out} rounds are not shown." * bool(left_out))
        except InputError as error:
            found = [r for r in self.record.rounds if (r.folder / "qualitative.png").exists()]
            if not found:
                raise
            why = note(f"The pictures of the run itself: {error}")
            return joined([why, *(folded(f"round {r.number + 1}", [picture(
                r.folder / "qualitative.png", kind="photo wide",
                caption="Input, truth, prediction, errors; uncertainty with the asked pixels.")])
                for r in found)])

    # --- the run --------------------------------------------------------------------------------

    def _cost(self) -> Html:
        record = self.record
        rate = annotation_rate(record, assumed=self._setting.seconds_per_pixel)
        rows = []
        for r, pixels in zip(record.finished, record.pixels, strict=True):
            minutes = r.metrics.get("pixels_total", math.nan) * rate.seconds / 60
            rows.append([pixels, *(_number(r.metrics.get(name), 1) for name in SECONDS),
                         _number(minutes, 1)])
        parts = []
        if rows:
            parts.append(table(["pixels per image", *(f"{name}, s" for name in SECONDS.values()),
                                "annotation so far, min"], rows))
        n = record.about.get("processes") or 1
        known = not math.isnan(rate.seconds)
        parts.append(facts([
            ("computing in all", f"{computing_minutes(record):.1f} minutes, one process" if n == 1
             else f"{computing_minutes(record):.1f} minutes, the sum of {n} processes"),
            ("machine", device_name(record)), ("annotation", rate.source),
            *[("seconds per pixel", _number(rate.seconds))] * known]))
        return joined(parts)

    def _reproduce(self) -> Html:
        record, about = self.record, self.record.about
        flags = record.flags
        weights = flags.get("weights") and Path(flags["weights"]).name
        start = f"{flags.get('weight_type')}" if not weights else \
            f"{weights}, sha256 {flags.get('weights_sha256')}"
        versions = about.get("versions")
        command = about.get("command")
        parts = []
        if isinstance(command, list):
            parts.append(code(shlex.join(map(str, command))))
        rows = [("commit", str(about.get("git_commit") or "not recorded")),
                ("versions", ", ".join(f"{k} {v}" for k, v in versions.items())
                 if isinstance(versions, dict) else "not recorded"),
                ("data", f"{flags['dataset_name']}, {flags.get('dir_dataset')}"),
                ("start of the backbone", start), ("folder", str(record.run.folder))]
        try:
            unusual = self._setting.unusual(flags)
            rows.append(("flags that differ from the recipe",
                         ", ".join(f"--{name} {value}" for name, value in unusual) or "none"))
        except InputError as error:
            rows.append(("flags that differ from the recipe", f"cannot be said: {error}"))
        return joined([*parts, facts(rows)])


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _number(value: object, digits: int = 2) -> str:
    known = isinstance(value, int | float) and math.isfinite(value)
    return f"{value:.{digits}f}" if known else "-"


def _change(values: np.ndarray) -> str:
    """From the first round to the last, in points."""
    change = values[-1] - values[0]
    return "-" if math.isnan(change) else f"{100 * change:+.1f}"
