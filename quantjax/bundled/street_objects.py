"""Unknown objects for the bundled street scenes: shapes cut from photographs and from the scenes' own surfaces.

Training and evaluation objects share neither a photograph nor a shape family:

- train: the dahlia of scikit-learn (`flower.jpg`, CC BY 2.0, vultilion) and the flag and the uniform in a portrait of
  matplotlib's sample data (`grace_hopper.jpg`, public domain), cut as ellipses, polygons, stars, crosses and blobs;
- test: the temple of scikit-learn (`china.jpg`, CC BY 2.0, danielbuechele), cut as vases, creatures, crescents,
  branches and bells. Half of them are textured like the scene: asphalt, paving, facade, foliage, sky or car paint.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from operator import index as as_index
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np

from quantjax.bundled.street_textures import SCENE_TEXTURES, field
from quantjax.checks import check_choice
from quantjax.rows import ObjectRow

LONGEST = (18, 60)  # pixels, before the last crop


class Photograph(NamedTuple):
    """Where a photograph is in its package, and the part of it that is used: left, top, right, bottom."""

    package: str
    path: str
    part: tuple[int, int, int, int]


PHOTOGRAPHS = {
    "dahlia": Photograph("sklearn", "datasets/images/flower.jpg", (0, 0, 640, 427)),
    "flag": Photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (0, 0, 150, 400)),
    "uniform": Photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (0, 350, 512, 600)),
    "temple": Photograph("sklearn", "datasets/images/china.jpg", (0, 0, 640, 427)),
}

Grid = np.ndarray
Shape = Callable[[np.random.Generator, Grid, Grid], np.ndarray]  # (rng, x, y in -1..1, y down) -> bool, inside


def _ellipse(rng, x, y):
    return (x / rng.uniform(0.5, 0.95)) ** 2 + (y / rng.uniform(0.5, 0.95)) ** 2 < 1


def _polygon(rng, x, y):
    """Convex: the common part of a few half-planes."""
    turns = np.linspace(0, 2 * np.pi, rng.choice([3, 5, 6, 7]), endpoint=False) + rng.uniform(0, 6)
    away = [np.cos(t) * x + np.sin(t) * y - rng.uniform(0.4, 0.7) for t in turns]
    return (np.max(away, axis=0) < 0) & (x * x + y * y < 1)


def _star(rng, x, y):
    wave = np.cos(np.arctan2(y, x) * rng.integers(4, 8) + rng.uniform(0, 6))
    return np.hypot(x, y) < 0.68 + rng.uniform(0.15, 0.3) * wave


def _cross(rng, x, y):
    a, b = rng.uniform(0.18, 0.4, 2)
    bar, beam = (np.abs(x) < a) & (np.abs(y) < 0.95), (np.abs(y - rng.uniform(-0.4, 0.4)) < b) & (np.abs(x) < 0.95)
    return bar | beam


def _blob(rng, x, y):
    angle, radius = np.arctan2(y, x), 0.68
    for k in range(2, 5):
        radius = radius + rng.uniform(-0.14, 0.14) * np.cos(k * angle + rng.uniform(0, 6))
    return np.hypot(x, y) < radius


def _vase(rng, x, y):
    """Symmetric about the upright, its width a smooth curve of the height."""
    knots = np.append(rng.uniform(0.2, 0.6, 4), rng.uniform(0.3, 0.5))
    outline = np.interp(y, np.linspace(-0.95, 0.95, 5), knots) + 0.05 * np.cos(6 * y + rng.uniform(0, 6))
    return (np.abs(x) < outline) & (np.abs(y) < 0.95)


def _creature(rng, x, y):
    """A body on four legs with a neck, a head and a tail."""
    long, thick, knee = rng.uniform(0.45, 0.65), rng.uniform(0.18, 0.3), rng.uniform(0.05, 0.09)
    body = (x / (long + 0.12)) ** 2 + (y / thick) ** 2 < 1
    legs = [
        _stroke(x, y, (s * long, 0), (s * long + rng.uniform(-0.1, 0.1), 0.9), knee) for s in (-0.9, -0.6, 0.6, 0.9)
    ]
    head = (rng.uniform(0.65, 0.85), rng.uniform(-0.75, -0.3))
    neck = _stroke(x, y, (0.8 * long, -0.05), head, thick * 0.45)
    skull = np.hypot((x - head[0]) / 1.4, y - head[1]) < rng.uniform(0.13, 0.2)
    tail = _stroke(x, y, (-long, -0.05), (-0.92, rng.uniform(-0.6, 0.4)), 0.05)
    return np.any([body, neck, skull, tail, *legs], axis=0)


def _crescent(rng, x, y):
    turn = rng.uniform(0, 6)
    shift, cut = rng.uniform(0.3, 0.5), rng.uniform(0.55, 0.75)
    return (np.hypot(x, y) < 0.92) & (np.hypot(x - shift * np.cos(turn), y - shift * np.sin(turn)) > cut)


def _branch(rng, x, y):
    """A thick stroke that turns at random, with side shoots."""
    inside, here, way = np.zeros(np.broadcast(x, y).shape, bool), np.array([-0.8, rng.uniform(-0.4, 0.4)]), 0.0
    for _ in range(5):
        way = 0.4 * way + rng.normal(0, 0.5)
        there = here + 0.34 * np.array([np.cos(way), np.sin(way)])
        shoot = here + rng.uniform(0.3, 0.6) * np.array([np.cos(way + 1.2), np.sin(way + 1.2) * rng.choice([-1, 1])])
        inside |= _stroke(x, y, here, there, rng.uniform(0.12, 0.2)) | _stroke(x, y, here, shoot, 0.08)
        here = there
    return inside


def _bell(rng, x, y):
    """A dome over a flared skirt, open below."""
    up = (0.9 - y) / 1.8
    flare = rng.uniform(0.35, 0.55) + rng.uniform(0.3, 0.45) * np.exp(-up * rng.uniform(4, 9))
    dome = flare * np.sqrt(np.clip(1 - np.clip((up - 0.45) / 0.55, 0, 1) ** 2, 0, 1))
    notch = (np.abs(x) < rng.uniform(0.1, 0.3)) & (y > rng.uniform(0.5, 0.7))
    return (np.abs(x) < dome) & (np.abs(y) < 0.9) & ~notch


def _stroke(x, y, start, stop, half):
    """Within `half` of the line from start to stop."""
    (a, b), (c, d) = start, stop
    along = np.clip(((x - a) * (c - a) + (y - b) * (d - b)) / ((c - a) ** 2 + (d - b) ** 2), 0, 1)
    return np.hypot(x - a - along * (c - a), y - b - along * (d - b)) < half


class Recipe(NamedTuple):
    """What the objects of a split are made of."""

    rows: int
    photographs: tuple[str, ...]
    shapes: dict[str, Shape]
    scene_share: float
    """Of the objects textured like the scene"""


RECIPES: dict[str, Recipe] = {
    "train": Recipe(
        120,
        ("dahlia", "flag", "uniform"),
        {"ellipse": _ellipse, "polygon": _polygon, "star": _star, "cross": _cross, "blob": _blob},
        0.3,
    ),
    "test": Recipe(
        60,
        ("temple",),
        {"vase": _vase, "creature": _creature, "crescent": _crescent, "branch": _branch, "bell": _bell},
        0.5,
    ),
}


class StreetObjects:
    """Things to paste as ObjectRow, their longest side 16..60 pixels.

    The name holds the number, the shape and the surface, e.g. "test_007_crescent_foliage"; class_name is the shape.

    Raises:
        ValueError: split is neither "train" nor "test".
        FileNotFoundError: a photograph is missing from the package that ships it.
    """

    def __init__(self, split: str, seed: int = 0):
        check_choice("split", split, RECIPES)
        self.split, self.seed, self.recipe = split, seed, RECIPES[split]

    def __len__(self) -> int:
        """N, the number of objects: 120 to train with, 60 to test with."""
        return self.recipe.rows

    def __getitem__(self, index: SupportsIndex) -> ObjectRow:
        """Object `index`; IndexError outside 0..N-1."""
        index = as_index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"object {index} of {self.split} is not in 0..{len(self) - 1}")
        rng = np.random.default_rng([self.seed, 2 + sorted(RECIPES).index(self.split), index])
        families = list(self.recipe.shapes)
        family = families[(index + index // 10) % len(families)]  # out of step with the surfaces
        mask = _mask(rng, self.recipe.shapes[family])
        surface, image = _surface(rng, self.recipe, index, *mask.shape)
        name = f"{self.split}_{index:03d}_{family}_{surface}"
        return {"image": _finish(rng, image), "mask": mask, "name": name, "class_name": family}


@lru_cache
def photograph(name: str) -> np.ndarray:
    """The used part of a photograph of `PHOTOGRAPHS`, uint8 [H, W, 3], read from its package without importing it."""
    from PIL import Image

    package, path, part = PHOTOGRAPHS[name]
    spec = find_spec(package)
    file = Path(spec.origin).parent / path if spec and spec.origin else None
    if file is None or not file.is_file():
        raise FileNotFoundError(
            f"the bundled street objects need {path}, which ships with {package}, but {file or package} is missing; "
            f"reinstall {package} from PyPI, or give other objects"
        )
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB").crop(part))


def _mask(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """bool [h, w] of a shape, turned and stretched a little, cropped to it, its longest side drawn from LONGEST."""
    longest, turn, stretch = np.exp(rng.uniform(*np.log(LONGEST))), rng.normal(0, 0.2), rng.uniform(0.75, 1.3)
    fine = np.linspace(-1.05, 1.05, 128)
    y, x = fine[:, None], fine[None]
    x, y = (np.cos(turn) * x + np.sin(turn) * y) * stretch, (np.cos(turn) * y - np.sin(turn) * x) / stretch
    inside = _cropped(shape(rng, x, y))
    tall, wide = (max(6, round(n * longest / max(inside.shape))) for n in inside.shape)
    rows = ((np.arange(tall) + 0.5) * inside.shape[0] / tall).astype(int)
    columns = ((np.arange(wide) + 0.5) * inside.shape[1] / wide).astype(int)
    return _cropped(inside[rows[:, None], columns])


def _cropped(inside: np.ndarray) -> np.ndarray:
    """Without the empty rows and columns around."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _surface(rng, recipe: Recipe, index: int, height: int, width: int) -> tuple[str, np.ndarray]:
    """The name of a surface and its picture, float32 [h, w, 3] in 0..1; every so many rows it is one of the scene's."""
    from PIL import Image

    if int((index + 1) * recipe.scene_share) > int(index * recipe.scene_share):
        names = list(SCENE_TEXTURES)
        name = names[int(index * recipe.scene_share) % len(names)]
        return name, SCENE_TEXTURES[name](rng, height, width)
    name = recipe.photographs[rng.integers(len(recipe.photographs))]
    photo = Image.fromarray(photograph(name))
    crops = []
    for _ in range(3):  # the busiest of three, so that few objects are a piece of plain background
        scale = rng.uniform(1.5, 5) if max(height, width) < 40 else rng.uniform(1.5, 3.5)
        across, down = min(width * scale, photo.width), min(height * scale, photo.height)
        left, top = rng.uniform(0, photo.width - across), rng.uniform(0, photo.height - down)
        box = (left, top, left + across, top + down)
        crops.append(np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, box=box), np.float32) / 255)
    return name, max(crops, key=lambda crop: float(crop.std((0, 1)).sum()))


def _finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The light, blur and noise of the scenes, and a soft shading that gives the object some body; uint8."""
    from PIL import Image, ImageFilter

    height, width = image.shape[:2]
    turn = rng.uniform(-np.pi, 0)
    slope = np.cos(turn) * np.linspace(-1, 1, width) + np.sin(turn) * np.linspace(-1, 1, height)[:, None]
    warm = rng.normal(0, 0.06)
    light = rng.uniform(0.6, 1.15) * np.array([1 + warm, 1.0, 1 - warm])
    relief = 1 + rng.uniform(0.05, 0.2) * slope + 0.04 * field(rng, height, width, max(height, width) / 3)
    image = image * light * relief[..., None] + rng.uniform(0.003, 0.025) * rng.standard_normal(image.shape)
    picture = Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7)))
    return np.array(picture)
