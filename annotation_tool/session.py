"""The annotation session: a cursor over the asked pixels, answers, undo, skips. No window here."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from annotation_tool.asked import AskedImage
from annotation_tool.store import Action, Store
from datasets.annotations import SLOW_SECONDS, Annotation
from datasets.classes import VOID_NAME
from datasets.spec import ClassSet

_RECENT = 20  # answers that the time left is reckoned from


@dataclass(frozen=True, slots=True)
class Pixel:
    """An asked pixel: index of its image, (y, x) on the image's grid, and what the network
    predicts there (class index, probability), None without one."""

    image: int
    y: int
    x: int
    prediction: int | None = None
    probability: float | None = None


class Stopwatch:
    """Seconds since `start` on a monotonic clock, without the time between `pause` and `go_on`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._passed, self._since = clock, 0.0, None
        self._paused = False

    def start(self) -> None:
        self._passed = 0.0
        self._since = None if self._paused else self._clock()

    def pause(self) -> None:
        self._passed, self._since, self._paused = self.seconds, None, True

    def go_on(self) -> None:
        if self._paused:
            self._since, self._paused = self._clock(), False

    @property
    def seconds(self) -> float:
        return self._passed + (0.0 if self._since is None else self._clock() - self._since)


class Session:
    """What one person does, one pixel at a time.

    Every method that changes an answer has written it to the disk when it returns (or raises
    InputError, and nothing has changed). `cursor` is the index of the pixel shown in `pixels`; it
    starts where the last session stopped. `finished` once nothing is unanswered."""

    def __init__(self, images: Sequence[AskedImage], *, classes: ClassSet, store: Store) -> None:
        self.images, self.classes, self.store = images, classes, store
        self.pixels: list[Pixel] = []
        self._first: list[int] = []  # of each image, its first pixel's index
        for index, image in enumerate(images):
            self._first.append(len(self.pixels))
            for i, (y, x) in enumerate(image.pixels.tolist()):
                known = image.predictions is not None
                self.pixels.append(Pixel(
                    index, y, x, int(image.predictions[i]) if known else None,
                    float(image.probabilities[i]) if known else None))
        self._index_of = {self.key(i): i for i in range(len(self.pixels))}
        self._done: list[int] = []  # actions on these pixels that count, the last one last
        self._undone: list[int] = []
        for action in store.actions:
            self._remember(action)
        self._labels: dict[int, str] = {}
        self._skipped: dict[int, int] = {}  # pixel -> when (the action's seq)
        self._open = list(range(len(self.pixels)))  # neither answered nor skipped, ascending
        self.used: Counter[str] = Counter()
        for key in store.pixels:
            if key in self._index_of:
                self._update(self._index_of[key])
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._n_now, self._seconds_now = 0, 0.0
        last = self._done[-1] if self._done else None
        start = -1 if last is None else self._index_of[store.action(last).annotation.pixel]
        self._go_on_from(start)

    # --- what is shown --------------------------------------------------------------------------

    @property
    def pixel(self) -> Pixel:
        return self.pixels[self.cursor]

    @property
    def image(self) -> AskedImage:
        return self.images[self.pixel.image]

    @property
    def asked(self) -> Annotation:
        """The pixel shown, without an answer."""
        image, h, w, y, x = self.key(self.cursor)
        return Annotation(image=image, h=h, w=w, y=y, x=x)

    @property
    def finished(self) -> bool:
        return len(self._labels) == len(self.pixels)

    @property
    def at_end(self) -> bool:
        """Everything is answered and nobody has looked back: what is shown is done."""
        return self._at_end

    @property
    def n_answered(self) -> int:
        return len(self._labels)

    @property
    def n_skipped(self) -> int:
        return len(self._skipped)

    def key(self, index: int) -> tuple[str, int, int, int, int]:
        """The pixel as the store knows it."""
        pixel = self.pixels[index]
        image = self.images[pixel.image]
        return image.name, *image.size, pixel.y, pixel.x

    def label(self, index: int) -> str | None:
        """The answer of a pixel: a class name, "void", or None."""
        return self._labels.get(index)

    def answers(self) -> list[Annotation]:
        """Of these pixels, in their order."""
        return [self.store.state(self.key(index)).annotation for index in sorted(self._labels)]

    def is_skipped(self, index: int) -> bool:
        return index in self._skipped

    def of_image(self, image: int) -> range:
        """The indices of an image's pixels."""
        return range(self._first[image], self._first[image] + len(self.images[image].pixels))

    @property
    def position(self) -> tuple[int, int, int, int]:
        """(i, N, j, n): the i-th of N images, the j-th of its n pixels, from 1."""
        mine = self.of_image(self.pixel.image)
        return (self.pixel.image + 1, len(self.images), self.cursor - mine.start + 1, len(mine))

    @property
    def labels_per_minute(self) -> float | None:
        """Of this session; None before its first answer."""
        return 60 * self._n_now / self._seconds_now if self._seconds_now else None

    @property
    def seconds_left(self) -> float | None:
        """At the mean pace of the last answers that were not flagged as slow; None before one."""
        if not self._seconds:
            return None
        return (len(self.pixels) - self.n_answered) * sum(self._seconds) / len(self._seconds)

    @property
    def suggestion(self) -> tuple[str, float] | None:
        """Class name and probability that the network gives the pixel shown, if there is one."""
        pixel = self.pixel
        if pixel.prediction is None or not 0 <= pixel.prediction < self.classes.n_classes:
            return None
        return self.classes.class_names[pixel.prediction], pixel.probability

    # --- what the person does -------------------------------------------------------------------

    def answer(self, label: str, *, seconds: float) -> None:
        """Label the pixel shown with a class name or "void", and go to the next open one."""
        if label != VOID_NAME and label not in self.classes.class_names:
            raise ValueError(f"{label!r} is no class")
        self._act("answer", label, seconds)
        if seconds <= SLOW_SECONDS:
            self._seconds.append(seconds)
        self._n_now += 1

    def skip(self, *, seconds: float) -> None:
        """Leave the pixel for the end. One that is answered stays so."""
        if self.cursor in self._labels:
            self._go_on_from(self.cursor)
        else:
            self._act("skip", None, seconds)

    def _act(self, do: str, label: str | None, seconds: float) -> None:
        action = self.store.add(do, replace(
            self.asked, label=label, elapsed_time=seconds,
            total_time=self.store.total_time + seconds))
        self._remember(action)
        self._update(self.cursor)
        self._seconds_now += seconds
        self._go_on_from(self.cursor)

    def undo(self) -> bool:
        """Take the last action back and show its pixel; False if there is none."""
        return self._take("undo", self._done)

    def redo(self) -> bool:
        """Let the action taken back last count again, and show its pixel; False if there is none.
        """
        return self._take("redo", self._undone)

    def _take(self, do: str, stack: list[int]) -> bool:
        if not stack:
            return False
        seq = stack[-1]
        self._remember(self.store.add(do, of=seq))
        self._show(self._index_of[self.store.action(seq).annotation.pixel])
        self._update(self.cursor)
        return True

    def look(self, step: int) -> None:
        """Show the pixel `step` places on, answered or not, as far as there are any."""
        self._show(min(max(self.cursor + step, 0), len(self.pixels) - 1))

    def look_image(self, step: int) -> None:
        """Show the first open pixel (else the first) of the image `step` places on."""
        self._show_image(min(max(self.pixel.image + step, 0), len(self.images) - 1))

    def go_to(self, text: str) -> bool:
        """Show an image by its number from 1, or by its name or the only part of it that fits;
        False if there is none."""
        text = text.strip()
        if text.isdecimal() and 1 <= int(text) <= len(self.images):
            self._show_image(int(text) - 1)
            return True
        exact = [i for i, image in enumerate(self.images) if image.name == text]
        found = exact or [i for i, image in enumerate(self.images) if text and text in image.name]
        if len(found) != 1:
            return False
        self._show_image(found[0])
        return True

    def close(self) -> None:
        """Raises InputError if a log cannot be written; the journal is complete regardless."""
        self.store.close()

    # --- inside ---------------------------------------------------------------------------------

    def _remember(self, action: Action) -> None:
        """Keep the stacks of undo and redo; actions on other queries' pixels are not theirs."""
        if action.annotation is not None:
            if action.annotation.pixel in self._index_of:
                self._done.append(action.seq)
                self._undone.clear()
            return
        source, target = self._done, self._undone
        if action.do == "redo":
            source, target = target, source
        if source and source[-1] == action.of:
            source.pop()
        elif action.of in source:
            source.remove(action.of)
        elif self.store.action(action.of).annotation.pixel not in self._index_of:
            return
        target.append(action.of)

    def _update(self, index: int) -> None:
        """Bring what is known of a pixel in line with the store."""
        if index in self._labels:
            self.used[self._labels.pop(index)] -= 1
        elif self._skipped.pop(index, None) is None:
            del self._open[bisect_left(self._open, index)]
        state = self.store.state(self.key(index))
        if state is None:
            insort(self._open, index)
        elif state.do == "skip":
            self._skipped[index] = state.seq
        else:
            self._labels[index] = state.annotation.label
            self.used[state.annotation.label] += 1

    def _next_open(self, start: int) -> int:
        """The first pixel after `start` that was neither answered nor skipped, from the beginning
        after the last; then the skipped ones, longest ago first; else `start` itself."""
        if self._open:
            return self._open[bisect_right(self._open, start) % len(self._open)]
        if self._skipped:
            return min(self._skipped, key=self._skipped.get)
        return max(start, 0)

    def _show_image(self, image: int) -> None:
        mine = self.of_image(image)
        self._show(next((i for i in mine if i not in self._labels), mine.start))

    def _show(self, index: int) -> None:
        self.cursor, self._at_end = index, False

    def _go_on_from(self, index: int) -> None:
        self.cursor, self._at_end = self._next_open(index), self.finished
