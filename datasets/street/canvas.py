"""The canvas of a drawn street scene: a ground plane seen from a car, and a pen for objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from datasets.camvid import CAMVID

# A scene is drawn in units of 1/240 of its height, at twice its size for smooth edges.
UNITS = 240.0
OVERSAMPLING = 2

INDEX = {name: index for index, name in enumerate(CAMVID.class_names)}
INDEX["void"] = CAMVID.ignore_index

Point = tuple[float, float]
DARK = np.array((28.0, 28.0, 32.0))


class Scene:
    """One street: where things are, and the image and label map drawn so far.

    A place on the ground is (u, depth): `u` is the offset from the middle of the road in units at
    the bottom of the image, `depth` goes from 0 at the horizon to 1 at the bottom of the image
    and is the scale of whatever stands there.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.scale = OVERSAMPLING * height / UNITS
        self.width = UNITS * width / height
        self.horizon = rng.uniform(84, 112)
        self.reach = UNITS - self.horizon
        self.metre = self.reach / 1.6  # the camera is 1.6 m above the ground
        self.vanishing = self.width * rng.uniform(0.38, 0.62)
        self.drift = rng.uniform(-45, 45)
        self.bend = rng.uniform(-5, 5)
        self.road = rng.uniform(125, 180)
        self.edge = self.road + rng.uniform(115, 160)
        roll = math.radians(rng.uniform(-2.5, 2.5))
        self.cos, self.sin = math.cos(roll), math.sin(roll)
        size = (OVERSAMPLING * width, OVERSAMPLING * height)
        self.image = Image.new("RGB", size)
        self.labels = Image.new("L", size)
        self.taken: list[float] = []

    def middle(self, depth):
        """x of the middle of the road."""
        return self.vanishing + self.drift * depth + self.bend * (1 / np.clip(depth, 0.15, 1) - 1)

    def ground(self, u: float, depth: float) -> Point:
        return float(self.middle(depth)) + u * depth, self.horizon + self.reach * depth

    def upright(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of every drawn pixel with the camera's roll undone."""
        columns, rows = np.meshgrid(*(np.arange(n, dtype=np.float32) / self.scale
                                      for n in self.image.size))
        x, y = columns - self.width / 2, rows - UNITS / 2
        return (self.cos * x + self.sin * y + self.width / 2,
                self.cos * y - self.sin * x + UNITS / 2)

    def fill(self, points: Sequence[Point], colour: np.ndarray, label: str | None) -> None:
        """Fill a polygon in the image and in the label map (with None only in the image)."""
        across, down = self.width / 2, UNITS / 2
        corners = [((self.cos * (x - across) - self.sin * (y - down) + across) * self.scale,
                    (self.sin * (x - across) + self.cos * (y - down) + down) * self.scale)
                   for x, y in points]
        ink = tuple(int(min(max(value, 0), 255)) for value in colour)
        ImageDraw.Draw(self.image).polygon(corners, fill=ink)
        if label is not None:
            ImageDraw.Draw(self.labels).polygon(corners, fill=INDEX[label])

    def place(self, low: float, high: float, depths: tuple[float, float]) -> tuple[float, float]:
        """A free (u, depth) with low <= |u| <= high that is well inside the image."""
        best, best_gap = (low, depths[0]), -1.0
        for _ in range(8):
            depth = self.rng.uniform(*depths)
            u = self.rng.uniform(low, high) * self.rng.choice((-1, 1))
            x = self.ground(u, depth)[0]
            gap = min([x, self.width - x] + [abs(x - other) for other in self.taken])
            if gap > best_gap:
                best, best_gap = (u, depth), gap
        self.taken.append(self.ground(*best)[0])
        return best


class Pen:
    """Draws one object in metres: x to the right of its foot, y above it."""

    def __init__(self, scene: Scene, u: float, depth: float, label: str | None) -> None:
        self.scene, self.label = scene, label
        self.foot = scene.ground(u, depth)
        self.unit = scene.metre * depth
        self.facing = scene.rng.choice((-1, 1))

    def polygon(self, points: Sequence[Point], colour: np.ndarray) -> None:
        x0, y0 = self.foot
        self.scene.fill([(x0 + self.facing * self.unit * x, y0 - self.unit * y)
                         for x, y in points], colour, self.label)

    def box(self, left: float, bottom: float, right: float, top: float,
            colour: np.ndarray) -> None:
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], colour)

    def disc(self, x: float, y: float, radius: float, colour: np.ndarray,
             flat: float = 1.0) -> None:
        self.polygon([(x + radius * math.cos(a), y + radius * flat * math.sin(a))
                      for a in np.linspace(0, 2 * math.pi, 14, endpoint=False)], colour)

    def stroke(self, start: Point, end: Point, width: float, colour: np.ndarray) -> None:
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = (y1 - y0) * width / length / 2, (x0 - x1) * width / length / 2
        self.polygon([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy),
                      (x0 - dx, y0 - dy)], colour)


def tone(rng: np.random.Generator, low: float, high: float, tint: float = 25,
         lean: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """A random colour of a grey level between low and high, leaning to a hue."""
    return np.clip(rng.uniform(low, high) + rng.normal(0, tint, 3) + lean, 12, 245)


def noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise in about -1..1, (height, width) from `size` (width, height)."""
    coarse = rng.uniform(-1, 1, (cells[1], cells[0])).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
