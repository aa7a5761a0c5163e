"""Street scenes that need no download: rendered by numpy, every scene a function of (seed, split, index).

A pinhole camera looks along a road that may bend; ground, walls, trees, cars and poles are laid far to near, so labels
are exact to the pixel. Light, haze, blur and noise vary from scene to scene.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from operator import index as as_index
from typing import Any, SupportsIndex

import numpy as np

from quantjax.bundled import street_parts as parts
from quantjax.bundled import street_textures as textures
from quantjax.bundled.street_canvas import BUILDING, PAVEMENT, ROAD, SKY, VEGETATION, Camera, Canvas
from quantjax.bundled.street_parts import Scene
from quantjax.checks import check_choice
from quantjax.rows import SceneRow

CLASS_NAMES = ("road", "pavement", "sky", "building", "vegetation", "car", "pole")
SIZE = (112, 224)
ROWS = {"train": 300, "test": 60}
SMALLEST = 28


class Streets:
    """Rendered scenes as SceneRow, labels 0..6 in the order of `class_names`; the last 512 rendered are kept.

    Scenes of another size are other scenes: textures are drawn pixel by pixel. The arrays of a row are read-only, so
    copy them before painting into them.

    Raises:
        ValueError: split is neither "train" nor "test", or a size under 28 pixels.
    """

    class_names: tuple[str, ...] = CLASS_NAMES

    def __init__(self, split: str, size: tuple[int, int] = SIZE, seed: int = 0):
        check_choice("split", split, ROWS)
        if min(size) < SMALLEST:
            raise ValueError(f"size must be at least {SMALLEST} pixels each way, got {tuple(size)}; default: {SIZE}")
        self.split, self.size, self.seed = split, (int(size[0]), int(size[1])), seed

    def __len__(self) -> int:
        """N, the number of scenes: 300 to train on, 60 to test on."""
        return ROWS[self.split]

    def __getitem__(self, index: SupportsIndex) -> SceneRow:
        """Scene `index`; IndexError outside 0..N-1."""
        index = as_index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {self.split} is not in 0..{len(self) - 1}")
        return _row(self.seed, self.split, index, self.size)


@lru_cache(maxsize=512)
def _row(seed: int, split: str, index: int, size: tuple[int, int]) -> SceneRow:
    rng = np.random.default_rng([seed, list(ROWS).index(split), index])
    image, label = render(rng, *size)
    image.flags.writeable = label.flags.writeable = False
    return {"image": image, "label": label, "name": f"street_{split}_{index:03d}"}


def render(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image uint8 [H, W, 3] and label uint8 [H, W] in 0..6."""
    camera = Camera(
        focal=width * rng.uniform(0.6, 0.9),
        centre=width * rng.uniform(0.38, 0.62),
        horizon=height * rng.uniform(0.36, 0.54),
        height=rng.uniform(1.3, 2.1),
        shift=rng.uniform(-2.5, 2.5),
        yaw=rng.normal(0, 0.06),
        bend=rng.normal(0, 0.004) if rng.random() < 0.6 else 0.0,
    )
    road = rng.uniform(3.2, 6.5)  # half of its width, metres
    pavement = road + rng.uniform(1.5, 4.0)  # where it ends
    sun = 1.0 if rng.random() < 0.5 else -1.0
    scene = Scene(_backdrop(rng, camera, height, width), camera, rng, sun)
    _ground(scene, road, pavement)
    for _, draw in sorted(_things(scene, road, pavement), key=lambda thing: -thing[0]):
        draw()
    return _develop(rng, scene.canvas.image), scene.canvas.label


def _backdrop(rng: np.random.Generator, camera: Camera, height: int, width: int) -> Canvas:
    """Sky, then roofs, hills or woods far away along the horizon."""
    sky = textures.sky(rng, int(camera.horizon) + 4, width)
    image = np.full((height, width, 3), 0.5, np.float32)
    image[: len(sky)] = sky
    label = np.full((height, width), SKY, np.uint8)
    canvas = Canvas(image, label, sky[-6:].mean((0, 1)), rng.uniform(60, 500))
    band = (0, max(int(camera.horizon - 0.25 * height), 0), width, int(camera.horizon) + 4)
    size = band[3] - band[1], width
    rows = np.arange(band[1], band[3])[:, None] + 0.5
    if rng.random() < 0.6:
        tops = rng.uniform(0.01, 0.12, width)[np.cumsum(rng.random(width) < 0.12)] * height
        cover = np.clip(rows - camera.horizon + tops + 0.5, 0, 1)
        canvas.paint(band, textures.facade(rng, *size, storey=4.0), cover, rng.uniform(60, 150), BUILDING)
    tops = height * (0.04 + 0.03 * textures.field(rng, 1, width, width / rng.uniform(4, 20))[0])
    cover = np.clip(rows - camera.horizon + tops + 0.5, 0, 1)
    canvas.paint(band, textures.foliage(rng, *size), cover, rng.uniform(60, 150), VEGETATION)
    return canvas


def _ground(scene: Scene, road: float, pavement: float) -> None:
    """Road with its markings, kerbs, pavements and the verge beyond, for every pixel under the horizon."""
    canvas, camera, rng, sun = scene
    height, width = canvas.label.shape
    top = int(np.ceil(camera.horizon + 0.5))
    z = camera.focal * camera.height / (np.arange(top, height, dtype=np.float32)[:, None] + 0.5 - camera.horizon)
    x = ((np.arange(width, dtype=np.float32) + 0.5 - camera.centre) / camera.focal) * z - camera.lateral(z)
    fine = camera.focal / z  # pixels per metre
    aside, box = np.abs(x), (0, top, width, height)
    canvas.paint(box, _spread(textures.paving(rng, 96, 96), x, z, 12), np.ones_like(x), 0.0, PAVEMENT)
    left, right = rng.random(2) < 0.55
    grassy = np.where(x < 0, left, right)
    if grassy.any():
        verge = _spread(textures.foliage(rng, 96, 96) * rng.uniform(0.9, 1.3), x, z, 12)
        canvas.paint(box, verge, np.clip((aside - pavement) * fine + 0.5, 0, 1) * grassy, 0.0, VEGETATION)
    tarmac = _spread(textures.asphalt(rng, 96, 96), x, z, rng.uniform(6, 14))
    canvas.paint(box, tarmac, np.clip((road - aside) * fine + 0.5, 0, 1), 0.0, ROAD)
    canvas.paint(box, np.full(3, rng.uniform(0.45, 0.75)), _stripe(aside - road - 0.1, 0.1, fine), 0.0, None)
    canvas.paint(box, _marking_colour(rng), _markings(rng, x, z, fine, road), 0.0, None)
    canvas.paint(box, np.full(3, 0.04), _shadows(rng, x, z, pavement, sun), 0.0, None)
    canvas.image[top:] += (1 - np.exp(-z / canvas.visibility))[..., None] * (canvas.haze - canvas.image[top:])


def _spread(tile: np.ndarray, x: np.ndarray, z: np.ndarray, grain: float) -> np.ndarray:
    """A square tile laid over the ground, `grain` of its pixels a metre, fading to its mean far away."""
    size, mean = len(tile), tile.mean((0, 1))
    seen = tile[(z * grain).astype(np.int32) % size, (x * grain).astype(np.int32) % size]
    return mean + np.exp(-z / 14)[..., None] * (seen - mean)


def _stripe(away: np.ndarray, half: float, fine: np.ndarray) -> np.ndarray:
    """Cover of a line `half` metres to each side of away = 0; thinner than a pixel it gets faint."""
    return np.clip((half - np.abs(away)) * fine + 0.5, 0, 1) * np.minimum(2 * half * fine, 1)


def _marking_colour(rng: np.random.Generator) -> np.ndarray:
    return np.array([0.85, 0.7, 0.25] if rng.random() < 0.2 else [0.88, 0.88, 0.86]) * rng.uniform(0.8, 1.05)


def _markings(rng: np.random.Generator, x: np.ndarray, z: np.ndarray, fine: np.ndarray, road: float) -> np.ndarray:
    """Cover of edge lines, lane dashes and at times a zebra crossing, more or less worn."""
    cover = np.zeros_like(x)
    if rng.random() < 0.6:
        cover = _stripe(np.abs(x) - road + rng.uniform(0.2, 0.6), 0.07, fine)
    lanes, phase, dash = max(2, int(road / rng.uniform(1.3, 2.4))), rng.uniform(0, 6), rng.choice([2.0, 3.5, 6.0])
    gate = (z + phase) % 6 < dash
    for k in range(1, lanes):
        cover = np.maximum(cover, _stripe(x - road * (2 * k / lanes - 1), 0.08, fine) * gate)
    if rng.random() < 0.2:
        start = rng.uniform(5, 16)
        cover = np.maximum(cover, (z > start) & (z < start + 3) & (np.abs(x) < road - 0.3) & (x % 1.1 < 0.55))
    return cover * rng.uniform(0.45, 0.95)


def _shadows(rng: np.random.Generator, x: np.ndarray, z: np.ndarray, pavement: float, sun: float) -> np.ndarray:
    """Cover of what shades the ground: the houses on the sun's side, and dapples under trees."""
    cover = np.zeros_like(x)
    if rng.random() < 0.5:
        edge = rng.uniform(0, pavement) + 0.8 * np.sin(z * rng.uniform(0.1, 0.6) + rng.uniform(0, 6))
        cover = np.clip((sun * x - pavement + edge) * 2 + 0.5, 0, 1) * rng.uniform(0.2, 0.5)
    if rng.random() < 0.4:
        dapples = textures.field(rng, 64, 64, 9)[(z * 3).astype(np.int32) % 64, (x * 3).astype(np.int32) % 64]
        cover = np.maximum(cover, np.clip(dapples - 0.3, 0, 1) * rng.uniform(0.2, 0.5) * np.exp(-z / 40))
    return cover


def _things(scene: Scene, road: float, pavement: float) -> list[tuple[float, Callable[[], None]]]:
    """Everything that stands up, as (its far end in metres, how to draw it)."""
    rng = scene.rng
    things: list[tuple[float, Callable[[], None]]] = []

    def add(far: float, draw: Callable[..., None], *arguments: Any) -> None:
        things.append((far, partial(draw, scene, *arguments)))

    for side in (-1, 1):
        near, built = rng.uniform(2.5, 9), rng.choice([0.15, 0.6, 0.9])
        while near < 70:
            far, aside = near + rng.uniform(7, 16) * (1 + near / 40), pavement + rng.uniform(0, 2)
            if rng.random() < built:
                add(far, parts.building, side, side * aside, near, far)
            else:
                for z in rng.uniform(near, far, rng.integers(0, 4)):
                    add(z, parts.tree, side * (aside + rng.uniform(1, 8)), z)
                if rng.random() < 0.5:
                    add(near, parts.hedge, side * aside, near, far)
            near = far + rng.choice([0.0, 0.0, rng.uniform(2, 12)])
        for z in rng.uniform(6, 55, rng.integers(0, 4)):
            add(z, parts.tree, side * rng.uniform(road + 0.8, pavement), z)
        for z in rng.uniform(6, 32, rng.integers(0, 4)):
            add(z, parts.pole, side, side * (road + rng.uniform(0.3, 0.9)), z)
        for z in np.arange(rng.uniform(5, 14), 45, rng.uniform(5.4, 8)) if rng.random() < 0.5 else ():
            if rng.random() < 0.6:
                add(z, parts.car, side * (road - 1.0), z, side > 0)
        for z in rng.uniform(7, 60, rng.integers(0, 3)):
            add(z, parts.car, side * road * rng.uniform(0.25, 0.45), z, side > 0)
    return things


def _develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The photograph: exposure, colour of the light, contrast, noise and blur; uint8 [H, W, 3]."""
    from PIL import Image, ImageFilter

    warm, contrast = rng.normal(0, 0.05), rng.uniform(0.8, 1.15)
    light = rng.uniform(0.65, 1.15) * contrast * np.array([1 + warm, 1.0, 1 - warm], np.float32)
    image = image * light + np.float32(0.5 - 0.5 * contrast)
    image += np.float32(rng.uniform(0.003, 0.025)) * rng.standard_normal(image.shape, dtype=np.float32)
    picture = Image.fromarray((image * 255).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7)))
    return np.array(picture)
