"""Camera and canvas of the bundled street scenes.

Metres in the road's frame: x to the right of the road's centre line, y up from the ground, z ahead of the camera.
Pixels: u to the right, v down. A box is (left, top, right, bottom) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

ROAD, PAVEMENT, SKY, BUILDING, VEGETATION, CAR, POLE = range(7)
_FINE = 4  # edges are drawn this much finer, then averaged

Box = tuple[int, int, int, int]
Polygon = tuple[np.ndarray, np.ndarray]  # corners [N, 2] in pixels, colour [3]


class Camera(NamedTuple):
    """Where the camera is and how the road runs: its centre line is at x = shift + yaw z + bend z^2 / 2."""

    focal: float
    """Pixels"""
    centre: float
    """Column of the optical axis"""
    horizon: float
    """Row of the horizon"""
    height: float
    """Metres above the ground"""
    shift: float
    yaw: float
    bend: float
    """Per metre"""

    def lateral(self, z: Any) -> Any:
        """The road's centre line at distance z, metres to the right of the camera."""
        return self.shift + self.yaw * z + 0.5 * self.bend * z * z

    def project(self, x: Any, y: Any, z: Any) -> np.ndarray:
        """Points, coordinates [N] or numbers -> pixels (u, v) [N, 2]."""
        u = self.centre + self.focal * (np.asarray(x) + self.lateral(z)) / z
        return np.stack(np.broadcast_arrays(u, self.horizon + self.focal * (self.height - np.asarray(y)) / z), axis=-1)

    def ceiling(self, z: float) -> float:
        """The height in metres that the upper edge of the picture shows at distance z."""
        return self.height + self.horizon / self.focal * z


class Canvas(NamedTuple):
    """The picture so far, painted far to near; what is far fades into the haze."""

    image: np.ndarray
    """float32 [H, W, 3] in 0..1"""
    label: np.ndarray
    """uint8 [H, W]"""
    haze: np.ndarray
    """[3]"""
    visibility: float
    """Metres after which a share of exp(-1) is left"""

    def box(self, points: np.ndarray) -> Box | None:
        """The part of the canvas that holds the points [N, 2]; None when they are out of sight."""
        (left, top), (right, bottom) = np.floor(points.min(0)), np.ceil(points.max(0)) + 1
        height, width = self.label.shape
        box = max(int(left), 0), max(int(top), 0), min(int(right), width), min(int(bottom), height)
        return box if box[2] > box[0] and box[3] > box[1] else None

    def paint(self, box: Box, colour: np.ndarray, cover: np.ndarray, z: float, label: int | None) -> None:
        """Lay colour ([3] or [h, w, 3]) over the box with cover [h, w] in 0..1; label None keeps what is there."""
        part = np.s_[box[1] : box[3], box[0] : box[2]]
        far, seen = np.float32(1 - np.exp(-z / self.visibility)), np.asarray(colour, np.float32)
        if far > 0:
            seen = seen * (1 - far) + self.haze.astype(np.float32) * far
        self.image[part] += cover.astype(np.float32)[..., None] * (seen - self.image[part])
        if label is not None:
            self.label[part][cover > 0.5] = label

    def polygon(self, points: np.ndarray, colour: np.ndarray, z: float, label: int | None, strength=1.0) -> None:
        """Fill a polygon [N, 2] with one colour."""
        box = self.box(points)
        if box is not None:
            self.paint(box, colour, strength * inside(points, box), z, label)

    def polygons(self, shapes: Sequence[Polygon], z: float, label: int) -> None:
        """Polygons drawn over each other as one thing, a little brighter at its top than at its foot."""
        from PIL import Image, ImageDraw

        box = self.box(np.concatenate([points for points, _ in shapes]))
        if box is None:
            return
        size = (box[2] - box[0]) * _FINE, (box[3] - box[1]) * _FINE
        picture = Image.new("RGBA", size, (*_bytes(shapes[0][1]), 0))
        pen = ImageDraw.Draw(picture)
        for points, colour in shapes:
            pen.polygon(_corners(points, box), fill=(*_bytes(colour), 255))
        drawn = np.asarray(picture.reduce(_FINE)) / np.float32(255)
        gloss = np.linspace(1.2, 0.85, box[3] - box[1], dtype=np.float32)[:, None, None]
        self.paint(box, np.minimum(drawn[..., :3] * gloss, 1), drawn[..., 3], z, label)

    def textured(self, corners: np.ndarray, texture: np.ndarray, light: float, z: float, label: int) -> None:
        """A texture [h, w, 3] in perspective, times light; corners [4, 2] from its lower left anticlockwise."""
        from PIL import Image

        box = self.box(corners)
        if box is None or np.ptp(corners[:, 0]) < 0.5:
            return
        picture = Image.fromarray((texture * 255).astype(np.uint8))
        rows, columns = texture.shape[:2]
        mapping = _perspective(corners - box[:2], np.array([(0, rows), (columns, rows), (columns, 0), (0, 0)]))
        size, mean = (box[2] - box[0], box[3] - box[1]), _bytes(texture.mean((0, 1)))
        how = Image.Transform.PERSPECTIVE, mapping.tolist(), Image.Resampling.BILINEAR
        seen = np.asarray(picture.transform(size, *how, fillcolor=mean)) / np.float32(255)
        self.paint(box, np.minimum(seen * np.float32(light), 1), inside(corners, box), z, label)


def inside(points: np.ndarray, box: Box) -> np.ndarray:
    """How much of every pixel of the box lies inside the polygon, float32 [h, w] in 0..1, edges to a quarter pixel."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", ((box[2] - box[0]) * _FINE, (box[3] - box[1]) * _FINE))
    ImageDraw.Draw(mask).polygon(_corners(points, box), fill=255)
    return np.asarray(mask.reduce(_FINE)) / np.float32(255)


def _corners(points: np.ndarray, box: Box) -> list[tuple[float, float]]:
    return [tuple(corner) for corner in ((points - box[:2]) * _FINE).tolist()]


def _bytes(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(min(max(int(255 * c), 0), 255) for c in colour)


def _perspective(seen: np.ndarray, source: np.ndarray) -> np.ndarray:
    """a..h that map each of four points (u, v) to ((a u + b v + c) / w, (d u + e v + f) / w), w = g u + h v + 1."""
    rows = []
    for (u, v), (s, t) in zip(seen, source, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -s * u, -s * v], [0, 0, 0, u, v, 1, -t * u, -t * v]]
    return np.linalg.solve(np.array(rows), source.ravel().astype(float))
