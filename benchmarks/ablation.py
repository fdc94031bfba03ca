"""What each ingredient does: alone beside the baseline, and removed from all of them.

    python benchmarks/ablation.py --name plus --seeds 0 1 2 --parallel 2 \\
        --ingredient "class balance: --class_balance 0.5" --ingredient "EMA: --ema 0.998" \\
        -- --dataset_name cv ...

What follows `--` is the baseline: flags of train.py for all runs. An ingredient is a name, a colon
and further flags. The runs are those of a study (benchmarks/study.py, whose other flags hold here
too): it can be stopped and continued, and its table and JSON have the ablation in front.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import study
from utils import comparison
from utils.errors import InputError, run_program
from utils.parsing import Parser, split_at_dashes
from utils.run_groups import BUDGETS, METRICS, Group, read_run
from utils.table import budget_name, markdown_table, mean_cell

NONE, ALL = "none", "all"
_HEADER = ["", "alone", "to none", "p", "removed", "to all", "p"]


def variants(ingredients: dict[str, str]) -> dict[tuple[str, str], str]:
    """(what, name) -> the flags added to the baseline; `what` is "alone" or "removed". None removed
    is all of them, all removed is the baseline."""
    names = list(ingredients)
    kept = {("alone", NONE): [], ("removed", NONE): names}
    for name in names:
        kept["alone", name] = [name]
        kept["removed", name] = [other for other in names if other != name]
    kept["alone", ALL] = names
    return {key: " ".join(ingredients[name] for name in of_key) for key, of_key in kept.items()}


def groups(ingredients: dict[str, str], jobs: Sequence[study.Job],
           args: argparse.Namespace) -> dict[tuple[str, str], Group]:
    """The runs of the study that have begun, by the keys of `variants`."""
    runs = {flags.strip(): [read_run(job.folder, budget=args.budget)
                            for job in jobs[number::len(args.vary)]
                            if (job.folder / "args.json").exists()]
            for number, flags in enumerate(args.vary)}
    return {key: Group(label=", ".join(key), runs=runs[flags])
            for key, flags in variants(ingredients).items()}


def summary(found: dict[tuple[str, str], Group], *, budget: str) -> tuple[str, dict]:
    """Markdown and JSON: a table for each budget and epoch."""
    budgets = sorted({budget for group in found.values() for budget in group.budgets})
    names = list(dict.fromkeys(name for _, name in found))
    parts = ["Each ingredient alone, compared with none of them, and removed, compared with all "
             "of them. mIoU in percent, mean ± sample standard deviation (runs); "
             f"{comparison.EXPLAINED}"]
    content = []
    for number in budgets:
        for metric, epoch in METRICS.items():
            rows = []
            for name in names:
                row = [name]
                for what in ("alone", "removed"):
                    cells, entry = _cells(found, what, name, metric, number)
                    row += cells
                    content += [entry] if entry else []
                rows.append(row)
            parts += [f"**{budget_name(number)} {BUDGETS[budget]}, {epoch} epoch**",
                      markdown_table(_HEADER, rows)]
    return "\n\n".join(parts), {"ablation": content}


def _cells(found: dict[tuple[str, str], Group], what: str, name: str, metric: str,
           budget: float) -> tuple[list[str], dict | None]:
    """mIoU, difference, p."""
    group, reference = found.get((what, name)), found[what, NONE]
    values = group.by_seed(metric, budget) if group else {}
    if not values:
        return [""] * 3, None
    entry = {"ingredient": name, "what": what, "budget": budget_name(budget), "metric": metric,
             "runs": values}
    others = reference.by_seed(metric, budget)
    if group is reference or not others:
        return [mean_cell(list(values.values())), "", ""], entry
    compared = comparison.compare(others, values)
    difference, p, pairs, _ = comparison.cells(compared)
    return ([mean_cell(list(values.values())), difference, p or pairs],
            entry | comparison.as_json(compared))


# --- as a script --------------------------------------------------------------------------------


def ingredient(text: str) -> tuple[str, str]:
    name, colon, flags = (part.strip() for part in text.partition(":"))
    if not (name and colon and flags.startswith("-")) or name in (NONE, ALL):
        raise argparse.ArgumentTypeError(f"{text!r} is not 'NAME: --flag value ...', with another "
                                         f"name than {NONE} and {ALL}")
    return name, flags


def parse(argv: Sequence[str]) -> tuple[dict[str, str], argparse.Namespace]:
    """The ingredients, and the flags of the study. Raises InputError."""
    head, common = split_at_dashes(argv)
    parser = Parser(prog="ablation.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter,
                    usage="%(prog)s --ingredient 'NAME: FLAGS' [--ingredient ...] [flags of "
                          "study.py but --vary] -- [flags of train.py]")
    parser.add_argument("--ingredient", type=ingredient, action="append", required=True,
                        metavar="'NAME: FLAGS'", help="flags of train.py that belong together")
    args, of_study = parser.parse_known_args(head)
    names = [name for name, _ in args.ingredient]
    if len(set(names)) < len(names):
        raise InputError("--ingredient: two have the same name")
    if any(word.partition("=")[0] == "--vary" for word in of_study):
        raise InputError("--vary: the variants of an ablation follow from --ingredient")
    found = dict(args.ingredient)
    vary = dict.fromkeys(variants(found).values())  # of two, one alone is the other removed
    return found, study.parse([*of_study, "--vary", *vary, "--", *common])


def main(argv: Sequence[str] | None = None) -> int:
    ingredients, args = parse(sys.argv[1:] if argv is None else argv)
    return study.run_study(args, summary=lambda jobs: summary(groups(ingredients, jobs, args),
                                                              budget=args.budget))


if __name__ == "__main__":
    run_program(main)
