"""Surfaces of the bundled street scenes, drawn by numpy: asphalt, paving, facades, foliage, sky, car paint.

Every texture is a function (rng, height, width) -> float32 [H, W, 3] in 0..1, sizes in pixels. Their colours overlap on
purpose (grey walls, grey cars, grey asphalt), so that a colour by itself says little about what is seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Texture = Callable[[np.random.Generator, int, int], np.ndarray]
Palette = tuple[tuple[float, float, float], ...]

_WALLS: Palette = (
    (0.72, 0.62, 0.5), (0.62, 0.34, 0.26), (0.76, 0.74, 0.7), (0.5, 0.5, 0.52), (0.8, 0.68, 0.42),
    (0.56, 0.62, 0.66), (0.46, 0.3, 0.22), (0.82, 0.8, 0.74), (0.7, 0.48, 0.42), (0.4, 0.44, 0.46),
)  # fmt: skip
_PAINTS: Palette = (
    (0.85, 0.85, 0.86), (0.1, 0.1, 0.12), (0.5, 0.52, 0.54), (0.62, 0.1, 0.1), (0.12, 0.2, 0.45),
    (0.32, 0.34, 0.36), (0.7, 0.66, 0.55), (0.1, 0.3, 0.22), (0.8, 0.5, 0.12), (0.24, 0.5, 0.62),
)  # fmt: skip
_LEAVES: Palette = (
    (0.2, 0.34, 0.12), (0.3, 0.42, 0.16), (0.14, 0.26, 0.13), (0.4, 0.44, 0.18), (0.24, 0.36, 0.22),
    (0.5, 0.36, 0.14),  # autumn
)  # fmt: skip


def field(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth noise of about unit deviation, float32 [H, W]; `cell` is the size in pixels of its bumps."""
    from PIL import Image

    grid = rng.standard_normal((int(height / cell) + 3, int(width / cell) + 3), dtype=np.float32)
    left, top = rng.random(2)
    box = (left, top, left + width / cell, top + height / cell)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box=box)) * 1.23


def shade(colour: np.ndarray, *fields: np.ndarray) -> np.ndarray:
    """A colour [3] made brighter or darker by fields [H, W] of small numbers, float32 [H, W, 3] in 0..1."""
    gain = sum(fields, start=np.float32(1))
    return np.clip(np.asarray(gain, np.float32)[..., None] * np.asarray(colour, np.float32), 0, 1)


def pick(rng: np.random.Generator, palette: Palette, spread: float) -> np.ndarray:
    """A colour [3] near one of the palette's, brightness and channels varied by `spread`."""
    colour = np.array(palette[rng.integers(len(palette))])
    return np.clip(
        colour * rng.uniform(1 - 2 * spread, 1 + 2 * spread) * (1 + rng.normal(0, spread / 2, 3)), 0.03, 0.95
    )


def asphalt(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Grey grain with lighter and darker patches and, at times, a few tarred joints."""
    colour = rng.uniform(0.22, 0.5) * (1 + rng.normal(0, 0.03, 3) + np.array([0.02, 0, -0.02]) * rng.normal())
    grain = 0.09 * rng.standard_normal((height, width), dtype=np.float32)
    joints = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(0, 3)):
        row = rng.uniform(0, height) + 0.02 * height * field(rng, 1, width, 8)[0]
        joints -= 0.3 * (np.abs(np.arange(height)[:, None] - row) < 0.9)
    return shade(colour, grain, 0.1 * field(rng, height, width, max(height, width) / 4), joints)


def paving(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Slabs in rows, each a little different, with dark joints; sometimes reddish."""
    colour = rng.uniform(0.4, 0.68) * np.array([1.0, rng.uniform(0.86, 1.0), rng.uniform(0.74, 0.98)])
    slab = max(4, round(min(height, width) / rng.uniform(5, 11)))
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    x = x + (y // slab % 2) * (slab // 2)
    tones = rng.normal(0, 0.07, (height // slab + 2, width // slab + 3)).astype(np.float32)
    joints = -0.3 * ((y % slab == 0) | (x % slab == 0)).astype(np.float32)
    grain = 0.05 * rng.standard_normal((height, width), dtype=np.float32)
    return shade(colour, tones[y // slab, x // slab], joints, grain, 0.06 * field(rng, height, width, height / 3))


def facade(rng: np.random.Generator, height: int, width: int, storey: float = 0.0) -> np.ndarray:
    """A wall with rows of windows, ledges and at times a shop floor; `storey` is a floor in pixels (0: a few fit)."""
    storey = storey or height / rng.integers(2, 5)
    bay = storey * rng.uniform(0.6, 1.3)
    y, x = (height - 0.5 - np.arange(height)) / storey, (np.arange(width) + 0.5) / bay
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    sill, lintel, jamb = rng.uniform(0.2, 0.36), rng.uniform(0.74, 0.88), rng.uniform(0.14, 0.3)
    tall, wide = y - row, np.abs(x - column - 0.5)
    window = ((tall > sill) & (tall < lintel))[:, None] & (wide < 0.5 - jamb)
    frame = ((tall > sill - 0.06) & (tall < lintel + 0.06))[:, None] & (wide < 0.56 - jamb) & ~window
    wall = pick(rng, _WALLS, 0.1)
    grain = 0.04 * rng.standard_normal((height, width), dtype=np.float32)
    ledges = np.where(tall < 0.07, rng.uniform(-0.25, 0.2), 0)[:, None].astype(np.float32)
    image = shade(wall, grain, 0.07 * field(rng, height, width, height / 2), ledges)
    image[frame] = np.clip(wall * rng.uniform(0.6, 1.5), 0, 0.95)
    glass = rng.uniform(0.06, 0.45, (row.max() + 1, column.max() + 1, 1)) * np.array([0.85, 0.95, 1.1])
    panes = (glass[row] * (0.75 + 0.5 * tall)[:, None, None]).astype(np.float32)[:, column]
    if rng.random() < 0.4:  # the ground floor is shops: dark glass under a coloured band
        floor, band = (y < 0.7)[:, None] & (wide < 0.42), (y > 0.7) & (y < 0.92)
        image[band], window = pick(rng, _PAINTS, 0.1), np.where(y[:, None] < 1, floor, window)
    return np.where(window[..., None], panes, image)


def foliage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Leaves: clumps lit from above with dark gaps between, from yellow-green to dark, now and then autumn."""
    colour = pick(rng, _LEAVES, 0.12)
    size = max(height, width)
    clumps = 0.26 * field(rng, height, width, max(size / 7, 3))
    leaves = 0.2 * field(rng, height, width, max(size / 28, 1.6))
    image = shade(colour, clumps, leaves, 0.1 * rng.standard_normal((height, width), dtype=np.float32))
    lit = np.clip(clumps + leaves, 0, 1)[..., None]
    return np.clip(image + lit * np.array([0.14, 0.14, 0.02], np.float32), 0, 1)


def sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """From a deeper top to a pale horizon, blue to grey to evening, with clouds of any cover."""
    grey, dusk = rng.random() ** 1.5, rng.random() < 0.2
    top = (1 - grey) * np.array([0.3, 0.5, 0.82]) + grey * np.array([0.66, 0.69, 0.73])
    low = np.array([0.95, 0.78, 0.6]) if dusk else (1 - grey) * np.array([0.75, 0.84, 0.92]) + grey * 0.84
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** rng.uniform(0.7, 1.6)
    image = np.broadcast_to(top * rng.uniform(0.75, 1.1) * (1 - down) + low * down, (height, width, 3))
    puffs = field(rng, height, width, width / 5) + 0.5 * field(rng, height, width, width / 14)
    cover = np.clip((puffs + rng.uniform(-2.2, 0.8)) * 0.7, 0, 0.9)[..., None]
    cloud = rng.uniform(0.72, 1.0) * (1 - 0.12 * np.clip(puffs, 0, 1.5))[..., None]
    return np.clip(image * (1 - cover) + cloud * cover, 0, 1).astype(np.float32)


def car_paint(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Lacquer: one colour, a bright band where it mirrors the sky, darker towards the ground."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    band = rng.uniform(0.15, 0.45) * np.exp(-(((y - rng.uniform(0.1, 0.5)) / rng.uniform(0.05, 0.15)) ** 2))
    gloss = shade(pick(rng, _PAINTS, 0.12), band - 0.35 * y + 0.1, 0.04 * field(rng, height, width, width / 2))
    return np.clip(gloss + 0.2 * band[..., None], 0, 1)


def car_colour(rng: np.random.Generator) -> np.ndarray:
    """A car's colour [3]."""
    return pick(rng, _PAINTS, 0.12)


SCENE_TEXTURES: dict[str, Texture] = {
    "asphalt": asphalt,
    "paving": paving,
    "facade": facade,
    "foliage": foliage,
    "sky": sky,
    "car_paint": car_paint,
}
