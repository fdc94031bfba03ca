"""Videos by OpenCV, which is needed for nothing else and imported only here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from utils.errors import InputError


def opencv() -> ModuleType:
    """Raises InputError if it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(f"videos need OpenCV ({error}); pip install opencv-python-headless") \
            from error
    return cv2


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """`size` is (height, width), `n_frames` what the file claims (0: it does not say)."""

    size: tuple[int, int]
    frames_per_second: float
    n_frames: int


def video_facts(path: Path) -> VideoFacts:
    """Raises InputError if it cannot be read as a video."""
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        ok, frame = capture.read()
        if not ok:
            raise InputError(f"{path}: cannot be read as a video; convert it to another format")
        rate, n_frames = (capture.get(what) for what in (cv2.CAP_PROP_FPS,
                                                         cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
    return VideoFacts(size=frame.shape[:2], n_frames=max(round(n_frames), 0),
                      frames_per_second=rate if 0 < rate < 1000 else 25.0)


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """RGB `(H, W, 3)` uint8, upright."""
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


@contextmanager
def video_writer(path: Path, facts: VideoFacts) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame, RGB `(H, W, 3)` uint8, to an MPEG-4 video. The file is there
    when all has been written. Raises InputError if it cannot be written."""
    cv2 = opencv()
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter_fourcc(*"mp4v"),
                                 facts.frames_per_second, facts.size[::-1])
        try:
            if not writer.isOpened():
                raise InputError(f"cannot write the video {path}; is there room, and can this "
                                 "OpenCV write MPEG-4?")
            yield lambda frame: writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            writer.release()
            os.replace(temporary, path)
        finally:
            writer.release()
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
