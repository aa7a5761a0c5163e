"""What stands beside and on the road of a bundled street scene: houses, hedges, trees, poles, cars."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from quantjax.bundled import street_textures as textures
from quantjax.bundled.street_canvas import BUILDING, CAR, POLE, VEGETATION, Camera, Canvas, Polygon

# Outlines of cars from the rear to the nose, as shares of length and height.
_HATCHBACK = np.array([(0, 0.2), (0, 0.6), (0.05, 0.68), (0.16, 1), (0.6, 1), (0.76, 0.66), (0.97, 0.58), (1, 0.2)])
_VAN = np.array([(0, 0.15), (0, 0.9), (0.04, 1), (0.74, 1), (0.86, 0.6), (0.99, 0.5), (1, 0.15)])
_TILES = ((0.45, 0.24, 0.18), (0.3, 0.3, 0.33), (0.36, 0.28, 0.24))
_SIGNS = ((0.75, 0.12, 0.1), (0.12, 0.25, 0.6), (0.9, 0.9, 0.88))
_TYRE, _HUB, _PLATE = np.full(3, 0.05), np.full(3, 0.35), np.array([0.8, 0.8, 0.72])


class Scene(NamedTuple):
    """What every part needs to draw itself."""

    canvas: Canvas
    camera: Camera
    rng: np.random.Generator
    sun: float
    """-1 from the left, 1 from the right"""


def building(scene: Scene, side: int, x: float, near: float, far: float) -> None:
    """A house beside the road from z = near to far: its wall along the road, its end wall, at times a pitched roof."""
    canvas, camera, rng, sun = scene
    near = _in_sight(scene, x, near, far)
    height, depth = rng.uniform(5, 17), rng.uniform(8, 12)
    lit, unlit = (1.08, 0.72) if side * sun < 0 else (0.78, 1.0)
    outer, middle = x + side * depth, (near + far) / 2
    grain = float(np.clip(camera.focal / near, 3, 9))  # texture pixels per metre
    seen = min(height, camera.ceiling(far))  # what is above the picture is not drawn
    size = max(8, int(seen * grain)), max(8, int((far - near) * grain))
    texture = textures.facade(rng, *size, storey=rng.uniform(2.8, 3.6) * grain)
    if seen == height and rng.random() < 0.4:
        ridge, top, tiles = x + side * depth / 2, height + rng.uniform(1.5, 3.5), textures.pick(rng, _TILES, 0.15)
        slope = camera.project([x, ridge, ridge, x], [height, top, top, height], np.array([near, near, far, far]))
        canvas.polygon(slope, tiles * lit, middle, BUILDING)
        gable = camera.project([x, outer, ridge], [height, height, top], near)
        canvas.polygon(gable, texture[:2].mean((0, 1)) * unlit, near, BUILDING)
    for foot, light in ((((x, near), (outer, near)), unlit), (((x, near), (x, far)), lit)):
        _wall(scene, foot, seen, texture, light, BUILDING)


def hedge(scene: Scene, x: float, near: float, far: float) -> None:
    """A clipped hedge along the road from z = near to far."""
    near = _in_sight(scene, x, near, far)
    grain, height = float(np.clip(scene.camera.focal / near, 3, 14)), scene.rng.uniform(0.8, 2.2)
    texture = textures.foliage(scene.rng, max(6, int(height * grain)), max(8, int((far - near) * grain)))
    _wall(scene, ((x, near), (x, far)), height, texture, 1.0, VEGETATION)


def _in_sight(scene: Scene, x: float, near: float, far: float) -> float:
    """Where a wall along the road comes into the picture, or a little before."""
    camera = scene.camera
    reach = max(camera.centre, scene.canvas.label.shape[1] - camera.centre)
    return min(max(near, 0.8 * camera.focal * abs(x + camera.lateral(far)) / reach), far - 1)


def _wall(scene: Scene, foot: Any, height: float, texture: np.ndarray, light: float, label: int) -> None:
    """An upright rectangle over two ground points (x, z)."""
    (x0, z0), (x1, z1) = foot
    corners = scene.camera.project([x0, x1, x1, x0], [0, 0, height, height], np.array([z0, z1, z1, z0]))
    scene.canvas.textured(corners, texture, light, (z0 + z1) / 2, label)


def tree(scene: Scene, x: float, z: float) -> None:
    """A trunk and a ragged crown, round or pointed, lit from above and from the sun's side."""
    canvas, camera, rng, sun = scene
    height, radius = rng.uniform(4, 9), rng.uniform(1.2, 2.8)
    trunk, bark = rng.uniform(0.1, 0.2), rng.uniform(0.5, 1.1) * np.array([0.3, 0.24, 0.18])
    canvas.polygon(_post(camera, x, trunk, 0, 0.6 * height, z), bark, z, VEGETATION)
    rise = (height - rng.uniform(1.4, 2.2)) / 2
    middle = camera.project(x, height - rise, z)
    reach = camera.focal / z * np.array([radius, rise])
    box = canvas.box(middle + 1.3 * np.array([-reach, reach]))
    if box is None:
        return
    u = ((np.arange(box[0], box[2], dtype=np.float32) + 0.5 - middle[0]) / reach[0])[None].astype(np.float32)
    v = ((np.arange(box[1], box[3], dtype=np.float32) + 0.5 - middle[1]) / reach[1])[:, None].astype(np.float32)
    cone = rng.random() < 0.25
    away = np.abs(u) * 2 / (1.2 + v).clip(0.05) + (v > 1) if cone else np.sqrt(u * u + v * v)
    size = box[3] - box[1], box[2] - box[0]
    leaves = textures.foliage(rng, *size)
    ragged = 0.14 * textures.field(rng, *size, max(reach[0] / 3, 2)) + 0.5 * (leaves[..., 1] - leaves[..., 1].mean())
    leaves = leaves * (0.95 - 0.3 * v + 0.2 * np.float32(sun) * u)[..., None]
    cover = np.clip((1 - away - ragged) * np.float32(0.7 * reach[0]) + 0.5, 0, 1)
    canvas.paint(box, leaves.clip(0, 1), cover, z, VEGETATION)


def _post(camera: Camera, x: float, half: float, low: float, high: float, z: float) -> np.ndarray:
    return camera.project(x + half * np.array([-1, 1, 1, -1]), [low, low, high, high], z)


def pole(scene: Scene, side: int, x: float, z: float) -> None:
    """A lamp post, a sign or a bare post, with the light on one half of it."""
    canvas, camera, rng, sun = scene
    kind, half = rng.choice(["lamp", "sign", "post"]), rng.uniform(0.08, 0.16)
    height = 2.8 if kind == "sign" else rng.uniform(3.5, 7.5)
    colour = rng.choice([0.2, 0.35, 0.5, 0.62]) * (1 + rng.normal(0, 0.05, 3))
    shapes: list[Polygon] = [(_post(camera, x, half, 0, height, z), colour)]
    shapes += [(_post(camera, x + sun * half / 2, half / 2, 0, height, z), colour * rng.uniform(1.0, 1.5))]
    if kind == "lamp":
        arm, head = x - side * np.array([0, 1.6, 1.6, 0]), x - side * np.array([1.1, 1.9, 1.9, 1.1])
        shapes += [(camera.project(arm, height - np.array([0, 0.05, 0.17, 0.25]), z), colour)]
        shapes += [(camera.project(head, height - np.array([0.05, 0, 0.2, 0.25]), z), colour * 0.7)]
    if kind == "sign":
        turn = np.linspace(0, 2 * np.pi, rng.choice([3, 4, 12]), endpoint=False) + np.pi / 4
        paint = textures.pick(rng, _SIGNS, 0.1)
        shapes += [(camera.project(x + 0.45 * np.cos(turn), height + 0.45 * np.sin(turn), z), paint)]
    canvas.polygons(shapes, z, POLE)


def car(scene: Scene, x: float, z: float, away: bool) -> None:
    """A car along the road, seen from behind (away) or from the front: its near side, its end, and its shadow."""
    canvas, camera, rng, _ = scene
    van = rng.random() < 0.2
    size = rng.uniform(1.65, 1.95), rng.uniform(1.9, 2.4) if van else rng.uniform(1.38, 1.7), rng.uniform(3.7, 4.9)
    paint, glass = textures.car_colour(rng), rng.uniform(0.05, 0.3) * np.array([0.9, 1.0, 1.1])
    under = np.array([-0.25, -0.25, size[2], size[2]])
    canvas.polygon(
        camera.project(x + size[0] * np.array([-0.62, 0.62, 0.62, -0.62]), 0, z + under), _TYRE, z, None, 0.6
    )
    outline = _VAN if van else _HATCHBACK
    outline = outline if away else outline * [-1, 1] + [1, 0]
    inner = -1 if x + camera.lateral(z) > 0 else 1  # the side that shows
    flank, end = _flank(outline, size, away, paint * rng.uniform(0.65, 0.95), glass), _end(away, paint, glass)
    along, up = np.concatenate([points for points, _ in flank]).T
    out = inner * (0.5 - 0.12 * np.clip((up - 0.6) / 0.4, 0, 1))  # the cabin leans inwards
    across, rise = np.concatenate([points for points, _ in end]).T
    metres = np.array([np.r_[out, across / 2], np.r_[up, rise], np.r_[along, 0 * across]]) * np.array(size)[:, None]
    cuts = np.cumsum([len(points) for points, _ in flank + end])[:-1]
    corners = np.split(camera.project(*(metres + np.array([[x], [0], [z]]))), cuts)
    canvas.polygons([(seen, colour) for seen, (_, colour) in zip(corners, flank + end, strict=True)], z, CAR)


def _flank(outline: np.ndarray, size: tuple, away: bool, paint: np.ndarray, glass: np.ndarray) -> list[Polygon]:
    """The side of a car: points (along, up) [N, 2] as shares of length and height, and their colours."""
    _, height, length = size
    first, last = (0.12, 0.72) if away else (0.28, 0.88)
    window = np.array([(first, 0.64), (first + 0.08, 0.95), (last - 0.1, 0.95), (last, 0.64)])
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    rim = np.stack([np.cos(turn) / length, np.sin(turn) / height], axis=1)
    parts = [(outline, paint), (window, glass)]
    for hub in (0.18, 0.8):
        parts += [(rim * r + [hub, 0.32 / height], tone) for r, tone in ((0.32, _TYRE), (0.19, _HUB))]
    return parts


def _end(away: bool, paint: np.ndarray, glass: np.ndarray) -> list[Polygon]:
    """The rear or front of a car: points (across, up) [N, 2] as shares of half its width and its height; colours."""
    lamp = np.array([0.7, 0.08, 0.06] if away else [0.95, 0.93, 0.8])
    body = [(-1, 0.18), (1, 0.18), (1, 0.55), (0.94, 0.66), (0.76, 1), (-0.76, 1), (-0.94, 0.66), (-1, 0.55)]
    window = [(-0.82, 0.66), (0.82, 0.66), (0.68, 0.95), (-0.68, 0.95)]
    parts = [(_pane(a, 0.1, 0, 0.3), _TYRE) for a in (-0.8, 0.8)]
    parts += [(np.array(body), paint), (_pane(0, 1, 0.16, 0.28), paint * 0.45), (np.array(window), glass)]
    return parts + [(_pane(a, 0.14, 0.45, 0.57), lamp) for a in (-0.8, 0.8)] + [(_pane(0, 0.26, 0.32, 0.41), _PLATE)]


def _pane(middle: float, half: float, low: float, high: float) -> np.ndarray:
    return middle * np.array([(1, 0)] * 4) + np.array([(-half, low), (half, low), (half, high), (-half, high)])
