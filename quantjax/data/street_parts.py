"""What stands in a bundled street scene: walls, trees, cars, poles, painted far to near by a pinhole camera.

Metres in the road's frame: x to the right of the road's centre line, y up from the ground, z ahead of the camera.
Pixels: u to the right, v down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quantjax.data import street_textures as textures

ROAD, PAVEMENT, SKY, BUILDING, VEGETATION, CAR, POLE = range(7)
_FINE = 4  # edges are drawn this much finer, then averaged
_SIDE = np.array([(0, 0.2), (0, 0.6), (0.05, 0.68), (0.16, 1), (0.6, 1), (0.76, 0.66), (0.97, 0.58), (1, 0.2)])
_VAN = np.array([(0, 0.15), (0, 0.9), (0.04, 1), (0.74, 1), (0.86, 0.6), (0.99, 0.5), (1, 0.15)])


class Camera(NamedTuple):
    """Where the camera is and how the road runs: its centre line is at x = shift + yaw z + bend z^2 / 2."""

    focal: float  # pixels
    centre: float  # column of the optical axis
    horizon: float  # row of the horizon
    height: float  # metres above the ground
    shift: float
    yaw: float
    bend: float  # per metre

    def lateral(self, z):
        """The road's centre line at distance z, metres to the right of the camera."""
        return self.shift + self.yaw * z + 0.5 * self.bend * z * z

    def project(self, x, y, z) -> np.ndarray:
        """Points [N] -> pixels (u, v) [N, 2]."""
        u = self.centre + self.focal * (x + self.lateral(z)) / z
        return np.stack(np.broadcast_arrays(u, self.horizon + self.focal * (self.height - y) / z), axis=-1)


class Canvas:
    """The picture so far: image float32 [H, W, 3] in 0..1 and label uint8 [H, W]; far things fade into the haze."""

    def __init__(self, image: np.ndarray, label: np.ndarray, haze: np.ndarray, visibility: float):
        self.image, self.label, self.haze, self.visibility = image, label, haze, visibility

    def box(self, points: np.ndarray) -> tuple[int, int, int, int] | None:
        """The part of the canvas (left, top, right, bottom) that holds the points [N, 2]; None when out of sight."""
        height, width = self.label.shape
        low, high = np.floor(points.min(0)), np.ceil(points.max(0)) + 1
        left, top = max(int(low[0]), 0), max(int(low[1]), 0)
        right, bottom = min(int(high[0]), width), min(int(high[1]), height)
        return (left, top, right, bottom) if right > left and bottom > top else None

    def paint(self, box, colour, cover, z: float, label: int | None) -> None:
        """Lay colour ([3] or [h, w, 3]) over the box with cover [h, w] in 0..1; label None keeps what is there."""
        part = np.s_[box[1] : box[3], box[0] : box[2]]
        far = 1 - np.exp(-z / self.visibility)
        seen = np.asarray(colour, np.float32) * (1 - far) + self.haze * far
        self.image[part] += cover[..., None] * (seen - self.image[part])
        if label is not None:
            self.label[part][cover > 0.5] = label

    def polygon(self, points: np.ndarray, colour, z: float, label: int | None, strength: float = 1.0) -> None:
        """Fill a polygon [N, 2] in pixels."""
        box = self.box(points)
        if box is not None:
            self.paint(box, colour, strength * cover(points, box), z, label)


def cover(points: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """How much of every pixel of the box lies inside the polygon, float32 [h, w] in 0..1."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", ((box[2] - box[0]) * _FINE, (box[3] - box[1]) * _FINE))
    ImageDraw.Draw(mask).polygon([tuple(p) for p in ((points - box[:2]) * _FINE).tolist()], fill=255)
    return np.asarray(mask.reduce(_FINE), np.float32) / 255


def wall(canvas: Canvas, camera: Camera, foot: np.ndarray, height: float, texture: np.ndarray, label: int) -> None:
    """A textured upright rectangle over the ground points foot [(x, z), (x, z)], by projective mapping."""
    from PIL import Image

    (x0, z0), (x1, z1) = foot
    corners = camera.project(np.array([x0, x1, x1, x0]), np.array([0, 0, height, height]), np.array([z0, z1, z1, z0]))
    box = canvas.box(corners)
    if box is None or abs(corners[0, 0] - corners[1, 0]) < 0.5:
        return
    rows, columns = texture.shape[:2]
    inside = np.array([(0, rows), (columns, rows), (columns, 0), (0, 0)], float)
    (u, v), (s, t) = (corners - box[:2]).T, inside.T
    one, zero = np.ones(4), np.zeros(4)
    left = np.block([[np.stack([u, v, one, zero, zero, zero, -s * u, -s * v], 1)],
                     [np.stack([zero, zero, zero, u, v, one, -t * u, -t * v], 1)]])  # fmt: skip
    mapping = np.linalg.solve(left, np.concatenate([s, t]))
    picture = Image.fromarray((texture * 255).astype(np.uint8))
    # A border of the texture's own colours, so that no black is blended in at its edges.
    size = (box[2] - box[0], box[3] - box[1])
    seen = picture.transform(size, Image.Transform.PERSPECTIVE, mapping.tolist(), Image.Resampling.BILINEAR)
    colour = np.asarray(seen, np.float32) / 255
    hole = colour.sum(-1, keepdims=True) == 0
    colour = np.where(hole, texture.mean((0, 1)), colour)
    canvas.paint(box, colour, cover(corners, box), (z0 + z1) / 2, label)


def building(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, side: int, x: float, z: tuple, sun: float
) -> None:
    """A block beside the road: its wall along the road, its end wall, at times a pitched roof."""
    near, far = z
    height, depth = rng.uniform(5, 17), rng.uniform(8, 12)
    grain = float(np.clip(camera.focal / near, 3, 9))  # texture pixels per metre
    shape = max(8, int(height * grain)), max(8, int((far - near) * grain))
    texture = textures.facade(rng, *shape, storey=rng.uniform(2.8, 3.6) * grain)
    lit, unlit = (1.08, 0.72) if side * sun < 0 else (0.78, 1.0)
    if rng.random() < 0.45:
        roof, top = (
            rng.uniform(0.5, 1.1) * textures.pick(rng, ((0.45, 0.24, 0.18), (0.3, 0.3, 0.33)), 0.1),
            rng.uniform(1.5, 3),
        )
        ridge = x + side * 3.5
        ends = camera.project(
            np.array([x, ridge, ridge, x]), height + np.array([0, top, top, 0]), np.array([near, near, far, far])
        )
        canvas.polygon(ends, roof * lit, (near + far) / 2, BUILDING)
    wall(
        canvas, camera, np.array([(x, near), (x + side * depth, near)]), height, (texture * unlit).clip(0, 1), BUILDING
    )
    wall(canvas, camera, np.array([(x, near), (x, far)]), height, (texture * lit).clip(0, 1), BUILDING)


def hedge(canvas: Canvas, camera: Camera, rng: np.random.Generator, x: float, z: tuple) -> None:
    """A clipped hedge along the road."""
    grain = float(np.clip(camera.focal / z[0], 3, 16))
    height = rng.uniform(0.8, 2.2)
    texture = textures.foliage(rng, max(6, int(height * grain)), max(8, int((z[1] - z[0]) * grain)))
    wall(canvas, camera, np.array([(x, z[0]), (x, z[1])]), height, texture, VEGETATION)


def tree(canvas: Canvas, camera: Camera, rng: np.random.Generator, x: float, z: float, sun: float) -> None:
    """A trunk and a ragged crown, round or pointed, lit from the sun's side."""
    height, radius = rng.uniform(4, 9), rng.uniform(1.2, 2.8)
    pointed, trunk = rng.random() < 0.25, rng.uniform(0.1, 0.2)
    bark = rng.uniform(0.5, 1.1) * np.array([0.3, 0.24, 0.18])
    post = np.array([x - trunk, x + trunk, x + trunk, x - trunk])
    canvas.polygon(camera.project(post, np.array([0, 0, 0.6, 0.6]) * height, np.full(4, z)), bark, z, VEGETATION)
    rise = (height - rng.uniform(1.4, 2.2)) / 2
    middle = camera.project(x, height - rise, z)
    across, up = camera.focal * radius / z, camera.focal * rise / z
    box = canvas.box(middle + np.array([[-1.3 * across, -1.3 * up], [1.3 * across, 1.3 * up]]))
    if box is None:
        return
    rows, columns = box[3] - box[1], box[2] - box[0]
    v = ((np.arange(box[1], box[3]) + 0.5 - middle[1]) / up)[:, None].astype(np.float32)
    u = ((np.arange(box[0], box[2]) + 0.5 - middle[0]) / across)[None].astype(np.float32)
    reach = np.abs(u) * 2 / (1.2 + v).clip(0.05) + (v > 1) if pointed else np.sqrt(u * u + v * v)
    ragged = textures.field(rng, rows, columns, max(across / 3, 2)) + 0.7 * textures.field(
        rng, rows, columns, max(across / 9, 1.5)
    )
    leaves = textures.foliage(rng, rows, columns) * (0.95 - 0.3 * v + 0.2 * sun * u)[..., None]
    canvas.paint(box, leaves.clip(0, 1), np.clip((1 - reach - 0.14 * ragged) * across * 0.7 + 0.5, 0, 1), z, VEGETATION)


def pole(canvas: Canvas, camera: Camera, rng: np.random.Generator, x: float, z: float, side: int) -> None:
    """A lamp post, a sign or a bare post, with the light on one half of it."""
    half, height, kind = rng.uniform(0.08, 0.16), rng.uniform(3.5, 7.5), rng.integers(3)
    height = 2.8 if kind == 1 else height
    colour = rng.choice([0.2, 0.35, 0.5, 0.62]) * (1 + rng.normal(0, 0.05, 3))
    parts = [([-half, half, half, -half], [0, 0, height, height], colour)]
    parts += [([0, half, half, 0], [0, 0, height, height], colour * rng.uniform(0.6, 1.4))]
    if kind == 0:
        parts += [([0, -side * 1.6, -side * 1.6, 0], height - np.array([0, 0.05, 0.17, 0.25]), colour)]
        parts += [
            (
                [-side * 1.1, -side * 1.9, -side * 1.9, -side * 1.1],
                height - np.array([0.05, 0, 0.2, 0.25]),
                colour * 0.7,
            )
        ]
    if kind == 1:
        turn = np.linspace(0, 2 * np.pi, (3, 4, 12)[rng.integers(3)], endpoint=False) + np.pi / 4
        paint = np.array(((0.75, 0.12, 0.1), (0.12, 0.25, 0.6), (0.9, 0.9, 0.88))[rng.integers(3)])
        parts += [(0.45 * np.cos(turn), height + 0.45 * np.sin(turn), paint)]
    for across, up, tone in parts:
        canvas.polygon(camera.project(x + np.array(across), np.array(up), np.full(len(across), z)), tone, z, POLE)


def car(canvas: Canvas, camera: Camera, rng: np.random.Generator, x: float, z: float, away: bool) -> None:
    """A car along the road, seen from behind (away) or from the front, with its near side, glass, wheels and shadow."""
    van = rng.random() < 0.2
    width, length = rng.uniform(1.65, 1.95), rng.uniform(3.7, 4.9)
    height = rng.uniform(1.9, 2.4) if van else rng.uniform(1.38, 1.7)
    inner = -1 if x + camera.lateral(z) > 0 else 1  # the side that shows
    profile = (_VAN if van else _SIDE) * [length, height]
    profile = profile if away else profile * [-1, 1] + [length, 0]
    paint, glass = textures.car_colour(rng), rng.uniform(0.05, 0.3) * np.array([0.9, 1.0, 1.1])

    def flank(points, inset=0.0):
        along, up = np.asarray(points, float).T
        tuck = 0.12 * width * np.clip((up / height - 0.6) / 0.4, 0, 1) + inset
        return camera.project(x + inner * (width / 2 - tuck), up, z + along)

    def end(across, up):
        across, up = np.array(across) * width / 2, np.array(up) * height
        return camera.project(x + across, up, np.full(len(across), z))

    ground = camera.project(
        x + np.array([-0.62, 0.62, 0.62, -0.62]) * width,
        np.zeros(4),
        z + np.array([-0.25, -0.25, 1, 1]) * [1, 1, length, length],
    )
    canvas.polygon(ground, np.full(3, 0.05), z, None, 0.6)
    shade = rng.uniform(0.65, 0.95)
    shapes = [(flank(profile), paint * shade)]
    lower, upper = 0.64 * height, 0.95 * height
    first, last = (0.12, 0.72) if away else (0.28, 0.88)
    shapes += [
        (
            flank(
                [
                    (first * length, lower),
                    ((first + 0.08) * length, upper),
                    ((last - 0.1) * length, upper),
                    (last * length, lower),
                ]
            ),
            glass,
        )
    ]
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for hub in (0.18, 0.8):
        for size, tone in ((0.32, 0.06), (0.19, 0.35)):
            rim = np.stack([hub * length + size * np.cos(turn), 0.32 + size * np.sin(turn)], 1)
            shapes += [(flank(rim), np.full(3, tone))]
    shapes += [(end([a - 0.1, a + 0.1, a + 0.1, a - 0.1], [0, 0, 0.3, 0.3]), np.full(3, 0.05)) for a in (-0.8, 0.8)]
    body = end([-1, 1, 1, 0.94, 0.76, -0.76, -0.94, -1], [0.18, 0.18, 0.55, 0.66, 1, 1, 0.66, 0.55])
    shapes += [(body, paint), (end([-1, 1, 1, -1], [0.16, 0.16, 0.28, 0.28]), paint * 0.45)]
    shapes += [(end([-0.82, 0.82, 0.68, -0.68], [0.66, 0.66, 0.95, 0.95]), glass)]
    lamp = np.array([0.7, 0.08, 0.06] if away else [0.95, 0.93, 0.8])
    shapes += [(end([a - 0.14, a + 0.14, a + 0.14, a - 0.14], [0.45, 0.45, 0.57, 0.57]), lamp) for a in (-0.8, 0.8)]
    shapes += [(end([-0.26, 0.26, 0.26, -0.26], [0.32, 0.32, 0.41, 0.41]), np.array([0.8, 0.8, 0.72]))]
    _draw_together(canvas, shapes, z)


def _draw_together(canvas: Canvas, shapes: list, z: float) -> None:
    """Polygons [(points, colour)] drawn over each other finely as one thing, with a gloss from top to bottom."""
    from PIL import Image, ImageDraw

    box = canvas.box(np.concatenate([points for points, _ in shapes]))
    if box is None:
        return
    size = (box[2] - box[0]) * _FINE, (box[3] - box[1]) * _FINE
    picture = Image.new("RGB", size, tuple(int(255 * c) for c in np.clip(shapes[0][1], 0, 1)))
    mask = Image.new("L", size)
    pen, stencil = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    for points, colour in shapes:
        corners = [tuple(p) for p in ((points - box[:2]) * _FINE).tolist()]
        pen.polygon(corners, fill=tuple(int(255 * c) for c in np.clip(colour, 0, 1)))
        stencil.polygon(corners, fill=255)
    gloss = np.linspace(1.2, 0.85, box[3] - box[1], dtype=np.float32)[:, None, None]
    colour = np.asarray(picture.reduce(_FINE), np.float32) / 255 * gloss
    canvas.paint(box, colour.clip(0, 1), np.asarray(mask.reduce(_FINE), np.float32) / 255, z, CAR)
