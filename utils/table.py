"""Mean and spread over seeds of finished runs, as a table and a picture.

    python -m utils.table RUN... [--png FILE] [--published_png FILE] [--json FILE]

A RUN is a folder with args.json and metrics.csv. Runs that differ in nothing but the seed are one
row, called by the flags in which the rows differ. Cells are percent mIoU: mean ± sample standard
deviation (number of runs). Each row is compared with the first one, seed by seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from utils import comparison
from utils.comparison import compare_groups
from utils.errors import InputError, run_program
from utils.files import write_json
from utils.parsing import Parser
from utils.plots import Curve, save_comparison, save_scores
from utils.published import FULL, PUBLISHED, Published
from utils.run_groups import BUDGETS, METRICS, Group, read_groups

Table: TypeAlias = tuple[list[str], list[list[str]]]  # header and rows
_ALSO = ("pixel_accuracy", "mean_accuracy", "train_seconds", "val_seconds", "query_seconds")


def papers_rows(groups: Sequence[Group]) -> list[Published]:
    """PixelPick's own results with the data sets and networks of the groups."""
    networks = {(g.flags["dataset_name"], g.flags.get("network_name"), g.flags.get("backbone"))
                for g in groups}
    return [row for row in PUBLISHED
            if row.network and (row.dataset, *row.network) in networks]


def published_rows(groups: Sequence[Group]) -> list[Published]:
    """All that is published on the groups' data sets."""
    datasets = {group.flags["dataset_name"] for group in groups}
    return [row for row in PUBLISHED if row.dataset in datasets]


def as_json(groups: Sequence[Group]) -> dict:
    """What the tables say, and the numbers of each run."""
    rows = []
    for group in groups:
        for of, budgets in ((group, group.budgets), (group.full, group.full and [FULL])):
            rows += [_json_row(of, group.label, budget) for budget in budgets or []]
    compared = [{"group": group.label, "with": groups[0].label, "metric": metric,
                 "budget": budget_name(budget)} | comparison.as_json(found)
                for group in groups[1:] for metric in METRICS
                for budget, found in compare_groups(groups[0], group, metric).items()]
    return {"rows": rows, "comparisons": compared}


def _json_row(group: Group, label: str, budget: float) -> dict:
    runs = [run for run in group.runs if budget in run.rounds]
    strategy = "full" if group.is_full else group.flags.get("query_strategy")
    row: dict[str, object] = {
        "group": label, "strategy": strategy, "n_runs": len(runs),
        "seeds": [run.seed for run in runs], "budget": budget_name(budget),
        "pixels_per_image": runs[0].rounds[budget]["pixels_per_image"]}
    for name in (*METRICS, *_ALSO):
        values = [run.rounds[budget][name] for run in runs if name in run.rounds[budget]]
        if values:
            row[f"{name}_mean"] = round(statistics.mean(values), 5)
        if len(values) > 1:
            row[f"{name}_std"] = round(statistics.stdev(values), 5)
    for metric in METRICS:
        row[f"{metric}_runs"] = group.values(metric, budget)
        percent = group.percent_of_full(metric)
        if percent and percent[1] == budget:
            row[f"{metric}_percent_of_full"] = round(percent[0], 2)
    return row


# --- as Markdown --------------------------------------------------------------------------------


def markdown(groups: Sequence[Group], *, budget: str) -> str:
    """The table; then differences with the first row; then what others have published."""
    parts = [f"mIoU in percent by {BUDGETS[budget]}; mean ± sample standard deviation (runs). "
             "*last*: the last epoch; *best*: the best epoch on the evaluated split, the paper's "
             "protocol.", markdown_table(*main_table(groups, with_paper=budget == "per_image"))]
    if len(groups) > 1:
        parts += [comparison_text(groups), markdown_table(*comparison_table(groups))]
    published = published_rows(groups)
    if published and budget == "per_image":
        parts += ["Beside published results, each at its largest budget: pixels per image (px), or "
                  "a percentage of the data or of the annotation effort where regions are "
                  "labelled. Networks, grids and protocols differ, so compare percent of full.",
                  _published_table(groups, published)]
    return "\n\n".join(parts)


def main_table(groups: Sequence[Group], *, with_paper: bool) -> Table:
    """mIoU by budget, two rows (last and best epoch) a group."""
    papers = papers_rows(groups) if with_paper else []
    budgets = sorted({budget for group in groups for budget in group.budgets} | {
        budget for paper in papers for budget in paper.miou if budget != FULL} - {FULL})
    rows = []
    for group in groups:
        for metric, epoch in METRICS.items():
            full = group if group.is_full else group.full
            rows.append([group.label, epoch, *(mean_cell(group.values(metric, b)) for b in budgets),
                         mean_cell(full.values(metric, FULL)) if full else "",
                         _of_full(group.percent_of_full(metric))])
    for paper in papers:
        rows.append([f"the paper: {paper.dataset}, {paper.backbone}, {paper.grid}", "best",
                     *(_published_cell(paper, b) for b in (*budgets, FULL)),
                     _of_full((paper.percent_of_full, paper.largest))])
    return ["", "epoch", *map(budget_name, budgets), "full masks", "of full, at"], rows


def comparison_text(groups: Sequence[Group]) -> str:
    return (f"Compared with the first row ({groups[0].label}) at each budget that both have: "
            + comparison.EXPLAINED)


def comparison_table(groups: Sequence[Group]) -> Table:
    """Differences with the first group, by epoch and budget."""
    rows = []
    for group in groups[1:]:
        of_group = [[group.label, epoch, budget_name(budget), *comparison.cells(found)]
                    for metric, epoch in METRICS.items()
                    for budget, found in compare_groups(groups[0], group, metric).items()]
        rows += of_group or [[group.label, "", "", "", "", "", "no budget in common"]]
    return ["", "epoch", "at", *comparison.HEADER], rows


def _published_table(groups: Sequence[Group], published: Sequence[Published]) -> str:
    rows = []
    for group in groups:
        if group.is_full or not group.budgets:
            continue
        flags, budget = group.flags, group.budgets[-1]
        for metric, epoch in METRICS.items():
            of_full, found = group.percent_of_full(metric), group.values(metric, budget)
            rows.append([f"ours: {group.label}", flags["dataset_name"],
                         f"{flags.get('network_name')}, {flags.get('backbone')}",
                         f"{budget_name(budget)} px",
                         f"{statistics.mean(group.values('percent', budget)):.3g}",
                         mean_cell(found),
                         mean_cell(group.full.values(metric, FULL)) if group.full else "",
                         _percent(of_full and of_full[0]),
                         f"1 / {flags.get('downsample', 1)}",
                         f"{epoch} epoch, {_runs(len(found))}", ""])
    for row in published:
        budget, percent = row.largest, row.percent_of_pixels(row.largest)
        unit = f"% of {row.percent_of}" if row.percent_of else "px"
        rows.append([row.method, row.dataset, row.backbone, f"{budget_name(budget)} {unit}",
                     "" if percent is None else f"{percent:.3g}", _published_cell(row, budget),
                     _published_cell(row, FULL), _percent(row.percent_of_full), row.grid,
                     row.protocol, row.reference])
    return markdown_table(["method", "data set", "network", "budget", "% of pixels", "mIoU",
                           "full masks", "of full", "grid", "protocol", "reference"], rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |"
                     for row in (header, ["---"] * len(header), *rows))


def budget_name(budget: float) -> str:
    return "full" if budget == FULL else f"{budget:.10g}"


def mean_cell(values: Sequence[float], *, decimals: int = 1) -> str:
    """`55.9 ± 0.1 (5)` of fractions; empty of none."""
    if not values:
        return ""
    mean = f"{100 * statistics.mean(values):.{decimals}f}"
    spread = f" ± {100 * statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{mean}{spread} ({len(values)})"


def _published_cell(row: Published, budget: float) -> str:
    if row.relative or budget not in row.miou:
        return ""
    mean, std = row.miou[budget]
    return (f"{mean:.1f}" + (f" ± {std:.1f}" if std is not None else "")
            + (f" ({row.n_runs})" if row.n_runs else ""))


def _runs(n: int) -> str:
    return f"{n} run" + "s" * (n != 1)


def _of_full(percent: tuple[float, float] | None) -> str:
    return "" if percent is None else f"{_percent(percent[0])}, {budget_name(percent[1])}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} %"


# --- as pictures --------------------------------------------------------------------------------


def curves(groups: Sequence[Group], metric: str) -> list[Curve]:
    found = []
    for group in groups:
        budgets = [budget for budget in group.budgets if budget != FULL]
        of_budget = [group.values(metric, budget) for budget in budgets]
        full = group if group.is_full else group.full
        at_full = full.values(metric, FULL) if full else []
        found.append(Curve(
            label=group.label, pixels=budgets,
            mean=[100 * statistics.mean(values) for values in of_budget],
            std=[100 * statistics.stdev(values) if len(values) > 1 else None
                 for values in of_budget],
            full=100 * statistics.mean(at_full) if at_full else None))
    return found


def save_curves(path: Path, groups: Sequence[Group], *, metric: str, budget: str) -> None:
    """mIoU against labelled pixels, with the paper's points where the grid is the same."""
    papers = [row for row in papers_rows(groups) if budget == "per_image" and any(
        group.flags.get("downsample") == row.downsample for group in groups)]
    save_comparison(path, [*curves(groups, metric), *map(published_curve, papers)],
                    xlabel=BUDGETS[budget],
                    title=f"{METRICS[metric]} epoch" + " (the paper's: best)" * bool(papers))


def published_curve(row: Published) -> Curve:
    budgets = [budget for budget in row.miou if budget != FULL]
    of = ", ".join(filter(None, (row.dataset, row.backbone)))
    return Curve(label=f"{row.method} (published): {of}", pixels=budgets,
                 mean=[row.miou[budget][0] for budget in budgets],
                 std=[row.miou[budget][1] for budget in budgets], full=row.miou[FULL][0],
                 published=True)


def relative_curves(groups: Sequence[Group], metric: str,
                    published: Sequence[Published]) -> list[Curve]:
    """Percent of own full supervision against percent of the pixels, where both are known."""
    found = []
    for group, curve in zip(groups, curves(groups, metric), strict=True):
        found.append((curve, [statistics.mean(group.values("percent", budget))
                              for budget in curve.pixels]))
    for row in published:
        curve = published_curve(row)
        percents = [row.percent_of_pixels(budget) for budget in curve.pixels]
        found.append((curve, [] if None in percents else percents))
    return [replace(curve, pixels=percents, full=None,
                    mean=[100 * value / curve.full for value in curve.mean],
                    std=[value and 100 * value / curve.full for value in curve.std])
            for curve, percents in found if curve.full and percents]


# --- as a script --------------------------------------------------------------------------------


def report(folders: Sequence[Path], *, metric: str = "miou_last", budget: str = "per_image",
           pictures: Callable[[str], Path | None] = lambda _: None) -> tuple[str, dict]:
    """The tables as Markdown and as JSON. `pictures(kind)` says where a picture goes, None nowhere:
    one of each of METRICS (with the paper's numbers where the grid is the same), `largest` (each
    row's largest budget) and `published`. Raises InputError if there is nothing to show."""
    groups = read_groups(folders, budget=budget)
    if not any(group.budgets for group in groups):
        raise InputError("none of the runs has finished a round with an mIoU")
    per_image = budget == "per_image"
    for shown in METRICS:
        if path := pictures(shown):
            save_curves(path, groups, metric=shown, budget=budget)
    if path := pictures("largest"):
        rows = [(f"{group.label}: {budget_name(group.budgets[-1])}",
                 [100 * value for value in group.values(metric, group.budgets[-1])])
                for group in groups if group.budgets]
        save_scores(path, rows, title=f"at the largest number of {BUDGETS[budget]}, "
                                      f"{METRICS[metric]} epoch: runs, mean, standard deviation")
    published = published_rows(groups) if per_image else []
    if published and (path := pictures("published")):
        points = [published_curve(row) for row in published if row.percent_of is None]
        save_comparison(path, [*curves(groups, metric), *points], xlabel=BUDGETS[budget],
                        relative=relative_curves(groups, metric, published),
                        title=f"published results; ours: {METRICS[metric]} epoch")
    return markdown(groups, budget=budget), as_json(groups)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m utils.table", description="Mean and spread over seeds of runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN",
                        help="folder of a run: args.json, metrics.csv")
    parser.add_argument("--metric", choices=METRICS, default="miou_last",
                        help="of which epoch the pictures are")
    parser.add_argument("--budget", choices=BUDGETS, default="per_image",
                        help="what the columns are: pixels per image, or of all images together")
    parser.add_argument("--png", type=Path, metavar="FILE", help="picture: mIoU against pixels")
    parser.add_argument("--largest_png", type=Path, metavar="FILE",
                        help="picture: each row's mIoU and its runs at its largest budget")
    parser.add_argument("--published_png", type=Path, metavar="FILE",
                        help="picture: the same beside published results")
    parser.add_argument("--json", metavar="FILE", help="the numbers, those of each run too")
    args = parser.parse_args(argv)
    pictures = {args.metric: args.png, "largest": args.largest_png, "published": args.published_png}
    text, content = report(args.runs, metric=args.metric, budget=args.budget,
                           pictures=pictures.get)
    print(text)
    if args.json:
        write_json(args.json, content)
    return 0


if __name__ == "__main__":
    run_program(main)
