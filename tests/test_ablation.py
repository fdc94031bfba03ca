"""benchmarks/ablation.py: its runs, and its table of runs made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import ablation, study
from utils.errors import InputError
from utils.files import write_json, write_text

THREE = {"a": "--class_balance 0.5", "b": "--schedule poly", "c": "--ema 0.99"}


def words_of(tmp_path: Path, *flags: str, ingredients: dict[str, str] = THREE) -> list[str]:
    named = [word for name, given in ingredients.items()
             for word in ("--ingredient", f"{name}: {given}")]
    return ["--seeds", "0", "1", "2", *named, *flags, "--", "--dataset_name", "cv",
            "--max_budget", "20", "--device", "cpu", "--dir_checkpoints", str(tmp_path)]


def finish(tmp_path: Path, jobs: list[study.Job]) -> None:
    """At 10 and 20 pixels every ingredient adds 0.01 and 0.02, and `a` a bit more by seed; the best
    epoch is 0.1 above."""
    for job in jobs:
        flags, seed = job.flags, job.flags.seed
        lines = ["round,pixels_per_image,pixels_total,percent,miou_last,miou_best"]
        for number in (0, 1):
            n = (flags.class_balance > 0) + (flags.schedule == "poly") + (flags.ema > 0)
            score = 0.2 + seed / 10 + (number + 1) * n / 100
            score += (flags.class_balance > 0) * seed / 1000
            lines.append(f"{number},{10 * number + 10},{100 * number + 100},0.1,{score:.6f},"
                         f"{score + 0.1:.6f}")
        write_json(job.folder / "args.json", {"flags": job.recorded})
        write_text(job.folder / "metrics.csv", "\n".join(lines) + "\n")


def rows_under(title: str, text: str) -> dict[str, list[str]]:
    lines = text.split(f"**{title}**\n\n")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def test_alone_and_removed(tmp_path: Path, capsys) -> None:
    """Alone: 10 pixels, a: +1.0, +1.1, +1.2 by seed, mean 1.1, error 0.1 / sqrt(3), t = 19.1, p =
    1 - t / sqrt(2 + t^2) = 0.0027. Nothing is trained: the runs are finished."""
    words = words_of(tmp_path, "--json", str(tmp_path / "numbers.json"))
    _, args = ablation.parse(words)
    jobs = study.plan(args.common, args.vary, args.seeds)
    assert len(jobs) == 3 * 8  # none, all, three alone, three removed; by seed
    finish(tmp_path, jobs)
    assert ablation.main(words) == 0
    out = capsys.readouterr()
    assert "24 of them finished before" in out.err and "running" not in out.err
    text = (tmp_path / "studies" / "study" / "table.md").read_text()
    assert out.out.startswith(text)
    assert rows_under("10 labelled pixels per image, last epoch", text) == {
        "none": ["30.0 ± 10.0 (3)", "", "", "33.1 ± 10.1 (3)", "", ""],
        "a": ["31.1 ± 10.1 (3)", "+1.1 ± 0.1", "0.003", "32.0 ± 10.0 (3)", "-1.1 ± 0.1", "0.003"],
        "b": ["31.0 ± 10.0 (3)", "+1.0 ± 0.0", "< 0.001",
              "32.1 ± 10.1 (3)", "-1.0 ± 0.0", "< 0.001"],
        "c": ["31.0 ± 10.0 (3)", "+1.0 ± 0.0", "< 0.001",
              "32.1 ± 10.1 (3)", "-1.0 ± 0.0", "< 0.001"],
        "all": ["33.1 ± 10.1 (3)", "+3.1 ± 0.1", "< 0.001", "", "", ""]}
    best = rows_under("20 labelled pixels per image, best epoch", text)
    assert best["none"][0] == "40.0 ± 10.0 (3)" and best["all"][1] == "+6.1 ± 0.1"
    content = json.loads((tmp_path / "numbers.json").read_text())
    entry = next(row for row in content["ablation"] if row["ingredient"] == "a"
                 and (row["what"], row["budget"], row["metric"]) == ("removed", "20", "miou_best"))
    assert entry["difference"] == -0.021 and entry["pairs"] == 3 and entry["p"] < 0.001
    assert entry["runs"] == {"0": 0.34, "1": 0.44, "2": 0.54}
    assert len(content["ablation"]) == 2 * 2 * 9 and len(content["rows"]) == 2 * 8


def test_runs_that_are_two_things_are_one(tmp_path: Path) -> None:
    """Of one ingredient, alone is all and removed is none; of two, one alone is the other
    removed."""
    for n, n_runs in ((1, 2), (2, 4), (3, 8)):
        chosen = dict(list(THREE.items())[:n])
        found, args = ablation.parse(words_of(tmp_path, ingredients=chosen))
        assert found == chosen and len(study.plan(args.common, args.vary, [0])) == n_runs
    assert ablation.variants(chosen)["removed", "b"] == "--class_balance 0.5 --ema 0.99"


def test_unfinished_runs_leave_their_cells_empty(tmp_path: Path) -> None:
    found, args = ablation.parse(words_of(tmp_path))
    jobs = study.plan(args.common, args.vary, args.seeds)
    finish(tmp_path, [job for job in jobs if job.flags.seed == 0 and not (
        job.flags.ema and job.flags.class_balance)])
    text, _ = ablation.summary(ablation.groups(found, jobs, args), budget="per_image")
    rows = rows_under("20 labelled pixels per image, last epoch", text)
    assert rows["none"] == ["20.0 (1)", *[""] * 5] and rows["all"] == [""] * 6
    assert rows["a"] == ["22.0 (1)", "+2.0", "", "24.0 (1)", "", ""]


@pytest.mark.parametrize(("head", "message"), [
    (["--ingredient", "--ema 0.9"], "NAME: --flag"),
    (["--ingredient", "a: 0.9"], "NAME: --flag"),
    (["--ingredient", "all: --ema 0.9"], "another name than none and all"),
    (["--ingredient", "a: --ema 0.9", "--ingredient", "a: --lr 1"], "same name"),
    (["--ingredient", "a: --ema 0.9", "--vary", "--lr 1"], "follow from --ingredient"),
    (["--ingredient", "a: --ema 0.9", "--vary=--lr 1"], "follow from --ingredient"),
    (["--ingredient", "a: --ema 0.9", "--no_such_flag"], "no_such_flag"),
    ([], "--ingredient"),
])
def test_mistakes_are_one_line(head: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ablation.main([*head, "--", "--dataset_name", "cv"])
