"""The session without a window: cursor, answers, undo, skips, resuming."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from annotation_tool.asked import AskedImage
from annotation_tool.session import Session, Stopwatch
from annotation_tool.store import Store
from datasets import DATASETS
from datasets.annotations import read_logs

CLASSES = DATASETS["camvid"]


def images(*counts: int, predictions: bool = False) -> list[AskedImage]:
    """Images a, b, ... with so many pixels (0, 0), (0, 1), ... on a grid of 4x10."""
    return [AskedImage(
        name=f"{letter}.png", path=Path(f"{letter}.png"), size=(4, 10),
        pixels=np.array([[0, i] for i in range(n)]),
        predictions=np.arange(n) if predictions else None,
        probabilities=np.full(n, 0.5) if predictions else None)
        for letter, n in zip("abcdefgh", counts, strict=False)]


@pytest.fixture
def open_session(tmp_path: Path):
    """`open_session(*counts)` opens a session in one folder, closing the one before."""
    opened: list[Session] = []

    def close() -> None:
        while opened:
            opened.pop().close()

    def open_again(*counts: int, **kwargs: bool) -> Session:
        close()
        opened.append(Session(images(*counts, **kwargs), classes=CLASSES,
                              store=Store(tmp_path / "camvid_me")))
        return opened[0]

    yield open_again
    close()


def labels(session: Session) -> list[str | None]:
    return [session.label(i) for i in range(len(session.pixels))]


def test_answers_go_on_across_images(open_session) -> None:
    session = open_session(2, 1)
    assert session.position == (1, 2, 1, 2) and not session.finished
    for label in ("sky", "void", "road"):
        session.answer(label, seconds=1)
    assert labels(session) == ["sky", "void", "road"] and session.finished
    assert session.position == (2, 2, 1, 1)  # the last one stays in view
    assert session.at_end and open_session(2, 1).at_end
    session = open_session(2, 1)
    session.look(1)
    assert session.finished and not session.at_end
    session.skip(seconds=1)
    assert session.at_end
    assert session.undo() and not session.at_end
    assert session.redo() and not session.at_end  # it shows what it did
    assert not any(session.is_skipped(i) for i in range(3))
    assert session.used == {"sky": 1, "void": 1, "road": 1}
    with pytest.raises(ValueError, match="no class"):
        session.answer("banana", seconds=1)


def test_undo_and_redo_without_limit_across_images_and_sessions(open_session) -> None:
    session = open_session(2, 2)
    for label in ("sky", "road", "car", "tree"):
        session.answer(label, seconds=1)
    session = open_session(2, 2)
    for expected in (3, 2, 1, 0):
        assert session.undo() and session.cursor == expected
    assert not session.undo() and labels(session) == [None] * 4 and not any(session.used.values())
    session = open_session(2, 2)
    assert session.redo() and session.redo() and session.cursor == 1
    assert labels(session) == ["sky", "road", None, None]
    session.look(1)
    session.answer("pole", seconds=1)  # a new action: nothing is left to redo
    assert not session.redo() and labels(session) == ["sky", "road", "pole", None]
    assert session.undo() and session.undo() and labels(session) == ["sky", None, None, None]


def test_a_changed_answer_is_undone_to_the_one_before(open_session) -> None:
    session = open_session(2)
    session.answer("sky", seconds=1)
    session.look(-1)
    session.answer("car", seconds=1)
    assert labels(session) == ["car", None] and session.cursor == 1
    assert session.undo() and labels(session) == ["sky", None] and session.used["car"] == 0
    assert session.redo() and labels(session) == ["car", None]


def test_skipped_pixels_come_back_at_the_end_in_the_order_of_skipping(open_session) -> None:
    session = open_session(4)
    session.skip(seconds=1)
    session.answer("sky", seconds=1)
    session.skip(seconds=1)
    session.answer("sky", seconds=1)
    assert session.cursor == 0 and session.is_skipped(0)
    session.skip(seconds=1)
    assert session.cursor == 2
    session.answer("road", seconds=1)
    assert session.cursor == 0 and session.n_answered == 3 and session.n_skipped == 1
    session = open_session(4)
    assert session.cursor == 0
    session.answer("road", seconds=1)
    assert session.finished and session.n_skipped == 0


def test_undoing_a_skip_and_skipping_an_answered_pixel(open_session) -> None:
    session = open_session(3)
    session.skip(seconds=1)
    assert session.undo() and session.cursor == 0 and not session.is_skipped(0)
    session.answer("sky", seconds=1)
    session.look(-1)
    session.skip(seconds=1)  # it is answered: only goes on
    assert labels(session) == ["sky", None, None] and session.cursor == 1
    assert session.n_skipped == 0


def test_looking_changes_nothing(open_session) -> None:
    session = open_session(2, 2, 1)
    session.look(-1)
    assert session.cursor == 0
    session.look(3)
    assert session.position == (2, 3, 2, 2)
    session.look(9)
    assert session.position == (3, 3, 1, 1)
    session.look_image(-1)
    assert session.position == (2, 3, 1, 2)
    session.look_image(-5)
    assert session.position[0] == 1
    assert labels(session) == [None] * 5 and not session.undo()
    session.answer("sky", seconds=1)
    session.look_image(1)
    session.look_image(-1)
    assert session.cursor == 1  # the first open pixel of the image


def test_going_to_an_image(open_session) -> None:
    session = open_session(1, 1, 1)
    assert session.go_to(" 3 ") and session.image.name == "c.png"
    assert session.go_to("a.png") and session.image.name == "a.png"
    assert session.go_to("b") and session.image.name == "b.png"
    for nothing in ("png", "", "4", "0", "x", "-1", "²"):
        assert not session.go_to(nothing)
    assert session.image.name == "b.png"


def test_it_opens_where_it_stopped_also_in_another_order(open_session) -> None:
    session = open_session(3, 2)
    session.answer("sky", seconds=1)
    session.look(1)
    session.answer("road", seconds=1)
    session = open_session(3, 2)
    assert session.cursor == 3
    session.answer("sky", seconds=1)
    session.answer("sky", seconds=1)
    assert session.cursor == 1  # what was passed over


def test_answers_to_another_query_are_kept_and_not_undone(tmp_path: Path) -> None:
    other = [AskedImage(name="a.png", path=Path("a.png"), size=(4, 10),
                        pixels=np.array([[3, 3], [3, 4]]))]

    def opened(asked: list[AskedImage]) -> Session:
        return Session(asked, classes=CLASSES, store=Store(tmp_path / "me"))

    with closing(opened(images(1))) as first:
        first.answer("sky", seconds=1)
    with closing(opened(other)) as second:
        second.answer("road", seconds=1)
        assert second.undo() and not second.undo()
        second.answer("car", seconds=1)
    assert [(a.y, a.x, a.label) for a in read_logs(tmp_path / "me")] == [
        (0, 0, "sky"), (3, 3, "car")]
    with closing(opened(images(1))) as third:
        assert third.finished and third.undo() and not third.finished
    with closing(opened(other)) as fourth:
        assert fourth.label(0) == "car" and not fourth.redo()


def test_pace_leaves_out_slow_answers(open_session) -> None:
    session = open_session(10)
    assert session.labels_per_minute is None and session.seconds_left is None
    session.answer("sky", seconds=2)
    session.answer("sky", seconds=31)
    session.answer("sky", seconds=4)
    assert session.labels_per_minute == pytest.approx(60 * 3 / 37)
    assert session.seconds_left == pytest.approx(7 * 3)
    session.store.flush()
    found = read_logs(session.store.folder)
    assert [a.slow for a in found] == [False, True, False]
    assert [a.total_time for a in found] == [2, 33, 37]


def test_suggestions_are_class_names(open_session) -> None:
    session = open_session(12, predictions=True)
    assert session.suggestion == ("sky", 0.5)
    session.look(11)  # a prediction of 11 is no class
    assert session.suggestion is None
    assert open_session(2).suggestion is None


def test_the_stopwatch_leaves_out_pauses() -> None:
    now = [100.0]
    watch = Stopwatch(clock=lambda: now[0])
    assert watch.seconds == 0

    def after(seconds: float) -> float:
        now[0] += seconds
        return watch.seconds

    watch.start()
    assert after(2) == 2
    watch.pause()
    watch.pause()
    assert after(50) == 2
    watch.go_on()
    watch.go_on()
    assert after(1) == 3
    watch.pause()
    watch.start()  # a pixel painted while the window is in the background
    assert after(9) == 0
    watch.go_on()
    assert after(4) == 4
