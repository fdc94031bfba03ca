"""What a run cost: seconds of computing, minutes of annotation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from annotation_tool.scoring import pace
from datasets.annotations import annotator_folders, read_logs
from utils.errors import InputError
from utils.files import by_tail
from utils.report.recorded import Record

SECONDS = {"train_seconds": "training", "val_seconds": "validation", "query_seconds": "query"}


def computing_minutes(record: Record) -> float:
    """Of all finished rounds and all processes (each has a device of its own)."""
    seconds = sum(r.metrics.get(name, 0.0) for r in record.finished for name in SECONDS)
    return seconds * (record.about.get("processes") or 1) / 60


def device_name(record: Record) -> str:
    """Where the run was started, or what its flags say of it."""
    machine = record.about.get("machine")
    if isinstance(machine, dict):
        return f"{machine.get('device')}, {machine.get('cpu_cores')} CPU cores"
    return f"not recorded (--device {record.flags.get('device', 'auto')})"


def n_answers(record: Record) -> int:
    return sum(len(r.answers) for r in record.rounds if r.answers is not None)


@dataclass(frozen=True)
class Rate:
    """Mean seconds per pixel of annotation, NaN if it is not known; `source` in words."""

    seconds: float
    source: str


def annotation_rate(record: Record, *, assumed: float | None) -> Rate:
    """Measured where people answered, else `assumed`, else unknown."""
    if record.run.is_full:
        return Rate(math.nan, "not measured: full masks, which nobody drew for this run")
    measured = _measured(record) if record.flags.get("labeller") == "human" else None
    if measured is not None:
        return measured
    if assumed is not None:
        return Rate(assumed, f"assumed: {assumed:g} s per pixel (--seconds_per_pixel)")
    why = "the annotators' logs are not at hand" if record.flags.get("labeller") == "human" \
        else "the answers came from label maps"
    return Rate(math.nan, f"not measured: {why}; --seconds_per_pixel assumes a rate")


def _measured(record: Record) -> Rate | None:
    """Of the logs' answers to what this run has asked."""
    asked = {(name, *size, *pixel) for r in record.rounds if r.query
             for name, size, pixels in zip(r.query.names, r.query.sizes.tolist(), r.query.pixels,
                                           strict=True) for pixel in pixels.tolist()}
    known = by_tail(sorted({pixel[0] for pixel in asked}))
    try:
        folders = annotator_folders(record.flags.get("dir_annotations") or [],
                                    dataset=record.flags["dataset_name"])
        answers = [a for folder in folders for a in read_logs(folder) if a.label is not None and (
            known.get(a.image, a.image), a.h, a.w, a.y, a.x) in asked]
    except InputError:
        return None
    found = pace(answers)
    if found.mean is None:
        return None
    slow = f", {found.n_slow} flagged as interrupted left out" * bool(found.n_slow)
    return Rate(found.mean, f"measured: mean of {len(answers)} answers{slow}")
