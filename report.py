"""What runs did, as one page: `python report.py RUN [RUN ...]` writes report.html and its PNGs.

Runs that differ in their seed are one group; each group's first seed is shown in detail. With the
data at hand the last network is evaluated on the validation split, once: the result is kept beside
the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import args as flags
from utils.device import select_device
from utils.errors import InputError, run_program
from utils.parsing import Parser, integer, positive
from utils.report.build import write_report
from utils.report.run_part import Setting
from utils.run_groups import ABOUT_POINTS
from utils.runs import NOT_THE_EXPERIMENT, as_recorded


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description="One self-contained HTML page about runs of train.py.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN",
                        help="folder of a run: args.json, metrics.csv")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="default: `report` in the run's folder, of several runs beside them")
    parser.add_argument("--dir_dataset", help="where the images are (default: where the run read "
                                              "them)")
    parser.add_argument("--seconds_per_pixel", type=positive, metavar="S",
                        help="assume this for annotation where no person's time was measured")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--n_workers", type=integer(0), default=4, help="threads that decode")
    args = parser.parse_args(argv)
    if args.dir_dataset and not Path(args.dir_dataset).is_dir():
        raise InputError(f"--dir_dataset {args.dir_dataset}: no such folder")
    path = write_report(args.runs, Setting(
        output=args.output or default_output(args.runs), device=select_device(args.device),
        dir_dataset=args.dir_dataset, n_workers=args.n_workers,
        seconds_per_pixel=args.seconds_per_pixel, unusual=unusual_flags))
    print(f"report: {path}")
    return 0


def default_output(runs: Sequence[Path]) -> Path:
    folders = [run.resolve() for run in runs]
    if len(folders) == 1:
        return folders[0] / "report"
    return Path(os.path.commonpath([folder.parent for folder in folders])) / "report"


def unusual_flags(recorded: dict) -> list[tuple[str, str]]:
    """Of a run's flags those that differ from its recipe and concern the result. Raises InputError
    if the recipe cannot be read any more."""
    dataset = ["--dataset_name", str(recorded["dataset_name"])]
    if recorded.get("p_dataset_config"):
        dataset = ["--p_dataset_config", recorded["p_dataset_config"]]
    network = recorded.get("network_name")
    usual = as_recorded(vars(flags.parse_arguments(
        dataset + (["--network_name", network] if network else []))))
    ignored = NOT_THE_EXPERIMENT - {"max_budget", "weights"} | {"network_name"}
    if recorded.get("n_pixels_by_us") == 0:
        ignored |= ABOUT_POINTS - {"n_pixels_by_us"}
    found = [(name, _text(value)) for name, value in recorded.items()
             if name in usual and name not in ignored and value != usual[name]]
    if network != flags.train_parser(flags.CHANGES).get_default("network_name"):
        found.insert(0, ("network_name", str(network)))
    return found


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    run_program(main)
