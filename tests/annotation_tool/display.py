"""A virtual screen for the tests of the window: one Xvfb for all, keys typed by xdotool; the
program in a process of its own as users start it, or a Window in this process to look into.

A test module takes the fixtures by `pytest_plugins = "tests.annotation_tool.display"`, after it has
imported what else it needs from here (hence PYTEST_DONT_REWRITE)."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageGrab

from annotation_tool.asked import load_asked
from annotation_tool.panels import WARNING
from annotation_tool.session import Session
from annotation_tool.store import Store
from datasets.camvid import DEMO
from datasets.queries import Query, write_query
from datasets.synthetic import write_street_scenes

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "annotation_tool" / "launch_gui.py"
SIZE = (48, 64)  # of the images
NAMES = [f"train/scene_{i:04}.png" for i in range(3)]
DEADLINE = 20.0  # seconds that anything may take on a busy machine

# A line of the journal in short: what was done, the pixel's index in the order of asking (undo and
# redo: the line that is meant), the label of an answer.
Line = tuple


CLASS_OF_KEY = {info.key: info.name for info in DEMO.classes}


def answer(index: int, key: str) -> Line:
    """The line of an answer by a class's key, or by a label."""
    return "answer", index, CLASS_OF_KEY.get(key, key)


def wait_until(true: Callable[[], object], what: str, *, seconds: float = DEADLINE) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for: {what}"
        time.sleep(0.01)


# --- the screen ---------------------------------------------------------------------------------


class Display:
    """`name` is the value of DISPLAY."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.environment = os.environ | {"DISPLAY": name, "PYTHONUNBUFFERED": "1"}

    def xdotool(self, *arguments: object) -> str:
        return subprocess.run(["xdotool", *map(str, arguments)], env=self.environment, check=True,
                              text=True, capture_output=True, timeout=DEADLINE).stdout.strip()

    def key(self, *keys: str) -> None:
        """Type them one after the other; `ctrl+z` is a combination."""
        self.xdotool("key", *keys)

    def hold(self, key: str, *, seconds: float) -> None:
        self.xdotool("keydown", key, "sleep", seconds, "keyup", key)

    def grab(self, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """`(H, W, 3)` of the screen or of (left, top, right, bottom) on it."""
        return np.asarray(ImageGrab.grab(box, xdisplay=self.name))


@pytest.fixture(scope="session")
def display() -> Iterator[Display]:
    missing = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not installed (Debian: apt install xvfb xdotool)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp",
         "-noreset"], pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as file:
        number = file.readline().strip()
    try:
        assert number, "Xvfb does not start"
        shown = Display(f":{number}")
        shown.xdotool("mousemove", 1279, 1023)  # the focus is nowhere by chance
        yield shown
    finally:
        server.terminate()
        server.wait(DEADLINE)


# --- what is annotated --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of 48x64 with their label maps. Not to be changed."""
    folder = tmp_path_factory.mktemp("window") / "streets"
    write_street_scenes(folder, n_train=3, n_test=1, height=SIZE[0], width=SIZE[1])
    return folder


def some_query(*, n_pixels: int = 10, grid: tuple[int, int] = SIZE, side_by_side: bool = False,
               network: bool = False) -> Query:
    """`n_pixels` of each image; with `network`, the j-th is predicted to be class j + 1, and later
    ones and later images have higher scores."""
    rng = np.random.default_rng(0)
    flat = [rng.choice(grid[0] * grid[1], n_pixels, replace=False) for _ in NAMES]
    if side_by_side:
        flat = [grid[0] * grid[1] // 2 + 10 + np.arange(n_pixels)] * 3
    given = {}
    if network:
        given = {"predictions": [np.arange(1, n_pixels + 1)] * 3,
                 "probabilities": [np.full(n_pixels, 0.5)] * 3,
                 "scores": [np.arange(n_pixels) + 100.0 * i for i in range(3)]}
    return Query(names=NAMES, sizes=np.tile(grid, (3, 1)), strategy="margin_sampling", seed=0,
                 pixels=[np.stack(np.unravel_index(f, grid), axis=1) for f in flat], **given)


class Work:
    """A query, the folder it lies in, and the flags that annotate it."""

    def __init__(self, folder: Path, streets: Path, **query: object) -> None:
        self.query, self.folder = some_query(**query), folder
        write_query(folder / "query", self.query, max_mask_gb=1)
        self.dir_logs = folder / "logs"
        self.flags = {
            "--dataset_name": "demo", "--dir_imgs": streets / "train",
            "--path_query": folder / "query" / "query.json", "--dir_logs": self.dir_logs,
            "--n_imgs": -1, "--annotator": "me"}
        self._index_of = {(name, *pixel): i for i, (name, pixel) in enumerate(
            (name, pixel) for name, asked in zip(NAMES, self.query.pixels, strict=True)
            for pixel in asked.tolist())}

    def arguments(self, *more: object) -> list[str]:
        return [str(part) for pair in self.flags.items() for part in pair] + list(map(str, more))

    @property
    def answers(self) -> Path:
        return self.dir_logs / "demo_me"

    def session(self) -> Session:
        """Its session in this process."""
        images = load_asked(self.flags["--path_query"], self.flags["--dir_imgs"])
        return Session(images, classes=DEMO, store=Store(self.answers))

    def records(self) -> list[dict]:
        """The journal's complete lines."""
        path = self.answers / "journal.jsonl"
        content = path.read_bytes() if path.exists() else b""
        return [json.loads(line) for line in content[:content.rfind(b"\n") + 1].splitlines()]

    def lines(self) -> list[Line]:
        return [self._short(record) for record in self.records()]

    def _short(self, record: dict) -> Line:
        if record["do"] in ("undo", "redo"):
            return record["do"], record["of"]
        index = self._index_of[record["image"], record["y"], record["x"]]
        return (record["do"], index, *([record["label"]] if record["do"] == "answer" else []))

    def wait_for(self, lines: list[Line]) -> None:
        """Until the journal has so many lines; they must be these."""
        wait_until(lambda: len(self.lines()) >= len(lines), f"line {len(lines)}, {lines[-1:]}")
        assert self.lines() == lines, f"journal: {self.lines()}\n  typed: {lines}"


@pytest.fixture
def work(tmp_path: Path, streets: Path) -> Callable[..., Work]:
    """`work(**query)` writes a query as `some_query` makes it."""
    return lambda **query: Work(tmp_path, streets, **query)


_FLASH = tuple(bytes.fromhex(WARNING[1:]))  # the colour behind a message that flashes

# --- the program as users start it --------------------------------------------------------------


class App:
    """The program in a process of its own. `ready` waits until its first pixel is painted."""

    _LEFT = (0, 0, 900, 700)  # of the screen: inside the big image's canvas
    _BAR = (0, 730, 400, 760)  # where messages stand

    def __init__(self, display: Display, arguments: list[str], **environment: str) -> None:
        self.display = display
        self.process = subprocess.Popen(
            [sys.executable, str(LAUNCH), *arguments], cwd=ROOT, text=True,
            env=display.environment | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.window = ""

    def ready(self) -> App:
        self.appear()
        wait_until(lambda: self._painted(self.display.grab(self._LEFT)), "the first pixel")
        # A window that has only just got the focus may miss a key: type one that does nothing
        # but flash until it is seen.
        wait_until(self._hears, "the window's answer to a key")
        return self

    def _hears(self) -> bool:
        self.key("F5")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            if (self.display.grab(self._BAR) == _FLASH).all(axis=2).any():
                return True
        return False

    def appear(self) -> App:
        """Wait for the window alone, and give it the focus."""
        wait_until(self._find, "the window")
        self.focus()
        return self

    def _find(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        try:
            self.window = self.display.xdotool("search", "--onlyvisible", "--class", "PixelPick")
        except subprocess.CalledProcessError:  # none yet
            return False
        return bool(self.window)

    @staticmethod
    def _painted(left: np.ndarray) -> bool:  # an image, not the background with a line of text
        return bool((left != left[0, 0]).any(axis=2).mean() > 0.3)

    def focus(self) -> None:
        self.display.xdotool("windowfocus", "--sync", self.window)

    def key(self, *keys: str) -> None:
        self.display.key(*keys)

    def moves(self, do: Callable[[], object]) -> None:
        """Do what shows another pixel, and wait until that is painted."""
        before = self.display.grab(self._LEFT)
        do()
        wait_until(lambda: self._painted(after := self.display.grab(self._LEFT))
                   and (after != before).any(), "another pixel on the screen")

    def look(self, *keys: str) -> None:
        for key in keys:
            self.moves(lambda key=key: self.key(key))

    def go_to(self, text: str) -> None:
        names = {"_": "underscore", ".": "period", "/": "slash"}
        self.moves(lambda: self.key("ctrl+g", *(names.get(c, c) for c in text), "Return"))

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, stdout, stderr."""
        out, error = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, error

    def leave(self, key: str = "Escape") -> str:
        """Leave as one should; what it says at the end."""
        self.key(key)
        code, out, error = self.end()
        assert (code, error) == (0, ""), (code, out, error)
        return out

    def close_window(self) -> None:
        """Press the window manager's close button."""
        self._message(b"WM_DELETE_WINDOW", answers=0)

    @property
    def speaks(self) -> bool:
        """Whether there is any text on the left of the bar at the bottom."""
        bar = self.display.grab((10, 735, 500, 755))
        return bool((bar != bar[0, 0]).any())

    def settle(self) -> None:
        """Wait until the window has acted on all keys so far: Tk answers a ping after them."""
        self._message(b"_NET_WM_PING", answers=1)

    def _message(self, protocol: bytes, *, answers: int) -> None:
        """Send what a window manager would, and wait for so many answers."""
        x11, long, unsigned = ctypes.CDLL("libX11.so.6"), ctypes.c_long, ctypes.c_ulong
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = x11.XDefaultRootWindow.restype = unsigned
        screen = ctypes.c_void_p(x11.XOpenDisplay(self.display.name.encode()))
        window = int(self.window)
        root = unsigned(x11.XDefaultRootWindow(screen))
        x11.XSelectInput(screen, root, long(1 << 19))  # SubstructureNotifyMask: the answer
        atoms = [x11.XInternAtom(screen, name, 0) for name in (b"WM_PROTOCOLS", protocol)]
        event = (long * 24)(33, 0, 1, 0, window, atoms[0], 32, atoms[1])  # ClientMessage
        x11.XSendEvent(screen, unsigned(window), 0, long(0), event)
        x11.XFlush(screen)
        wait_until(lambda: not answers or x11.XCheckTypedEvent(screen, 33, event), "an answer")
        x11.XCloseDisplay(screen)


@pytest.fixture
def start(display: Display) -> Iterator[Callable[..., App]]:
    """`start(work, *flags, **environment)` starts the program."""
    apps: list[App] = []

    def begin(work: Work, *flags: object, **environment: str) -> App:
        apps.append(App(display, work.arguments(*flags), **environment))
        return apps[-1]

    yield begin
    for app in apps:
        if app.process.poll() is None:
            app.process.kill()
            app.process.communicate()


class Typist:
    """Types, and after each step compares the whole journal with what was typed so far."""

    def __init__(self, work: Work, app: App) -> None:
        self.work, self.app, self.lines = work, app, []

    def types(self, keys: str, *lines: Line, moves: bool = True) -> None:
        """`moves`: whether another pixel than before is shown at the end."""
        self._do(lambda: self.app.key(*keys.split()), lines, moves)

    def holds(self, key: str, *lines: Line) -> None:
        self._do(lambda: self.app.display.hold(key, seconds=1), lines, True)

    def _do(self, press: Callable[[], None], lines: tuple[Line, ...], moves: bool) -> None:
        self.lines += lines
        if moves:
            self.app.moves(press)
        else:
            press()
        self.app.settle()
        self.work.wait_for(self.lines)
