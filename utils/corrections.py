"""The way back from a second look: a new run that is trained on the corrected answers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.annotations import annotator_folders, collect_answers
from datasets.classes import VOID_NAME
from datasets.points import Points, write_labels
from datasets.queries import Query, write_query
from datasets.spec import DatasetSpec
from utils.answered import Answered
from utils.errors import InputError
from utils.files import read_json, write_json
from utils.flags import DIR_ROOT
from utils.runs import record_flags, run_name
from utils.statistics import answer_statistics, query_statistics

RECORD = "corrections.json"  # in the folder of a corrected run


@dataclass(frozen=True, kw_only=True)
class SecondLook:
    """`points`: all answers of a run, those that were looked at again as they are now;
    `looked_at`: positions `(n,)` of these; `before`: the labels as they were, `(K,)`."""

    points: Points
    looked_at: np.ndarray
    before: np.ndarray

    @property
    def n_changed(self) -> int:
        return int((self.points.label != self.before).sum())


def read_second_look(folder: str | Path, answered: Answered, *, spec: DatasetSpec,
                     on_conflict: str) -> SecondLook:
    """What annotators' folders in `folder` (or itself) say of a run's answers. Raises InputError.
    """
    folders = annotator_folders([folder], dataset=spec.name)
    if not folders:
        raise InputError(f"no folder {folder}; it is where the annotation tool writes the second "
                         "look (--dir_logs)")
    points = answered.points
    found = collect_answers(folders, points.by_image(len(answered.names)), names=answered.names,
                            sizes=answered.sizes, class_names=spec.class_names,
                            on_conflict=on_conflict).points
    now = {(i, y, x): label for i, y, x, label in zip(
        *(column.tolist() for column in (found.image, found.y, found.x, found.label)),
        strict=True)}
    places = list(zip(points.image.tolist(), points.y.tolist(), points.x.tolist(), strict=True))
    label = np.array([now.get(place, old) for place, old in
                      zip(places, points.label.tolist(), strict=True)], np.int64)
    return SecondLook(
        points=Points(points.image, points.y, points.x, label), before=points.label,
        looked_at=np.array([i for i, place in enumerate(places) if place in now], np.int64))


def looked_at(folder: str | Path, answered: Answered) -> np.ndarray:
    """`(K,)` bool: the answers of a corrected run that have had their second look. False for all of
    another run."""
    record = _corrections(folder)
    done = {(row["image"], row["y"], row["x"]) for row in record}
    return np.array([answered.key(i) in done for i in range(len(answered.points))], bool)


def _corrections(folder: str | Path) -> list[dict]:
    path = Path(folder) / RECORD
    if not path.exists():
        return []
    content = read_json(path)
    rows = content.get("looked_at") if isinstance(content, dict) else None
    if not isinstance(rows, list) or any(
            not isinstance(row, dict) or not {"image", "y", "x"} <= row.keys() for row in rows):
        raise InputError(f"{path} is no longer what was written; restore or delete it")
    return rows


def corrected_flags(flags: dict, *, last: int, suffix: str | None) -> dict:
    """The flags of the corrected run: its first round has all pixels of the rounds up to `last`."""
    n = flags["n_pixels_by_us"]
    first = (flags.get("n_init_pixels") or n) + last * n
    if suffix is None:
        suffix = "-".join(filter(None, (flags["suffix"], "corrected")))
    return flags | {"suffix": suffix, "n_init_pixels": first,
                    "max_budget": max(flags["max_budget"], first)}


def write_corrected(run: str | Path, answered: Answered, look: SecondLook, *, flags: dict,
                    command: Sequence[str], spec: DatasetSpec,
                    source: str | Path) -> tuple[Path, str]:
    """Write a run with `flags` beside `run` whose first round is answered by `look`, which was read
    from `source`; its folder, and the command that trains it. Raises InputError if it is there.

    command: that of `run`. `args.json` is written last: without it train.py refuses the folder."""
    run = Path(run)
    folder = run.resolve().parent / run_name(flags)
    if folder.exists():
        raise InputError(f"{folder} is there already; give another --suffix, or delete it")
    names, points = answered.names, look.points
    class_names = [*spec.class_names, VOID_NAME]  # VOID is the last one by its index, -1
    first, pixels = folder / "0_query", points.by_image(len(names))
    write_query(first, Query(names=names, sizes=answered.sizes, pixels=pixels, strategy="corrected",
                             seed=flags["seed"]), max_mask_gb=flags["max_mask_gb"])
    write_json(first / "query_stats.json",
               query_statistics(pixels, entropies=None, seconds=0.0) | answer_statistics(
                   points, n_images=len(names), class_names=spec.class_names))
    write_labels(first / "labels.csv", points, names=names)
    rows = []
    for i in look.looked_at.tolist():
        image, y, x = answered.key(i)
        rows.append({"image": image, "y": y, "x": x, "round": int(answered.rounds[i]),
                     "before": class_names[look.before[i]], "now": class_names[points.label[i]]})
    write_json(folder / RECORD, {
        "run": str(run.resolve()), "answers": str(Path(source).resolve()),
        "looked_at": _corrections(run) + rows})
    command = _command(command, flags=flags, dir_checkpoints=folder.parent)
    record_flags(folder, flags=flags, repository=DIR_ROOT, command=command)
    return folder, shlex.join(command)


def _command(command: Sequence[str], *, flags: dict, dir_checkpoints: Path) -> list[str]:
    """A run's command line, and after it what is another in the corrected run."""
    words = [word for word in command[1:] if word != "--overwrite"]
    return [sys.executable, *words, "--dir_checkpoints", str(dir_checkpoints), "--suffix",
            flags["suffix"], "--n_init_pixels", str(flags["n_init_pixels"]), "--max_budget",
            str(flags["max_budget"])]
