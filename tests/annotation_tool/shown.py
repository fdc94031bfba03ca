"""A Window in the tests' process, to look into; its fixtures are taken as those of
tests/annotation_tool/display.py (hence PYTEST_DONT_REWRITE)."""

from __future__ import annotations

import gc
import tkinter as tk
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from annotation_tool.session import Session
from annotation_tool.window import Window
from tests.annotation_tool.display import Display, wait_until


class Shown:
    """A Window on a session in this process. Keys are real ones, by xdotool."""

    def __init__(self, display: Display, session: Session, **how: object) -> None:
        self.display, self.session = display, session
        self.root = tk.Tk(screenName=display.name, className="PixelPick")
        self.left = False
        self._released: list[tk.Event] = []
        self.root.bind_all("<KeyRelease>", self._released.append)
        self.root.quit = lambda: setattr(self, "left", True)  # there is no main loop to end
        looks = {"truth": None, "ui_scale": 1, "marker_size": 24, "edge_size": 2,
                 "show_others": False}
        self.window = Window(self.root, session, **(looks | how))

    def wait_until(self, true: Callable[[], object], what: str) -> None:
        def pump() -> object:
            self.root.update()
            assert self.window.failure is None, repr(self.window.failure)
            return true()

        wait_until(pump, what)

    def ready(self) -> Shown:
        self.wait_until(lambda: not self.window.waiting, "the first pixel")
        return self

    def key(self, *keys: str) -> None:
        """Type keys and let the window act on them."""
        wanted = len(self._released) + sum(key.count("+") + 1 for key in keys)
        self.display.key(*keys)
        self.wait_until(lambda: len(self._released) >= wanted, f"{keys}")

    @property
    def text(self) -> str:
        """All that stands in the bar at the bottom."""
        return " | ".join(child.cget("text") for child in self.window.bar.frame.winfo_children()
                          if isinstance(child, tk.Label) and child.winfo_manager())

    def grab(self, widget: tk.Misc) -> np.ndarray:
        self.root.update()
        x, y = widget.winfo_rootx(), widget.winfo_rooty()
        return self.display.grab((x, y, x + widget.winfo_width(), y + widget.winfo_height()))

    def close(self) -> None:
        self.window.pictures.close()
        self.root.destroy()
        self.session.store.close()


@pytest.fixture
def bare(display: Display) -> Iterator[Callable[[], tk.Tk]]:
    """`bare()` opens a window that is not the program's."""
    opened: list[tk.Tk] = []
    yield lambda: opened.append(tk.Tk(screenName=display.name)) or opened[-1]
    while opened:
        opened.pop().destroy()
    gc.collect()  # as below


@pytest.fixture
def show(display: Display) -> Iterator[Callable[..., Shown]]:
    """`show(session, **looks)` opens a Window on it."""
    opened: list[Shown] = []

    def begin(session: Session, **how: object) -> Shown:
        opened.append(Shown(display, session, **how))
        return opened[-1]

    yield begin
    while opened:
        opened.pop().close()
    gc.collect()  # Tcl aborts when another thread happens to collect its interpreter
