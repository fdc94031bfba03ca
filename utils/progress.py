"""Progress with an ETA: a tqdm bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_T = TypeVar("_T")
_PLAIN_SECONDS = 15.0


class Progress:
    """A bar over `total` steps, on stderr. `details` is called only when something is shown (at
    most twice a second), so that a loss on a GPU is read no more often than that."""

    def __init__(self, total: int, description: str, *, done: int = 0, unit: str,
                 details: Callable[[], str] = lambda: "") -> None:
        self._details, self._shown = details, time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._interval = 0.5 if self._terminal else _PLAIN_SECONDS
        self._bar = tqdm(total=total, desc=description, initial=done, unit=unit, leave=False,
                         dynamic_ncols=True, mininterval=self._interval, file=sys.stderr,
                         disable=not self._terminal)
        self._total, self._description = total, description
        self._start, self._first, self._done = self._shown, done, done

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            self._show(now - self._start)

    def _show(self, elapsed: float) -> None:
        if self._terminal:
            self._bar.set_postfix_str(self._details(), refresh=False)
            return
        left = elapsed / max(self._done - self._first, 1) * (self._total - self._done)
        details = ", ".join(filter(None, [self._details(), f"{tqdm.format_interval(left)} left"]))
        print(f"{self._description}: {self._done}/{self._total}, {details}", file=sys.stderr,
              flush=True)


def track(iterable: Iterable[_T], total: int, *, description: str, unit: str,
          done: int = 0) -> Iterator[_T]:
    """Iterate with a bar of `total` steps, `done` of which were done before."""
    with Progress(total, description, done=done, unit=unit) as progress:
        for item in iterable:
            yield item
            progress.advance()
