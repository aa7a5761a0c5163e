"""Outlines of objects, as COCO's annotations give them -> masks: polygons, and run lengths in two spellings."""

from __future__ import annotations

from typing import Any

import numpy as np


def rasterised(outline: Any, size: tuple[int, int]) -> np.ndarray:
    """An annotation's `segmentation` as a mask bool [H, W]: a list of polygons, or run lengths.

    Polygons hold x, y alternately with pixel i reaching from i to i + 1. Run lengths count down the columns, first the
    pixels outside; they are a list, or text in COCO's compressed form.
    """
    if isinstance(outline, dict):
        counts = outline["counts"]
        runs = decompressed(counts) if isinstance(counts, str) else counts
        if sum(runs) != size[0] * size[1] or list(outline.get("size", size)) != list(size):
            given = outline.get("size", f"{sum(runs)} pixels")
            raise ValueError(f"run lengths must cover {size[0]} x {size[1]} pixels, got {given}")
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[::-1]).T
    inside = np.zeros(size, bool)
    for polygon in outline:
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        if not np.isfinite(corners).all():
            raise ValueError("a polygon has a corner that is NaN or infinite")
        inside |= filled(corners, size)
    return inside


def filled(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels [H, W] whose centre lies inside the polygon of `corners` [N, 2] (x, y), by the even-odd rule."""
    height, width = size
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    centres = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= centres) != (next_y[:, None] <= centres))
    slope = (next_x - x)[edge] / (next_y - y)[edge]
    crossing = x[edge] + (centres[row] - y[edge]) * slope
    crossings = np.zeros((height, width + 1), np.int64)
    np.add.at(crossings, (row, np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)), 1)
    return np.cumsum(crossings[:, :width], axis=1) % 2 == 1


def decompressed(text: str) -> list[int]:
    """Run lengths from COCO's text: five bits a character from "0" on, low bits first, the sixth says that more follow.

    Numbers are signed; from the fourth on each is the difference to the one two places before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - ord("0")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            signed = value - (1 << shift) if bits & 16 else value
            runs.append(signed + runs[-2] if len(runs) > 2 else signed)
            value = shift = 0
    return runs
