"""What a run's folder holds. A file that is missing or broken is None, and a line in `problems`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from datasets.points import Points, read_labels
from datasets.queries import Query, load_query
from utils.errors import InputError
from utils.files import read_csv, read_json
from utils.run_groups import Run

_N_CLASSES = 256  # what label maps can tell apart; a report has no other bound for labels.csv
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Round:
    """`metrics`: its row of metrics.csv, empty while it is not finished."""

    number: int
    folder: Path
    metrics: dict[str, float]
    query: Query | None
    answers: Points | None
    statistics: dict

    @property
    def checkpoint(self) -> Path | None:
        """The network at the round's end."""
        path = self.folder / "last.pt"
        return path if self.metrics and path.exists() else None


@dataclass(frozen=True, kw_only=True)
class Record:
    """`about`: what args.json says beside the flags."""

    run: Run
    about: dict
    rounds: list[Round]
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.run.folder.name

    @property
    def flags(self) -> dict:
        return self.run.all_flags

    @property
    def finished(self) -> list[Round]:
        return [r for r in self.rounds if r.metrics]

    @property
    def last(self) -> Round | None:
        """The last finished round that has kept its network."""
        found = [r for r in self.finished if r.checkpoint]
        return found[-1] if found else None

    @property
    def pixels(self) -> list[str]:
        """What the finished rounds are called: their pixels per image."""
        return ["full" if self.run.is_full else f"{r.metrics.get('pixels_per_image', math.nan):.4g}"
                for r in self.finished]


def read_record(run: Run) -> Record:
    problems: list[str] = []
    about = read_json(run.folder / "args.json")
    rows = _or_none(lambda: read_csv(run.folder / "metrics.csv"), problems) \
        if (run.folder / "metrics.csv").exists() else []
    rows = [_numbers(row) for row in rows or []]
    rounds = []
    while True:
        number = len(rounds)
        folder = run.folder / ("full" if run.is_full else f"{number}_query")
        if number >= len(rows) and not folder.is_dir() or (run.is_full and number):
            break
        metrics = rows[number] if number < len(rows) else {}
        rounds.append(_round(number, folder, metrics, problems, asks=not run.is_full))
    if len(rows) < run.n_rounds:
        problems.insert(0, f"in progress: {len(rows)} of {run.n_rounds} rounds are finished")
    return Record(run=run, about=about, rounds=rounds, problems=problems)


def _round(number: int, folder: Path, metrics: dict, problems: list[str], *, asks: bool) -> Round:
    def read(name: str, how: Callable[[Path], _T]) -> _T | None:
        path = folder / name
        if not asks or (not path.exists() and not metrics):  # it has not come to that
            return None
        return _or_none(lambda: how(path), problems)

    query = read("query.json", load_query)
    answers = query and read("labels.csv", lambda path: read_labels(
        path, names=query.names, sizes=query.sizes, n_classes=_N_CLASSES))
    statistics = read("query_stats.json", read_json)
    return Round(number=number, folder=folder, metrics=metrics, query=query, answers=answers,
                 statistics=statistics if isinstance(statistics, dict) else {})


def _or_none(read: Callable[[], _T], problems: list[str]) -> _T | None:
    try:
        return read()
    except InputError as error:
        problems.append(f"left out: {error}")
        return None


def _numbers(row: dict[str, str]) -> dict[str, float]:
    """What is no number is NaN."""
    found = {}
    for name, cell in row.items():
        try:
            found[name] = float(cell)
        except (TypeError, ValueError):
            found[name] = math.nan
    return found
