"""How sure networks are, against how often they are right, and whether groups of runs differ in it.

    python benchmarks/calibration.py RUN ... [--json FILE] [--picture FILE]

The last.pt of every finished round is evaluated on the data set's evaluated split, as train.py
does: expected calibration error (utils/calibration.py), mean confidence, accuracy. Runs that differ
in their seed are one group; each is compared with the first. What has been evaluated is kept in
--evaluations: a second call with more runs evaluates the new ones only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from report import default_output
from utils import comparison
from utils.calibration import Reliability, pooled
from utils.device import select_device
from utils.errors import InputError, run_program
from utils.files import file_digest, write_json
from utils.machine import describe_machine
from utils.models import load_model
from utils.parsing import Parser, integer
from utils.report.evaluation import Data, Evaluation, evaluate
from utils.report.pictures import save_reliabilities
from utils.run_groups import Group, Run, fulls_of, read_groups
from utils.table import budget_name, markdown_table, mean_cell

# By seed, at a budget of a group.
Evaluations = dict[int, Evaluation]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to compute, where the images are (None: where the runs read them), and where
    evaluations are kept."""

    device: torch.device
    dir_dataset: str | None
    n_workers: int
    evaluations: Path

    def evaluate(self, run: Run, budget: float) -> Evaluation:
        """Raises InputError without network or data."""
        folder = "full" if run.is_full else f"{int(run.rounds[budget]['round'])}_query"
        checkpoint = run.folder / folder / "last.pt"
        model = load_model(checkpoint, device=self.device)
        data = Data.of(run.all_flags, dir_dataset=self.dir_dataset, n_workers=self.n_workers)
        return evaluate(model, data, key=file_digest(str(checkpoint)),
                        cache=self.evaluations / f"{run.folder.name}_{folder}.json")


def measure(groups: Sequence[Group], place: Place) -> list[dict[float, Evaluations]]:
    """Of each group, by budget. A network that is not there is named on stderr."""
    found = []
    for group in groups:
        of_group: dict[float, Evaluations] = {}
        for run in group.runs:
            for budget in run.rounds:
                try:
                    done = place.evaluate(run, budget)
                except InputError as error:
                    print(f"left out: {error}", file=sys.stderr)
                    continue
                of_group.setdefault(budget, {})[run.seed] = done
        found.append(of_group)
    if not any(found):
        raise InputError("no network of these runs can be evaluated")
    return found


def errors(of_budget: Evaluations) -> dict[int, float]:
    """Expected calibration error by seed."""
    return {seed: done.reliability.error for seed, done in of_budget.items()}


def rows(groups: Sequence[Group], found: Sequence[dict[float, Evaluations]]) -> tuple[
        list[list[str]], list[dict]]:
    """Cells for the columns of `table`, and the same for JSON."""
    cells, content = [], []
    for group, of_group in zip(groups, found, strict=True):
        for budget, done in sorted(of_group.items()):
            ece, sure, right = ([value(one.reliability) for one in done.values()] for value in (
                lambda r: r.error, lambda r: r.mean_confidence, lambda r: r.mean_accuracy))
            row = {"group": group.label, "budget": budget_name(budget), "seeds": list(done),
                   "split": next(iter(done.values())).split,
                   "expected_calibration_error": _rounded(ece), "mean_confidence": _rounded(sure),
                   "pixel_accuracy": _rounded(right),
                   "miou": _rounded([one.miou for one in done.values()])}
            compared = [""] * len(comparison.HEADER)
            if of_group is not found[0] and budget in found[0]:
                difference = comparison.compare(errors(found[0][budget]), errors(done))
                compared = comparison.cells(difference, decimals=2)
                row |= comparison.as_json(difference)
            content.append(row)
            cells.append([group.label, budget_name(budget), mean_cell(ece, decimals=2),
                          *(f"{100 * statistics.mean(values):.1f}" for values in (sure, right)),
                          *compared])
    return cells, content


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]


def table(groups: Sequence[Group], cells: list[list[str]]) -> str:
    text = ("Expected calibration error in percent, mean ± sample standard deviation (runs); mean "
            "confidence and pixel accuracy in percent.")
    if len(groups) > 1:
        text += (f" Compared with the first row ({groups[0].label}) at equal budgets: "
                 f"{comparison.EXPLAINED} Lower is better calibrated.")
    return f"{text}\n\n" + markdown_table(
        ["", "pixels per image", "error", "confidence", "accuracy", *comparison.HEADER], cells)


def curves(groups: Sequence[Group], found: Sequence[dict[float, Evaluations]]) -> dict[
        str, dict[str, Reliability]]:
    """By budget and group: the pixels of all seeds together."""
    budgets = sorted({budget for of_group in found for budget in of_group})
    return {f"{budget_name(budget)} pixels per image": {
        group.label: pooled([done.reliability for done in of_group[budget].values()])
        for group, of_group in zip(groups, found, strict=True) if budget in of_group}
        for budget in budgets}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="calibration.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN",
                        help="folder of a run of train.py")
    parser.add_argument("--json", metavar="FILE", help="the numbers, those of each run too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="reliability curves, a PNG")
    parser.add_argument("--evaluations", type=Path, metavar="DIR",
                        help="default: `calibration` in the run's folder, of several runs "
                             "beside them")
    parser.add_argument("--dir_dataset", help="where the images are (default: where the runs read "
                                              "them)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--n_workers", type=integer(0), default=4, help="threads that decode")
    args = parser.parse_args(argv)
    if args.dir_dataset and not Path(args.dir_dataset).is_dir():
        raise InputError(f"--dir_dataset {args.dir_dataset}: no such folder")
    read = read_groups(args.runs)
    groups = [*read, *fulls_of(read)]
    device = select_device(args.device)
    found = measure(groups, Place(
        device=device, dir_dataset=args.dir_dataset, n_workers=args.n_workers,
        evaluations=args.evaluations or default_output(args.runs).with_name("calibration")))
    cells, content = rows(groups, found)
    print(table(groups, cells))
    if args.json:
        write_json(args.json, {"machine": describe_machine(device), "rows": content})
    if args.picture:
        save_reliabilities(args.picture, curves(groups, found))
    return 0


if __name__ == "__main__":
    run_program(main)
