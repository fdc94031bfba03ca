"""Drawn street scenes. Colours overlap between the classes and change from image to image;
texture, shape and place in the scene tell the classes apart."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from datasets.camvid import CAMVID
from datasets.street import objects
from datasets.street.canvas import INDEX, OVERSAMPLING, Point, Scene, noise, tone


def _paint_ground_and_sky(scene: Scene) -> None:
    """Sky, road with marks, tiled pavements: the image before anything stands in it."""
    rng, size = scene.rng, scene.image.size
    x, y = scene.upright()
    depth = np.maximum((y - scene.horizon) / scene.reach, 0.01)
    u = (x - scene.middle(depth)) / depth
    # Logarithmic distance keeps the shape of tiles the same at every depth.
    far = -np.log(depth)

    sky = np.array(((125, 165, 215), (190, 195, 205), (150, 160, 180), (210, 185, 165))[
        rng.integers(4)]) + rng.normal(0, 8, 3)
    cloud = np.clip(noise(rng, size, (5, 7)), 0, 1)[..., None]
    lighter = (1 - y / scene.horizon)[..., None] * -25
    picture = sky + lighter + cloud * (235 - sky) * rng.uniform(0, 0.7)

    asphalt = tone(rng, 65, 125, 5) + 6 * noise(rng, size, (24, 18))[..., None]
    dash = (np.abs(u) < 8) & (far / 0.45 % 1 < 0.55)
    line = np.abs(np.abs(u) - scene.road + 16) < 5
    marks = (dash | line) if rng.random() < 0.6 else dash
    asphalt = np.where(marks[..., None], asphalt.mean() + 75, asphalt)

    rows, columns = far / 0.2, u / 36 + 50
    slab = rng.uniform(-22, 22, (64, 101))[rows.astype(int) % 64, columns.astype(int) % 101]
    joint = (rows % 1 < 0.16) | (columns % 1 < 0.14)
    tiles = tone(rng, 125, 185, 8, lean=(10, 0, -12)) + slab[..., None] - 55 * joint[..., None]
    kerb = np.abs(u) < scene.road + 9
    tiles = np.where(kerb[..., None], tone(rng, 150, 215, 8), tiles)

    on_road = np.abs(u) < scene.road
    shade = np.where(u * rng.choice((-1, 1)) + 60 * noise(rng, size, (7, 9))
                     > rng.uniform(-50, 260), rng.uniform(0.5, 0.8), 1)[..., None]
    below = y > scene.horizon + 1.5
    picture = np.where(below[..., None], np.where(on_road[..., None], asphalt, tiles) * shade,
                       picture)
    labels = np.where(below, np.where(on_road, INDEX["road"], INDEX["pavement"]), INDEX["sky"])
    scene.image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    scene.labels = Image.fromarray(labels.astype(np.uint8))


def _paint_background(scene: Scene) -> None:
    """What closes the street at its end: facades and trees behind the horizon."""
    rng = scene.rng
    x = -rng.uniform(0, 30)
    while x < scene.width + 20:
        wide, high = rng.uniform(45, 95), rng.uniform(25, 70)
        if rng.random() < 0.7:
            def corner(a: float, b: float, x=x, wide=wide, high=high) -> Point:
                return x + a * wide, scene.horizon + 5 - b * (high + 5)
            objects.facade(scene, corner, max(2, round(wide / 15)), max(2, round(high / 18)))
        else:
            for u in rng.uniform(x, x + wide, 2):
                objects.tree(scene, (u - scene.ground(0, 0.15)[0]) / 0.15, 0.15,
                             rng.uniform(1.4, 2.2))
        x += wide + rng.choice((0, 0, 15))


def _paint_side(scene: Scene, side: int, gardens: tuple[int, ...]) -> None:
    """Facades, and gardens behind fences, along one side of the street, the farthest first."""
    rng, u = scene.rng, side * scene.edge
    depths = [1.3]
    while depths[-1] > 0.13:
        depths.append(depths[-1] * rng.uniform(0.45, 0.68))
    for part in reversed(range(len(depths) - 1)):
        near, far = depths[part], depths[part + 1]

        high = rng.uniform(1.65, 1.85) if part in gardens else rng.uniform(3.5, 7.5)

        def corner(a: float, b: float, near=near, far=far, high=high) -> Point:
            depth = near * (far / near) ** a
            x, y = scene.ground(u, depth)
            return x, y - b * high * scene.metre * depth

        length = math.log(near / far)
        if part in gardens:
            for depth in rng.uniform(far, near, 2):
                objects.tree(scene, u * 1.15, depth, rng.uniform(1.3, 1.9))
            objects.fence(scene, corner, max(4, round(length / 0.055)))
        else:
            objects.facade(scene, corner, max(2, round(length / 0.2)), rng.integers(2, 5))


def _paint_haze(scene: Scene) -> None:
    """Pale air towards the horizon; what is drawn later is near and stays clear."""
    _, y = scene.upright()
    share = scene.rng.uniform(0, 0.45) * np.exp(-np.abs(y - scene.horizon) / 35)
    air = Image.new("RGB", scene.image.size, (195, 200, 205))
    scene.image.paste(air, mask=Image.fromarray((255 * share).astype(np.uint8)))


def _paint_objects(scene: Scene) -> None:
    """Everything that stands in the street, the farthest first."""
    rng, road, edge = scene.rng, scene.road, scene.edge
    standing = []
    for draw, fewest, most, low, high, depths in (
            (objects.car, 2, 3, 0.1 * road, 0.9 * road, (0.28, 0.5)),
            (objects.bicyclist, 1, 2, 0.3 * road, road, (0.4, 0.6)),
            (objects.pedestrian, 2, 4, 0.8 * road, edge - 15, (0.4, 0.6)),
            (objects.sign, 2, 3, road + 15, edge - 15, (0.32, 0.5)),
            (objects.pole, 2, 3, road + 15, edge - 15, (0.3, 0.55)),
            (objects.litter_bin, 0, 2, road + 15, edge - 15, (0.3, 0.6)),
            (lambda *place: objects.tree(*place, rng.uniform(0.9, 1.3)), 1, 2, edge - 60, edge - 15,
             (0.22, 0.36))):
        for _ in range(rng.integers(fewest, most + 1)):
            u, depth = scene.place(low, high, depths)
            standing.append((depth, draw, u))
    for depth, draw, u in sorted(standing, key=lambda item: item[0]):
        draw(scene, u, depth)
    objects.bonnet(scene)


def _photograph(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 under the image's own light: exposure, cast, falloff and sensor noise."""
    height, width = picture.shape[:2]
    light = rng.uniform(0.7, 1.15) * rng.uniform(0.93, 1.07, 3)
    falloff = 1 + 0.28 * noise(rng, (width, height), (3, 3))[..., None]
    grain = rng.standard_normal(picture.shape, np.float32) * rng.uniform(3, 8)
    return np.clip(picture * light * falloff + grain, 0, 255).astype(np.uint8)


def _majority(labels: np.ndarray) -> np.ndarray:
    """(2 H, 2 W) to (H, W); a pixel of which no class has more than half is void."""
    quarter = np.sort(np.stack([labels[i::2, j::2] for i in (0, 1) for j in (0, 1)]), axis=0)
    clear = (quarter[0] == quarter[2]) | (quarter[1] == quarter[3])
    return np.where(clear, quarter[1], CAMVID.ignore_index).astype(np.uint8)


def draw_scene(rng: np.random.Generator, *, height: int = 240,
               width: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image (H, W, 3) and labels (H, W) with CamVid's class indices, both uint8."""
    scene = Scene(rng, height, width)
    _paint_ground_and_sky(scene)
    _paint_background(scene)
    for side, gardens in ((-1, (0, 2)), (1, (1,))):
        _paint_side(scene, side, gardens)
    _paint_haze(scene)
    _paint_objects(scene)
    picture = np.asarray(scene.image.reduce(OVERSAMPLING))
    return _photograph(rng, picture), _majority(np.asarray(scene.labels))
