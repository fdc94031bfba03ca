"""The loop with a person: train.py waits for the annotation tool's answers, trains, asks again."""

from __future__ import annotations

import csv
import json
import math
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import train
from annotation_tool import options
from annotation_tool.launch_gui import dataset_to_paths
from datasets.annotations import Annotation
from datasets.points import VOID
from tests.conftest import RUN, quick_flags
from utils.errors import InputError

Choose = Callable[[tuple[str, int, int, int, int]], str | None]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Loop:
    """A run with --labeller human and the person who answers it."""

    def __init__(self, data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data, self.run, self.logs, self._capsys = data, out / RUN, out / "logs", capsys
        self._flags = [*quick_flags(), "--labeller", "human", "--dir_dataset", str(data),
                       "--dir_checkpoints", str(out), "--dir_annotations", str(self.logs)]

    def train(self, *flags: str) -> int:
        code = train.main([*self._flags, *flags])
        self.said = self._capsys.readouterr()
        return code

    def annotate(self, choose: Choose, *, annotator: str = "me") -> None:
        """Run the command that train.py has printed, without its window; `choose` is given a pixel
        (image, h, w, y, x) and returns its label, or None to skip it."""
        (command,) = [line for line in self.said.out.splitlines() if "launch_gui.py" in line]
        words = shlex.split(command)
        assert Path(words[1]).name == "launch_gui.py" and Path(words[1]).exists()
        parser = options.parser("test")
        task = options.prepare(parser.parse_args(words[2:]), dataset_to_paths)
        session = task.open(annotator)
        for _ in range(len(session.pixels)):
            label = choose(session.key(session.cursor))
            if label is None:
                session.skip(seconds=1.0)
            else:
                session.answer(label, seconds=1.5)
        session.close()

    def asked(self, r: int) -> set[tuple[str, int, int]]:
        images = json.loads((self.run / f"{r}_query" / "query.json").read_text())["images"]
        return {(entry["image"], y, x) for entry in images for y, x in entry["pixels"]}

    def labels(self, r: int) -> dict[tuple[str, int, int], int]:
        return {(row["image"], int(row["y"]), int(row["x"])): int(row["label"])
                for row in rows(self.run / f"{r}_query" / "labels.csv")}


@pytest.fixture
def loop(own_camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Loop:
    """On images without any label map."""
    for name in ("trainannot", "test", "testannot"):
        shutil.rmtree(own_camvid / name)
    return Loop(own_camvid, tmp_path / "runs", capsys)


def by_place(pixel: tuple[str, int, int, int, int]) -> str:
    """Sky above, road below, and every fourth column is void."""
    _, h, _, y, x = pixel
    return "void" if x % 4 == 0 else "sky" if y < h / 2 else "road"


def index_by_place(y: int, x: int) -> int:
    return VOID if x % 4 == 0 else 0 if y < 15 else 3


def test_rounds_with_a_person_and_no_ground_truth(loop: Loop) -> None:
    assert loop.train() == 3
    assert "20 of 20 asked pixels have no answer yet" in loop.said.out
    assert "no mIoU" in loop.said.err
    assert not (loop.run / "0_query" / "labels.csv").exists()
    assert loop.train() == 3  # still
    loop.annotate(by_place)
    assert loop.train() == 3
    assert "no mIoU without a validation set" in loop.said.out
    assert "20 of 20 asked pixels" in loop.said.out and "1_query" in loop.said.out
    loop.annotate(by_place)
    assert loop.train() == 0 and "curve" not in loop.said.out

    for r in (0, 1):
        assert loop.labels(r).keys() == loop.asked(r)
        assert all(label == index_by_place(y, x) for (_, y, x), label in loop.labels(r).items())
    assert not loop.asked(0) & loop.asked(1)  # void answers are not asked again either
    n_void = [sum(label == VOID for label in loop.labels(r).values()) for r in (0, 1)]
    assert n_void[0] > 0
    for row, asked, void in zip(rows(loop.run / "metrics.csv"), (20, 40), np.cumsum(n_void),
                                strict=True):
        assert (int(row["pixels_total"]), int(row["void_answers"])) == (asked, void)
        assert int(row["pixels_trained"]) == asked - void
        assert math.isnan(float(row["miou_last"])) and math.isnan(float(row["miou_best"]))
    assert {path.name for path in (loop.run / "1_query").iterdir()} == {
        "query.json", "query.npy", "query_stats.json", "labels.csv", "last.pt", "best.pt",
        "log_train.csv", "qualitative.png"}
    statistics = json.loads((loop.run / "0_query" / "query_stats.json").read_text())
    assert statistics["n_answered"] == 20 and statistics["n_void"] == n_void[0]
    assert loop.train() == 0 and "finished" in loop.said.out


def test_a_validation_set_is_used_where_there_is_one(own_camvid: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own_camvid / "trainannot")
    loop = Loop(own_camvid, tmp_path / "runs", capsys)
    assert loop.train("--max_budget", "4") == 3
    loop.annotate(by_place)
    assert loop.train("--max_budget", "4") == 0
    assert 0 <= float(rows(loop.run / "metrics.csv")[0]["miou_last"]) <= 1
    assert (loop.run / "curve.png").exists()


def test_unanswered_pixels_stop_it_unless_a_part_is_enough(loop: Loop) -> None:
    loop.train()
    loop.annotate(lambda pixel: None)  # skips are no answers
    assert loop.train("--allow_partial") == 3  # there is nothing to train on at all
    loop.annotate(lambda pixel: None if pixel[0].endswith("scene_0002.png") else by_place(pixel))
    assert loop.train() == 3
    assert "4 of 20 asked pixels have no answer yet: train/scene_0002.png (4)" in loop.said.out
    assert "--allow_partial" in loop.said.out
    assert loop.train("--allow_partial") == 3
    assert "4 of 20 asked pixels have no answer and are left out" in loop.said.err
    assert len(loop.labels(0)) == 16 and (loop.run / "1_query" / "query.json").exists()
    assert int(rows(loop.run / "metrics.csv")[0]["pixels_total"]) == 16


def test_annotators_who_disagree(loop: Loop) -> None:
    loop.train("--max_budget", "4")
    pixel = sorted(loop.asked(0))[0]

    def differently(label: str) -> Choose:
        return lambda key: label if (key[0], key[3], key[4]) == pixel else by_place(key)

    for name, label in (("a", "car"), ("b", "tree"), ("c", "tree")):
        loop.annotate(differently(label), annotator=name)
    with pytest.raises(InputError, match=r"disagree on 1 pixels.*car, tree, tree.*--on_conflict"):
        loop.train("--max_budget", "4")
    copy = shutil.copytree(loop.run, loop.run.with_name("copy"))
    assert loop.train("--max_budget", "4", "--on_conflict", "majority") == 0
    assert loop.labels(0)[pixel] == 5 and "disagree on 1 pixels" in loop.said.err
    shutil.rmtree(loop.run)
    copy.rename(loop.run)
    assert loop.train("--max_budget", "4", "--on_conflict", "first") == 0
    assert loop.labels(0)[pixel] == 8


def test_two_annotators_share_the_work(loop: Loop) -> None:
    loop.train("--max_budget", "4")
    for name in ("a", "b"):
        loop.annotate(lambda key, mine=name: by_place(key) if (key[3] % 2 == 0) == (mine == "a")
                      else None, annotator=name)
    folders = [str(path) for path in loop.logs.glob("camvid_*")]
    assert loop.train("--max_budget", "4", "--dir_annotations", *folders) == 0
    assert loop.labels(0).keys() == loop.asked(0)


def test_the_pixels_of_the_first_round_may_come_from_elsewhere(loop: Loop) -> None:
    masks = np.zeros((5, 30, 40), bool)
    masks[:, 3, 5] = masks[2, 29, 39] = True
    query = loop.data / "query.npy"
    np.save(query, masks)
    assert loop.train("--init_query", str(query), "--max_budget", "4") == 3
    assert len(loop.asked(0)) == 6 and ("train/scene_0002.png", 29, 39) in loop.asked(0)
    loop.annotate(by_place)
    assert loop.train("--init_query", str(query), "--max_budget", "4") == 0
    assert float(rows(loop.run / "metrics.csv")[0]["pixels_per_image"]) == pytest.approx(1.2)


def test_logs_of_a_query_made_by_the_tool_itself(loop: Loop) -> None:
    """Its names are relative to the images' folder, not to the dataset's root."""
    args = options.parser("test").parse_args([
        "--dir_imgs", str(loop.data / "train"), "--dir_logs", str(loop.logs), "--n_pixels", "3",
        "--n_imgs", "-1"])
    task = options.prepare(args, {})
    session = task.open("me")
    while not session.finished:
        session.answer("road", seconds=1.0)
    session.close()
    (query,) = loop.logs.glob("queries/*/query.json")
    flags = ["--downsample", "1", "--init_query", str(query), "--max_budget", "4", "--n_epochs",
             "1"]
    assert loop.train(*flags) == 0
    run = loop.run.with_name(RUN.replace("_d12", ""))
    assert [row["label"] for row in rows(run / "0_query" / "labels.csv")] == ["3"] * 15


@pytest.mark.parametrize(("flags", "message"), [
    (["--labeller", "robot"], "unknown labeller 'robot'; choose from oracle, human"),
    (["--labeller", "human", "--n_pixels_by_us", "0"], "labeller has no meaning"),
    (["--allow_partial"], "allow_partial has no meaning without --labeller human"),
    (["--on_conflict", "first"], "on_conflict has no meaning without --labeller human"),
    (["--dir_annotations", "x"], "dir_annotations has no meaning without --labeller human"),
    (["--labeller", "human", "--on_conflict", "vote"], "unknown rule 'vote'"),
])
def test_flags_without_a_meaning(flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train.main(["--dataset_name", "cv", *flags])


def test_a_label_of_other_classes_is_named(loop: Loop) -> None:
    loop.train()
    folder = loop.logs / "camvid_me"
    image, y, x = sorted(loop.asked(0))[0]
    from annotation_tool.store import Store

    store = Store(folder)
    store.add("answer", Annotation(image=image, y=y, x=x, h=30, w=40, label="banana"))
    store.close()
    with pytest.raises(InputError, match=r"scene_0000\.txt: 'banana' is no class"):
        loop.train()
