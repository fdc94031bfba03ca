"""Atomic writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import InputError
from utils.files import read_csv, read_json, write_atomically, write_csv, write_text
from utils.runs import MetricsTable, check_flags, move_aside, record_flags


def test_a_failing_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def half(file) -> None:
        file.write(b"ne")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_atomically(path, half)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_csv_round_trip_with_awkward_names(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["image", "n"], [["a, \"b\" ü.png", 1]])
    assert read_csv(tmp_path / "a.csv") == [{"image": "a, \"b\" ü.png", "n": "1"}]


def test_unreadable_files_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        read_json(tmp_path / "a.json")


def test_flags_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    record_flags(run, flags={"lr": 1.0, "scale": (0.5, 2.0), "device": "cpu"}, repository=tmp_path)
    free = frozenset({"device"})
    check_flags(run, flags={"lr": 1.0, "scale": (0.5, 2.0), "device": "cuda"}, free=free)
    with pytest.raises(InputError, match=r"lr \(was 1.0, now 2.0\).*--overwrite"):
        check_flags(run, flags={"lr": 2.0, "scale": (0.5, 2.0), "device": "cpu"}, free=free)
    recorded = read_json(run / "args.json")
    assert recorded["git_commit"] is None and "torch" in recorded["versions"]
    assert move_aside(run).name == "run.old-1" and not run.exists()


def test_metrics_table_keeps_finished_rows_to_the_letter(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path, ["round", "miou"])
    table.put({"round": 0, "miou": 1 / 3})
    table.put({"round": 1, "miou": float("nan")})
    assert path.read_text() == "round,miou\n0,0.333333\n1,nan\n"
    MetricsTable(path, ["round", "miou"]).put({"round": 2, "miou": 0.5})
    assert path.read_text() == "round,miou\n0,0.333333\n1,nan\n2,0.500000\n"
    with pytest.raises(InputError, match="--overwrite"):
        MetricsTable(path, ["round", "other"])
