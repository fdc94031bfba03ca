"""The page: all runs together, then one run of each group in detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utils.files import write_text
from utils.report.cost import annotation_rate, computing_minutes, device_name, n_answers
from utils.report.html import Html, heading, links, note, page, paragraph, picture, section, table
from utils.report.recorded import Record, read_record
from utils.report.run_part import RunPart, Setting
from utils.run_groups import Group, full_name, fulls_of, read_groups
from utils.table import comparison_table, comparison_text, main_table, save_curves

_METRIC = "miou_last"


def write_report(folders: Sequence[Path], setting: Setting) -> Path:
    """Write `report.html` and its pictures to `setting.output`. Raises InputError if none of the
    folders is a run's."""
    rows = read_groups(folders)
    if len(rows) == 1:
        rows = [replace(rows[0], label=full_name(rows[0].runs[0]))]
    groups = [*rows, *fulls_of(rows)]
    records = {group.label: [read_record(run) for run in
                             sorted(group.runs, key=lambda run: run.seed)] for group in groups}
    named = [(f"run{number}", group.label) for number, group in enumerate(groups, 1)]
    parts: list[str] = [
        heading(f"Report: {', '.join(dict.fromkeys(g.flags['dataset_name'] for g in groups))}",
                level=1),
        paragraph(_summary(rows)), links([("curve", "mIoU"), ("runs", "Runs"), *named]),
        section(_scores(rows, setting.output)), section(_runs(records, setting))]
    for (anchor, label), of_group in zip(named, records.values(), strict=True):
        first = of_group[0]
        others = [str(r.run.seed) for r in of_group[1:]]
        head = [heading(label, level=2, anchor=anchor), paragraph(
            f"Seed {first.run.seed}: {first.name}"
            + (f". Other seeds: {', '.join(others)}." if others else ""))]
        parts.append(section([*head, RunPart(first, setting).html()]))
    path = setting.output / "report.html"
    write_text(path, page(f"PixelPick: {rows[0].label}", parts))
    return path


def _summary(groups: Sequence[Group]) -> str:
    lines = []
    for group in groups:
        if not group.budgets:
            lines.append(f"{group.label}: no mIoU yet.")
            continue
        values = group.values(_METRIC, group.budgets[-1])
        at = "on full masks" if group.is_full else f"at {group.budgets[-1]:g} pixels per image"
        percent = group.percent_of_full(_METRIC)
        lines.append(f"{group.label}: {100 * sum(values) / len(values):.1f} % mIoU {at}"
                     + (f", {percent[0]:.0f} % of full supervision" if percent else "") + ".")
    return " ".join(lines)


def _scores(groups: Sequence[Group], output: Path) -> list[Html]:
    parts = [heading("mIoU against labelled pixels", level=2, anchor="curve")]
    if not any(group.budgets for group in groups):
        return [*parts, note("Left out: no run has finished a round with an mIoU (no validation "
                             "set, or in progress).")]
    path = output / "curve.png"
    save_curves(path, groups, metric=_METRIC, budget="per_image")
    parts += [picture(path, caption="Mean and one standard deviation over seeds; dashed: full "
                      "supervision."), paragraph(
        "mIoU in percent: mean ± sample standard deviation (number of runs). last: the last epoch; "
        "best: the best epoch on the evaluated split, the paper's protocol."),
        table(*main_table(groups, with_paper=True))]
    if len(groups) > 1:
        parts += [paragraph(comparison_text(groups)), table(*comparison_table(groups))]
    return parts


def _runs(records: dict[str, list[Record]], setting: Setting) -> list[Html]:
    rows = []
    for label, of_group in records.items():
        for record in of_group:
            rate = annotation_rate(record, assumed=setting.seconds_per_pixel)
            minutes = n_answers(record) * rate.seconds / 60
            source = rate.source.partition(":")[0]
            rows.append([label, str(record.run.seed),
                         f"{len(record.finished)} of {record.run.n_rounds}",
                         f"{computing_minutes(record):.1f}", device_name(record),
                         f"{minutes:.1f} ({source})" if minutes == minutes else source])
    return [heading("Runs", level=2, anchor="runs"),
            table(["", "seed", "rounds", "computing, min", "machine", "annotation, min"], rows)]
