"""The annotation window with real key events, under a virtual screen."""

from __future__ import annotations

import csv
import os
import select
import threading
import time
import tkinter as tk
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_tool import pictures, store
from annotation_tool.truth import GroundTruth
from datasets.annotations import Annotation, read_logs
from datasets.camvid import DEMO
from tests.annotation_tool.display import (
    NAMES,
    SIZE,
    App,
    Display,
    Typist,
    Work,
    answer,
    wait_until,
)
from tests.annotation_tool.shown import Shown

pytest_plugins = ("tests.annotation_tool.display", "tests.annotation_tool.shown")

Starter, Opener = Callable[..., App], Callable[..., Shown]


# --- a whole session ----------------------------------------------------------------------------


def type_first_image(typist: Typist) -> None:
    typist.types("k", answer(0, "k"))
    typist.types("shift+b", answer(1, "b"))
    typist.types("Caps_Lock p Caps_Lock", answer(2, "p"))
    # No classes: an unknown key, letters with a modifier, Return without a suggestion.
    typist.types("x ctrl+k alt+r super+t ctrl+shift+b F5 Tab Return", moves=False)
    typist.types("space", ("skip", 3))
    typist.types("Delete", answer(4, "void"))
    typist.types("Num_Lock r Num_Lock", answer(5, "r"))
    typist.types("BackSpace", ("undo", 6))
    typist.types("ctrl+z", ("undo", 5))
    typist.types("ctrl+y", ("redo", 5), moves=False)  # its pixel is the one shown
    typist.types("ctrl+y", ("redo", 6))
    typist.types("v", answer(5, "v"))
    typist.holds("t", answer(6, "t"))
    typist.types("s s", answer(7, "s"), answer(8, "s"))
    typist.types("F3 F1 plus minus minus F1 F3", moves=False)  # these change no answer
    typist.types("F2 Return", answer(9, "bicyclist"))  # what the network predicts of the 10th


def type_around(typist: Typist) -> None:
    """Looking at other pixels and images, and answering there."""
    app = typist.app
    typist.types("F2 Return", moves=False)  # hidden again: nothing to accept
    app.look("Left", "Left")
    typist.types("c", answer(8, "c"))
    app.look("Next")
    typist.types("f", answer(20, "f"))
    app.look("Prior")
    app.go_to("3")
    typist.types("d", answer(21, "d"))
    app.go_to("scene_0001")
    typist.types("i", answer(10, "i"))
    typist.types("ctrl+g k b space 2 Escape", moves=False)  # only text, and called off
    typist.types("ctrl+g 9 9 Return", moves=False)  # no such image
    typist.types("k", answer(11, "k"))
    app.display.xdotool("keydown", "shift")
    typist.types("b", answer(12, "b"), moves=False)
    app.display.xdotool("keyup", "shift")
    typist.types("BackSpace", ("undo", 21))
    typist.types("BackSpace ctrl+z BackSpace", ("undo", 20), ("undo", 19), ("undo", 18))
    typist.types("ctrl+y", ("redo", 18), moves=False)
    typist.types("ctrl+y ctrl+y ctrl+y", ("redo", 19), ("redo", 20), ("redo", 21))


def type_the_rest(typist: Typist) -> None:
    """In a second session: undo reaches into the first, the skipped pixel comes last."""
    typist.types("Return", moves=False)  # the suggestion is off at the start
    typist.types("BackSpace", ("undo", 21))
    typist.types("r", answer(12, "r"))
    typist.types("ctrl+y", moves=False)  # nothing to redo
    for index, key in zip([*range(13, 20), *range(22, 30)], "kbprvtsfcdikbpr", strict=True):
        typist.types(key, answer(index, key))
    typist.types("space", ("skip", 3), moves=False)  # the only one left
    typist.types("k", answer(3, "k"), moves=False)


def test_a_whole_session(work: Callable[..., Work], start: Starter) -> None:
    """3 images x 10 pixels: the journal and the logs are exactly what was typed."""
    task = work(network=True)
    typist = Typist(task, start(task).ready())
    type_first_image(typist)
    type_around(typist)
    assert typist.app.leave().startswith("14 of 30 pixels are answered, 16 are left")
    typist.app = start(task).ready()
    type_the_rest(typist)
    assert typist.app.leave().startswith("30 of 30 pixels are answered, 0 are left")
    check_logs(task, typist.lines)


def check_logs(work: Work, typed: list[tuple]) -> None:
    """The logs have, of each pixel, the last answer that was not taken back."""
    records, undone, last = work.records(), set(), {}
    for do, what, *_ in typed:
        if do in ("undo", "redo"):
            (undone.add if do == "undo" else undone.discard)(what)
    for seq, (do, index, *label) in enumerate(typed, 1):
        if do in ("answer", "skip") and seq not in undone:
            last[index] = (seq, label)
    for i, name in enumerate(NAMES):
        expected = [[str(record["y"]), str(record["x"]), label[0],
                     f"{record['elapsed_time']:.3f}", f"{record['total_time']:.3f}",
                     str(SIZE[0]), str(SIZE[1]), "0", name]
                    for index, (seq, label) in sorted(last.items(), key=lambda item: item[1][0])
                    for record in [records[seq - 1]] if label and index // 10 == i]
        with open(work.answers / name.replace(".png", ".txt"), newline="") as file:
            header, *rows = csv.reader(file)
        assert header[:5] == ["y", "x", "label", "elapsed_time", "total_time"]
        assert rows == expected and len(rows) == 10


def test_keys_repeat_on_this_screen(display: Display, bare: Callable[[], tk.Tk]) -> None:
    """What `holds` relies on: a key held for a second gives many KeyPress events here."""
    root, presses = bare(), []
    root.bind("<KeyPress-r>", presses.append)
    root.focus_force()
    root.update()
    display.hold("r", seconds=1)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        root.update()
    assert len(presses) >= 3


def test_rolled_keys_are_two_answers(work: Callable[..., Work], start: Starter) -> None:
    """The second key goes down before the first is up."""
    task = work()
    app = start(task).ready()
    app.display.xdotool("keydown", "r", "keydown", "k", "keyup", "r", "keyup", "k")
    task.wait_for([answer(0, "r"), answer(1, "k")])
    app.leave()
    assert task.lines() == [answer(0, "r"), answer(1, "k")]


def test_a_key_held_in_the_field_does_nothing_after_it(work: Callable[..., Work], start: Starter
                                                       ) -> None:
    """Return and Escape end the field; their repeats neither accept a suggestion nor leave."""
    typist = Typist(task := work(network=True), app := start(task).ready())
    typist.types("F2 ctrl+g 2", moves=False)
    typist.holds("Return")
    typist.types("ctrl+g", moves=False)
    app.display.hold("Escape", seconds=1)
    typist.types("k", answer(10, "k"))
    app.leave()


def test_the_field_does_not_change_the_image(show: Opener, work: Callable[..., Work]) -> None:
    """Else it is fitted and decoded anew, and keys typed meanwhile are refused."""
    shown = show(work().session()).ready()
    box = shown.window.view.box
    shown.key("ctrl+g")
    shown.wait_until(lambda: shown.window.bar.entry_is_open, "the field")
    shown.root.update()
    assert shown.window.view.box == box


def test_uncertain_ones_first(work: Callable[..., Work], start: Starter) -> None:
    task = work(network=True)
    app = start(task, "--order", "uncertainty").ready()
    app.key("k", "b")
    task.wait_for([answer(29, "k"), answer(28, "b")])
    app.leave()


# --- the end, and going on ----------------------------------------------------------------------


@pytest.mark.parametrize("leave", [lambda app: app.key("Escape"), lambda app: app.key("ctrl+q"),
                                   App.close_window], ids=["Escape", "Ctrl+Q", "closed"])
def test_leave_and_go_on(work: Callable[..., Work], start: Starter,
                         leave: Callable[[App], None]) -> None:
    task = work()
    app = start(task).ready()
    app.key("k", "b")
    task.wait_for([answer(0, "k"), answer(1, "b")])
    leave(app)
    code, out, error = app.end()
    assert (code, error) == (0, "")
    assert out == ("2 of 30 pixels are answered, 28 are left; the answers are in "
                   f"{task.answers}\n")
    app = start(task).ready()
    app.key("r", "ctrl+z", "ctrl+z", "v")
    task.wait_for([answer(0, "k"), answer(1, "b"), answer(2, "r"), ("undo", 3), ("undo", 2),
                   answer(1, "v")])
    app.leave()


# --- what is painted ----------------------------------------------------------------------------


@pytest.mark.parametrize("query", [{}, {"grid": (24, 32)}, {"side_by_side": True}], ids=str)
@pytest.mark.parametrize("others", [False, True])
def test_the_asked_pixel_is_never_covered(show: Opener, work: Callable[..., Work], streets: Path,
                                          query: dict, others: bool) -> None:
    """On a screenshot: in the inset its ten by ten pixels have its colour, inside a box; in the
    image a disc in the ring is the fitted image and nothing else."""
    session, grid = work(**query).session(), query.get("grid", SIZE)
    shown = show(session, show_others=others).ready()
    image = np.asarray(Image.open(streets / NAMES[0]))
    for pixel in session.images[0].pixels.tolist():
        y, x = (int((c + 0.5) * n / g) for c, n, g in zip(pixel, SIZE, grid, strict=True))
        inset = next(child for child in shown.window.side.frame.winfo_children()
                     if isinstance(child, tk.Canvas))
        check_inset(shown.grab(inset), image[y, x])
        check_ring(shown.grab(shown.window.view.canvas), image, (y, x))
        shown.key("Right")


def check_inset(screen: np.ndarray, colour: np.ndarray) -> None:
    """22 pixels at 10x, the asked one is the 12th in both directions."""
    assert screen.shape == (220, 220, 3)
    assert (screen[110:120, 110:120] == colour).all()
    box = np.ones((12, 12), bool)
    box[1:-1, 1:-1] = False
    assert (screen[109:121, 109:121][box] == 255).all()
    assert (screen[108, 108:122] == 0).all() and (screen[121, 108:122] == 0).all()


def check_ring(screen: np.ndarray, image: np.ndarray, pixel: tuple[int, int]) -> None:
    height, width = screen.shape[:2]
    scale = min((width - 8) / SIZE[1], (height - 8) / SIZE[0])
    fitted = round(SIZE[0] * scale), round(SIZE[1] * scale)
    top, left = (height - fitted[0]) // 2, (width - fitted[1]) // 2
    cy = top + (pixel[0] + 0.5) * fitted[0] / SIZE[0]
    cx = left + (pixel[1] + 0.5) * fitted[1] / SIZE[1]
    ys, xs = np.mgrid[:height, :width]
    distance = np.hypot(ys + 0.5 - cy, xs + 0.5 - cx)
    inside = (ys >= top) & (ys < top + fitted[0]) & (xs >= left) & (xs < left + fitted[1])
    hollow = inside & (distance < 9)
    large = Image.fromarray(image).resize(fitted[::-1], Image.Resampling.NEAREST)
    assert (screen[hollow] == np.asarray(large)[ys[hollow] - top, xs[hollow] - left]).all()
    assert (screen[int(cy), int(cx)] == image[pixel]).all()
    ring = screen[(distance > 10.5) & (distance < 15.5)]
    assert (ring == 255).all(axis=1).sum() > 40 and (ring == 0).all(axis=1).sum() > 40


def test_shift_hides_the_marker(show: Opener, work: Callable[..., Work], streets: Path,
                                display: Display) -> None:
    shown = show(work().session()).ready()
    canvas = shown.window.view.canvas
    marked = shown.grab(canvas)
    display.xdotool("keydown", "shift")
    shown.wait_until(lambda: (shown.grab(canvas) != marked).any(), "a hidden marker")
    differs = np.argwhere((shown.grab(canvas) != marked).any(axis=2))
    assert np.ptp(differs, axis=0).max() <= 32  # the ring, and all of it
    shown.key("k")
    other = shown.grab(canvas)
    display.xdotool("keyup", "shift")
    shown.wait_until(lambda: (shown.grab(canvas) != other).any(), "the next pixel's marker")
    assert shown.session.n_answered == 1


def test_saved_before_the_next_pixel_is_painted(show: Opener, work: Callable[..., Work],
                                                streets: Path, monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    session = work().session()
    shown, order, sync = show(session).ready(), [], os.fsync
    paint = shown.window.view.show
    journal = (session.store.folder / "journal.jsonl").stat().st_ino

    def synced(file: int) -> None:
        sync(file)
        if os.fstat(file).st_ino == journal:
            order.append("synced")

    monkeypatch.setattr(store.os, "fsync", synced)
    monkeypatch.setattr(shown.window.view, "show",
                        lambda *a, **k: (order.append("painted"), paint(*a, **k)))
    shown.key("k", "BackSpace", "ctrl+y")
    assert order == ["synced", "painted"] * 3


# --- time ---------------------------------------------------------------------------------------


def test_time_without_the_focus_does_not_count(work: Callable[..., Work], start: Starter,
                                               bare: Callable[[], tk.Tk]) -> None:
    task, other = work(), bare()
    other.geometry("50x50+1200+900")
    other.update()
    app = start(task).ready()
    app.key("k")
    task.wait_for([answer(0, "k")])
    app.display.xdotool("windowfocus", other.winfo_id())
    left = time.monotonic()
    time.sleep(2)
    away = time.monotonic() - left
    app.focus()
    app.display.xdotool("sleep", 0.5, "key", "b")
    task.wait_for([answer(0, "k"), answer(1, "b")])
    app.leave()
    first, second = task.records()
    moments = [datetime.fromisoformat(record["time"]) for record in (first, second)]
    passed = (moments[1] - moments[0]).total_seconds()
    assert 0.5 <= second["elapsed_time"] <= passed - away + 0.05
    assert second["total_time"] == pytest.approx(first["total_time"] + second["elapsed_time"],
                                                 abs=0.002)


def test_time_starts_when_the_pixel_is_painted(show: Opener, work: Callable[..., Work],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """While the image is being decoded no answer is taken and no time passes."""
    decoded, read = threading.Event(), pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path: decoded.wait(20) and read(path))
    shown = show(work().session())
    shown.wait_until(lambda: shown.root.focus_displayof() is not None, "the focus")
    time.sleep(0.4)
    shown.key("k")
    assert "still reading the image" in shown.text and shown.session.n_answered == 0
    decoded.set()
    since = time.monotonic()
    shown.ready().key("b")
    (only,) = shown.session.answers()
    assert only.label == "building" and 0 < only.elapsed_time <= time.monotonic() - since


@pytest.mark.parametrize("keys", [["plus"], ["F3"], ["F2"], ["F1"], ["ctrl+g", "Escape"], ["x"]],
                         ids=str)
def test_time_goes_on_while_the_same_pixel_is_shown(show: Opener, work: Callable[..., Work],
                                                    keys: list[str]) -> None:
    shown = show(work(network=True).session()).ready()
    time.sleep(0.3)
    shown.key(*keys)
    shown.key("k")
    assert shown.session.answers()[0].elapsed_time >= 0.3


def test_time_goes_on_when_the_window_is_resized(show: Opener, work: Callable[..., Work]) -> None:
    shown = show(work().session()).ready()
    time.sleep(0.3)
    shown.root.geometry("1000x700")
    before = shown.window.view.box
    shown.wait_until(lambda: shown.window.view.box != before, "another size")
    end = time.monotonic() + 0.2  # the window paints a moment after the last change of its size
    shown.wait_until(lambda: time.monotonic() > end, "the image in that size")
    shown.key("k")
    assert shown.session.answers()[0].elapsed_time >= 0.4


# --- ground truth -------------------------------------------------------------------------------


@pytest.mark.parametrize("practice", [False, True])
def test_ground_truth(work: Callable[..., Work], start: Starter, streets: Path, practice: bool
                      ) -> None:
    """Scored silently and reported at the end; with --practice each answer is commented."""
    task = work()
    flags = ["--dir_gts", streets / "trainannot", *["--practice"] * practice]
    app = start(task, *flags).ready()
    app.key("Left")  # there is no pixel before the first one; what was said goes
    wait_until(lambda: not app.speaks, "silence")
    app.moves(lambda: app.key("r"))
    assert app.speaks is practice
    assert app.process.poll() is None and not select.select([app.process.stdout], [], [], 0)[0]
    app.look("k", "Delete")
    out = app.leave().splitlines()
    truth = GroundTruth(streets / "trainannot", DEMO)
    true = [truth.label(a) for a in read_logs(task.answers)]
    right = sum(a == b for a, b in zip(true, ("road", "sky", "void"), strict=True) if a != "void")
    assert out[0].startswith("3 of 30")
    assert out[1].startswith(f"ground truth: {right} of {len(true) - true.count('void')} answers")


def test_practice_says_what_was_right(show: Opener, work: Callable[..., Work], streets: Path
                                      ) -> None:
    truth = GroundTruth(streets / "trainannot", DEMO)
    shown = show(work().session(), truth=truth).ready()
    for _ in range(10):
        image, h, w, y, x = shown.session.key(shown.session.cursor)
        true = truth.label(Annotation(image=image, h=h, w=w, y=y, x=x))
        shown.key("r")
        said = "" if true == "void" else "right" if true == "road" else (
            f"wrong: it was {true}, not road")
        assert shown.text.split(" | ")[0] == said
