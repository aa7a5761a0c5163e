"""Street scenes that need no download: rendered by numpy, every scene a function of (seed, split, index).

A pinhole camera looks along a road that may bend; ground, walls, trees, cars and poles are laid far to near, so labels
are exact to the pixel. Light, haze, blur and noise vary from scene to scene.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantjax.checks import check_choice
from quantjax.data import street_parts as parts
from quantjax.data import street_textures as textures
from quantjax.data.street_parts import BUILDING, PAVEMENT, ROAD, SKY, VEGETATION, Camera, Canvas

CLASS_NAMES = ("road", "pavement", "sky", "building", "vegetation", "car", "pole")
SIZE = (112, 224)
ROWS = {"train": 300, "test": 60}


class Streets:
    """A source of {"image": uint8 [H, W, 3], "label": uint8 [H, W] in 0..6, "name"}; rows are kept once rendered.

    The arrays of a row are read-only: copy before painting into them.

    Raises:
        ValueError: split is neither "train" nor "test".
        IndexError: no such row.
    """

    class_names = CLASS_NAMES

    def __init__(self, split: str, size: tuple[int, int] = SIZE, seed: int = 0):
        check_choice("split", split, ROWS)
        self.split, self.size, self.seed = split, size, seed
        self._rows: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return ROWS[self.split]

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} is not in 0..{len(self) - 1}")
        if index not in self._rows:
            rng = np.random.default_rng([self.seed, sorted(ROWS).index(self.split), index])
            image, label = render(rng, *self.size)
            image.flags.writeable = label.flags.writeable = False
            self._rows[index] = {"image": image, "label": label, "name": f"street_{self.split}_{index:03d}"}
        return self._rows[index]


def render(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image uint8 [H, W, 3] and label uint8 [H, W] in 0..6."""
    camera = Camera(
        focal=width * rng.uniform(0.6, 0.9),
        centre=width * rng.uniform(0.38, 0.62),
        horizon=height * rng.uniform(0.36, 0.54),
        height=rng.uniform(1.3, 2.1),
        shift=rng.uniform(-2.5, 2.5),
        yaw=rng.normal(0, 0.06),
        bend=rng.normal(0, 0.004) * (rng.random() < 0.6),
    )
    road = rng.uniform(3.2, 6.5)  # half of its width, metres
    pavement, sun = road + rng.uniform(1.5, 4.0), rng.choice([-1.0, 1.0])
    canvas = _backdrop(rng, camera, height, width)
    _ground(rng, canvas, camera, road, pavement, sun)
    for _, draw in sorted(_things(rng, canvas, camera, road, pavement, sun), key=lambda thing: -thing[0]):
        draw()
    return _develop(rng, canvas.image), canvas.label


def _backdrop(rng: np.random.Generator, camera: Camera, height: int, width: int) -> Canvas:
    """Sky, then hills, woods or roofs far away along the horizon."""
    sky = textures.sky(rng, max(int(camera.horizon) + 4, 8), width)
    image = np.empty((height, width, 3), np.float32)
    image[: len(sky)], image[len(sky) :] = sky, 0.5
    label = np.full((height, width), SKY, np.uint8)
    canvas = Canvas(image, label, sky[-6:].mean((0, 1)), rng.uniform(60, 500))
    rows = np.arange(height)[:, None] + 0.5
    if rng.random() < 0.6:
        blocks = rng.uniform(0.01, 0.12, width)[np.cumsum(rng.random(width) < 0.12)] * height
        _skyline(canvas, rng, rows, camera.horizon - blocks, textures.facade(rng, height, width, 4.0), BUILDING)
    tops = camera.horizon - height * (0.04 + 0.03 * textures.field(rng, 1, width, width / rng.uniform(4, 20))[0])
    _skyline(canvas, rng, rows, tops, textures.foliage(rng, height, width), VEGETATION)
    return canvas


def _skyline(canvas: Canvas, rng, rows: np.ndarray, tops: np.ndarray, colour: np.ndarray, label: int) -> None:
    cover = np.clip(rows - tops + 0.5, 0, 1).astype(np.float32)
    canvas.paint((0, 0, cover.shape[1], cover.shape[0]), colour, cover, rng.uniform(60, 150), label)


def _ground(rng, canvas: Canvas, camera: Camera, road: float, pavement: float, sun: float) -> None:
    """Road with its markings, kerbs, pavements and the verge beyond, for every pixel under the horizon."""
    height, width = canvas.label.shape
    top = int(np.ceil(camera.horizon + 0.5))
    z = camera.focal * camera.height / (np.arange(top, height, dtype=np.float32)[:, None] + 0.5 - camera.horizon)
    x = ((np.arange(width) + 0.5 - camera.centre) / camera.focal).astype(np.float32) * z - camera.lateral(z)
    fine = camera.focal / z  # pixels per metre
    aside, box = np.abs(x), (0, top, width, height)
    grassy = rng.random(2) < 0.55
    verge = _spread(textures.foliage(rng, 128, 128) * rng.uniform(0.9, 1.3), x, z, 16)
    slabs = _spread(textures.paving(rng, 128, 128), x, z, 12)
    canvas.paint(box, slabs, np.ones_like(x), 0.0, PAVEMENT)
    for side, grass in zip((-1, 1), grassy, strict=True):
        if grass:
            canvas.paint(box, verge, np.clip((side * x - pavement) * fine + 0.5, 0, 1), 0.0, VEGETATION)
    tarmac = _spread(textures.asphalt(rng, 128, 128), x, z, rng.uniform(8, 20))
    canvas.paint(box, tarmac, np.clip((road - aside) * fine + 0.5, 0, 1), 0.0, ROAD)
    canvas.paint(box, np.full(3, rng.uniform(0.45, 0.75)), _stripe(aside - road - 0.1, 0.1, fine), 0.0, None)
    canvas.paint(box, _marking_colour(rng), _markings(rng, x, z, fine, road), 0.0, None)
    canvas.paint(box, np.full(3, 0.04), _shadows(rng, x, z, pavement, sun), 0.0, None)
    far = (1 - np.exp(-z / canvas.visibility))[..., None]
    canvas.image[top:] += far * (canvas.haze - canvas.image[top:])


def _spread(tile: np.ndarray, x: np.ndarray, z: np.ndarray, grain: float) -> np.ndarray:
    """A square tile laid over the ground, `grain` of its pixels a metre, fading to its mean far away."""
    size = len(tile)
    seen = tile[(z * grain).astype(np.int32) % size, (x * grain).astype(np.int32) % size]
    mean = tile.mean((0, 1))
    return mean + np.exp(-z / 14)[..., None] * (seen - mean)


def _stripe(away: np.ndarray, half: float, fine: np.ndarray) -> np.ndarray:
    """Cover of a line `half` metres to each side of away = 0; thinner than a pixel it gets faint."""
    return np.clip((half - np.abs(away)) * fine + 0.5, 0, 1) * np.minimum(2 * half * fine, 1)


def _marking_colour(rng: np.random.Generator) -> np.ndarray:
    return np.array([0.85, 0.7, 0.25] if rng.random() < 0.2 else [0.88, 0.88, 0.86]) * rng.uniform(0.8, 1.05)


def _markings(rng, x: np.ndarray, z: np.ndarray, fine: np.ndarray, road: float) -> np.ndarray:
    """Cover of edge lines, lane dashes and at times a zebra crossing, more or less worn."""
    cover = np.zeros_like(x)
    if rng.random() < 0.6:
        cover = np.maximum(cover, _stripe(np.abs(x) - road + rng.uniform(0.2, 0.6), 0.07, fine))
    lanes, phase, dash = max(2, int(road / rng.uniform(1.3, 2.4))), rng.uniform(0, 6), rng.choice([2.0, 3.5, 6.0])
    gate = ((z + phase) % 6 < dash).astype(np.float32)
    for k in range(1, lanes):
        cover = np.maximum(cover, _stripe(x - road * (2 * k / lanes - 1), 0.08, fine) * gate)
    if rng.random() < 0.2:
        start = rng.uniform(5, 16)
        bars = ((z > start) & (z < start + 3) & (np.abs(x) < road - 0.3) & (x % 1.1 < 0.55)).astype(np.float32)
        cover = np.maximum(cover, bars)
    return cover * rng.uniform(0.45, 0.95)


def _shadows(rng, x: np.ndarray, z: np.ndarray, pavement: float, sun: float) -> np.ndarray:
    """Cover of what shades the ground: the houses on the sun's side, and dapples under trees."""
    cover = np.zeros_like(x)
    if rng.random() < 0.5:
        edge = rng.uniform(0, pavement) + 0.8 * np.sin(z * rng.uniform(0.1, 0.6) + rng.uniform(0, 6))
        cover = np.clip((sun * x - pavement + edge) * 2 + 0.5, 0, 1) * rng.uniform(0.2, 0.5)
    if rng.random() < 0.4:
        dapples = textures.field(rng, 64, 64, 9)[(z * 3).astype(np.int32) % 64, (x * 3).astype(np.int32) % 64]
        cover = np.maximum(cover, np.clip(dapples - 0.3, 0, 1) * rng.uniform(0.2, 0.5) * np.exp(-z / 40))
    return cover.astype(np.float32)


def _things(rng, canvas: Canvas, camera: Camera, road: float, pavement: float, sun: float) -> list:
    """Everything that stands up, as (distance in metres, how to draw it)."""
    things: list = []

    def add(z: float, draw, *arguments) -> None:
        own = np.random.default_rng(rng.integers(2**63))
        things.append((z, lambda: draw(canvas, camera, own, *arguments)))

    for side in (-1, 1):
        z, built = rng.uniform(2.5, 9), rng.choice([0.15, 0.6, 0.9])
        while z < 75:
            length = rng.uniform(7, 16) * (1 + z / 40)
            if rng.random() < built:
                add(z, parts.building, side, side * (pavement + rng.uniform(0, 2)), (z, z + length), sun)
            elif rng.random() < 0.5:
                add(z, parts.hedge, side * (pavement + rng.uniform(0, 1)), (z, z + length))
            z += length + rng.choice([0.0, 0.0, rng.uniform(2, 12)])
        for z in rng.uniform(5, 55, rng.integers(0, 6)):
            add(z, parts.tree, side * rng.uniform(road + 0.8, pavement + 4), z, sun)
        for z in rng.uniform(4.5, 32, rng.integers(0, 4)):
            add(z, parts.pole, side * (road + rng.uniform(0.3, 0.9)), z, side)
        if rng.random() < 0.5:
            for z in np.arange(rng.uniform(5, 14), 50, rng.uniform(5.4, 8)):
                if rng.random() < 0.6:
                    add(z, parts.car, side * (road - 1.0), z, side > 0)
        for z in rng.uniform(7, 60, rng.integers(0, 3)):
            add(z, parts.car, side * road * rng.uniform(0.25, 0.45), z, side > 0)
    return things


def _develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The photograph: exposure, colour of the light, contrast, blur and noise; uint8 [H, W, 3]."""
    from PIL import Image, ImageFilter

    warm = rng.normal(0, 0.05)
    light = rng.uniform(0.6, 1.15) * np.array([1 + warm, 1.0, 1 - warm], np.float32)
    image = 0.5 + (image * light - 0.5) * rng.uniform(0.8, 1.15)
    image = image + rng.uniform(0.003, 0.025) * rng.standard_normal(image.shape, dtype=np.float32)
    picture = Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7)))
    return np.array(picture)
