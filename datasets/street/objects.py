"""What stands in a drawn street: each class by its own shape and texture, in any colour."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from datasets.street.canvas import DARK, Pen, Point, Scene, tone


def facade(scene: Scene, corner: Callable[[float, float], Point], columns: int,
            rows: int) -> None:
    """A wall with a grid of windows; `corner(a, b)` is its point a along and b up, in 0..1."""
    rng = scene.rng
    wall = tone(rng, 80, 190, 14, lean=(28, 4, -26))
    glass, frame = tone(rng, 25, 60, 8), wall + 45

    def quad(left: float, bottom: float, right: float, top: float, colour: np.ndarray) -> None:
        scene.fill([corner(left, bottom), corner(right, bottom), corner(right, top),
                    corner(left, top)], colour, "building")

    quad(0, 0, 1, 1, wall)
    quad(0, 0.97, 1, 1.02, wall * 0.6)
    for i in range(columns):
        for j in range(rows):
            left, bottom = (i + 0.22) / columns, (j + 0.25) / rows
            right, top = (i + 0.78) / columns, (j + 0.8) / rows
            quad(left - 0.06 / columns, bottom - 0.06 / rows, right + 0.06 / columns,
                 top + 0.06 / rows, frame)
            quad(left, bottom, right, top, glass * rng.uniform(0.85, 1.15))


def tree(scene: Scene, u: float, depth: float, crown: float) -> None:
    """A trunk and a crown of many blobs of contrasting brightness, green to autumn brown."""
    rng, pen = scene.rng, Pen(scene, u, depth, "tree")
    height = crown * rng.uniform(1.5, 2.1)
    bark = tone(rng, 40, 80, 8, lean=(14, 0, -10))
    pen.stroke((0, 0), (rng.uniform(-0.1, 0.1), height), 0.28, bark)
    leaf = np.array(((70, 115, 45), (95, 120, 50), (120, 115, 50))[rng.integers(3)]) \
        + rng.normal(0, 10, 3)
    for light in np.linspace(0.4, 1.6, 70):
        angle, away = rng.uniform(0, 2 * math.pi), crown * math.sqrt(rng.random())
        pen.disc(away * math.cos(angle), height + away * math.sin(angle) + 0.1 * light,
                 crown * rng.uniform(0.11, 0.22), leaf * light * rng.uniform(0.7, 1.3))


def fence(scene: Scene, corner: Callable[[float, float], Point], bars: int) -> None:
    """Vertical bars between two rails before a plain back."""
    back = tone(scene.rng, 60, 130, 10, lean=(22, 2, -22))
    bar = back + 80
    for left, right, bottom, top, colour in (
            [(0, 1, 0, 0.96, back)]
            + [(i / bars, (i + 0.45) / bars, 0, 1, bar) for i in range(bars)]
            + [(0, 1, 0.12, 0.22, bar), (0, 1, 0.78, 0.88, bar)]):
        scene.fill([corner(left, bottom), corner(right, bottom), corner(right, top),
                    corner(left, top)], colour, "fence")


def pole(scene: Scene, u: float, depth: float) -> None:
    """A lamp post: dark, light and middle stripe, as light falls on a cylinder."""
    rng, pen = scene.rng, Pen(scene, u, depth, "pole")
    high, wide = rng.uniform(3.6, 6), max(0.26, 12 / pen.unit)
    paint = tone(rng, 90, 140, 8)
    pen.box(-wide, 0, wide, 0.25, paint * 0.6)
    for left, right, light in ((-0.5, -0.15, 0.45), (-0.15, 0.2, 1.5), (0.2, 0.5, 0.8)):
        pen.box(left * wide, 0, right * wide, high, paint * light)
    pen.stroke((0, high), (1.3, high + 0.15), wide * 0.8, paint * 0.7)
    pen.box(0.9, high - 0.1, 1.6, high + 0.2, paint * 1.4)


def sign(scene: Scene, u: float, depth: float) -> None:
    """A plate (disc, triangle or rectangle) with a border and a mark, on a pole."""
    rng, pen = scene.rng, Pen(scene, u, depth, "pole")
    radius, high = max(0.52, 15 / pen.unit), rng.uniform(2.1, 2.7)
    wide = max(0.22, 10 / pen.unit)
    for left, right, grey in ((-0.5, -0.15, 50), (-0.15, 0.2, 170), (0.2, 0.5, 90)):
        pen.box(left * wide, 0, right * wide, high, np.full(3, grey))
    pen.label = "sign symbol"
    pairs = (((200, 30, 35), (235, 235, 235)), ((30, 70, 170), (235, 235, 235)),
             ((30, 30, 30), (235, 200, 50)), ((235, 235, 235), (25, 110, 70)))
    border, plate = (np.array(colour, float) for colour in pairs[rng.integers(len(pairs))])
    kind = rng.integers(3)
    for size, colour in ((1.0, border), (0.68, plate)):
        r = size * radius
        if kind == 0:
            pen.disc(0, high, r * 1.05, colour)
        elif kind == 1:
            pen.polygon([(-1.2 * r, high - 0.75 * r), (1.2 * r, high - 0.75 * r),
                         (0, high + 1.3 * r)], colour)
        else:
            pen.box(-r, high - r, r, high + r, colour)
    pen.box(-0.42 * radius, high - 0.17 * radius, 0.42 * radius, high + 0.17 * radius, border)


def car(scene: Scene, u: float, depth: float) -> None:
    """A car from behind or from the front, or (one in three) from its side."""
    rng = scene.rng
    paint = tone(rng, 45, 215, 38)
    glass, tyre = tone(rng, 30, 60, 8), DARK * 0.8
    Pen(scene, u, depth, None).disc(0, 0.02, 1.15, DARK, flat=0.1)
    pen = Pen(scene, u, depth, "car")
    if rng.random() < 0.33:
        pen.polygon([(-1.85, 0.25), (1.85, 0.25), (1.9, 0.7), (1.15, 0.92), (0.65, 1.42),
                     (-0.85, 1.45), (-1.5, 0.95), (-1.85, 0.85)], paint)
        pen.polygon([(0.05, 0.93), (0.95, 0.93), (0.58, 1.34), (0.05, 1.36)], glass)
        pen.polygon([(-0.08, 0.93), (-1.25, 0.93), (-0.8, 1.36), (-0.08, 1.36)], glass)
        pen.box(-1.85, 0.25, 1.85, 0.37, paint * 0.5)
        for x in (-1.15, 1.15):
            pen.disc(x, 0.33, 0.34, tyre)
            pen.disc(x, 0.33, 0.18, DARK * 5.5)
        return
    lamp = np.array(((215, 35, 35), (245, 240, 215))[rng.integers(2)], float)
    for x in (-0.8, 0.5):
        pen.box(x, 0, x + 0.3, 0.4, tyre)
    pen.polygon([(-0.92, 0.2), (0.92, 0.2), (0.95, 0.8), (0.85, 1.0), (-0.85, 1.0),
                 (-0.95, 0.8)], paint)
    pen.polygon([(-0.85, 0.98), (0.85, 0.98), (0.62, 1.5), (-0.62, 1.5)], paint * 0.85)
    pen.polygon([(-0.72, 0.98), (0.72, 0.98), (0.54, 1.4), (-0.54, 1.4)], glass)
    pen.box(-0.93, 0.2, 0.93, 0.36, paint * 0.45)
    pen.box(-0.3, 0.42, 0.3, 0.58, DARK * 8)
    for x in (-0.9, 0.58):
        pen.box(x, 0.62, x + 0.32, 0.84, lamp)


def pedestrian(scene: Scene, u: float, depth: float) -> None:
    rng, pen = scene.rng, Pen(scene, u, depth, "pedestrian")
    skin, hair = tone(rng, 110, 205, 6) + (25, 0, -20), tone(rng, 25, 110, 12)
    coat, trousers = tone(rng, 40, 215, 45), tone(rng, 30, 90, 12)
    stride = rng.uniform(0.1, 0.3)
    for x in (-stride, stride):
        pen.stroke((x * 0.35, 0.85), (x, 0.06), 0.21, trousers)
        pen.box(x - 0.1, 0, x + 0.18, 0.1, DARK)
    for x in (-0.33, 0.33):
        pen.stroke((x * 0.75, 1.4), (x * 1.1, 0.82), 0.14, coat * 0.75)
    pen.polygon([(-0.21, 0.72), (0.21, 0.72), (0.29, 1.36), (0.2, 1.48), (-0.2, 1.48),
                 (-0.29, 1.36)], coat)
    pen.disc(0, 1.63, 0.17, skin)
    pen.polygon([(-0.18, 1.62), (-0.14, 1.78), (0, 1.84), (0.14, 1.78), (0.18, 1.7)], hair)


def bicyclist(scene: Scene, u: float, depth: float) -> None:
    rng, pen = scene.rng, Pen(scene, u, depth, "bicyclist")
    skin, helmet = tone(rng, 110, 205, 6) + (25, 0, -20), tone(rng, 60, 220, 60)
    shirt, frame = tone(rng, 60, 220, 50), tone(rng, 60, 220, 60)
    for x in (-0.56, 0.56):
        pen.disc(x, 0.38, 0.4, DARK * 0.8)
        pen.disc(x, 0.38, 0.29, DARK * 5)
        for a in (0.3, 1.35, 2.4):
            dx, dy = 0.29 * math.cos(a), 0.29 * math.sin(a)
            pen.stroke((x - dx, 0.38 - dy), (x + dx, 0.38 + dy), 0.04, DARK * 2)
    hip, shoulder, pedal = (-0.22, 1.02), (0.22, 1.48), (0.02, 0.36)
    for start, end in (((-0.56, 0.38), (-0.2, 0.85)), ((-0.2, 0.85), pedal),
                       (pedal, (0.45, 0.9)), ((0.56, 0.38), (0.45, 1.08))):
        pen.stroke(start, end, 0.09, frame)
    pen.stroke(hip, (0.2, 0.72), 0.21, tone(rng, 30, 130, 20))
    pen.stroke((0.2, 0.72), pedal, 0.15, skin)
    pen.stroke(hip, shoulder, 0.36, shirt)
    pen.stroke(shoulder, (0.5, 1.08), 0.12, skin)
    pen.disc(0.34, 1.68, 0.16, skin)
    pen.polygon([(0.14, 1.7), (0.2, 1.85), (0.36, 1.91), (0.5, 1.84), (0.54, 1.72)], helmet)


def litter_bin(scene: Scene, u: float, depth: float) -> None:
    """Something on the street that no class names."""
    rng, pen = scene.rng, Pen(scene, u, depth, "void")
    paint = tone(rng, 40, 190, 40)
    pen.polygon([(-0.24, 0), (0.24, 0), (0.3, 0.85), (-0.3, 0.85)], paint)
    pen.box(-0.34, 0.85, 0.34, 1.0, paint * 0.6)


def bonnet(scene: Scene) -> None:
    """The bonnet of the car that carries the camera, void as in CamVid."""
    rng = scene.rng
    high, paint = rng.uniform(4, 16), tone(rng, 30, 150, 25)
    for lower, light in ((0.0, 1.5), (2.5, 1.0)):
        scene.fill([(-20, 275)] + [(x, 240 - high + lower + 14 * (2 * x / scene.width - 1) ** 2)
                                   for x in np.linspace(-20, scene.width + 20, 16)]
                   + [(scene.width + 20, 275)], paint * light, "void")
