"""The sessions of several annotators in one program, each used by one browser window."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from annotation_tool.options import Task
from annotation_tool.session import Session
from utils.errors import InputError


class Refusal(Exception):
    """Becomes a reply with this HTTP status, `error` (one line for the page) and `more`."""

    def __init__(self, status: int, error: str, **more: object) -> None:
        super().__init__(error)
        self.status, self.content = status, {"error": error, **more}


class Desk:
    """An annotator's session while it is open, and the browser window that has it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session: Session | None = None
        self.window: str | None = None
        self.used_at = 0.0

    def close(self) -> None:
        """Raises InputError if a log cannot be written."""
        session, self.session, self.window = self.session, None, None
        if session is not None:
            session.close()


class Desks:
    """The annotators' sessions; one is used by one request at a time."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._desks: dict[str, Desk] = {}
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, annotator: str, window: str) -> Iterator[Session]:
        """The annotator's session, opened if it is not, for this window from now on."""
        try:
            self._task.folder(annotator)
        except InputError as error:
            raise Refusal(400, f"your name: {str(error).rpartition(': ')[2]}") from error
        with self._lock:
            desk = self._desks.setdefault(annotator, Desk())
        with desk.lock:
            if desk.session is None:
                try:
                    desk.session = self._task.open(annotator)
                except InputError as error:
                    raise Refusal(423, str(error)) from error
            desk.window, desk.used_at = window, time.monotonic()
            yield desk.session

    @contextmanager
    def used(self, annotator: str, window: str) -> Iterator[Desk]:
        """The annotator's desk, with its session, if this window has it."""
        desk = self._desks.get(annotator)
        if desk is None:
            raise Refusal(410, "the session is not open")
        with desk.lock:
            if desk.session is None:
                raise Refusal(410, "the session is not open")
            if desk.window != window:
                raise Refusal(423, f"{annotator} went on in another browser window; Return "
                                   "continues here")
            desk.used_at = time.monotonic()
            yield desk

    def close(self, *, idle_seconds: float = 0.0) -> None:
        """Close the sessions that were not used for so long."""
        for annotator, desk in list(self._desks.items()):
            with desk.lock:
                if time.monotonic() - desk.used_at < idle_seconds:
                    continue
                try:
                    desk.close()
                except InputError as error:
                    print(f"{annotator}: {error}", file=sys.stderr)


def describe(session: Session) -> dict:
    """The state: all that the page needs to paint the session's pixel."""
    pixel, image = session.pixel, session.image
    others = [(session.pixels[i].y, session.pixels[i].x, session.label(i))
              for i in session.of_image(pixel.image) if i != session.cursor]
    return {
        "index": session.cursor, "actions": len(session.store.actions),
        "image": pixel.image, "name": image.name, "grid": image.size, "pixel": (pixel.y, pixel.x),
        "others": others, "label": session.label(session.cursor),
        "suggestion": session.suggestion, "has_suggestions": image.predictions is not None,
        "position": session.position, "n_answered": session.n_answered,
        "n_pixels": len(session.pixels), "n_skipped": session.n_skipped,
        "per_minute": session.labels_per_minute, "seconds_left": session.seconds_left,
        "used": dict(session.used), "finished": session.finished,
    }
