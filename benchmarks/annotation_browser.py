"""The browser version's part of benchmarks/annotation.py: latency from key to next pixel painted,
measured in the page (from the key event's time stamp to the frame after the new pixel)."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.annotation_tool.chromium import (
    Chromium,
    open_annotation,
    paint_times,
    press_and_wait,
)

_WARM_UP = 10  # keys before the first that counts


def measure_browser(flags: list[str], *, keys: list[str], pause: float
                    ) -> tuple[float, list[tuple[float, bool]]]:
    """Seconds from the start of the program to its URL; per key milliseconds, and whether the
    next pixel was in another image."""
    started = time.monotonic()
    server = subprocess.Popen(
        [sys.executable, "-m", "annotation_tool.serve", "--port", "0", *flags], text=True,
        stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parents[1])
    try:
        url = next(match[0] for line in server.stdout if (match := re.search(r"http://\S+", line)))
        ready = time.monotonic() - started
        with Chromium(width=1280, height=900) as browser:
            page = open_annotation(browser, url, annotator="browser")
            for key in [*keys[:_WARM_UP], *keys]:
                press_and_wait(page, key)
                time.sleep(pause)
            return ready, paint_times(page)[_WARM_UP:]
    finally:
        server.terminate()
        server.wait()
