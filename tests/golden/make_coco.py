"""Record what pycocotools makes of run lengths and polygons.

    python tests/golden/make_coco.py

Needs pycocotools; writes tests/golden/coco.npz.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from pycocotools import mask

SIZE = (60, 75)


def blobs(rng: np.random.Generator) -> np.ndarray:
    """Random ellipses, so that runs are long and short."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = np.zeros(SIZE, bool)
    for cy, cx, ry, rx in rng.uniform((0, 0, 1, 1), (60, 75, 15, 25), (4, 4)):
        inside |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    return inside


def polygon(rng: np.random.Generator, corners: int) -> np.ndarray:
    """Around the middle, star-shaped, partly outside the image."""
    turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(10, 40, corners)
    return np.stack([37 + radius * np.cos(turns), 30 + radius * np.sin(turns)], 1).round(2)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    masks = np.stack([blobs(rng) for _ in range(12)] + [np.zeros(SIZE, bool), np.ones(SIZE, bool)])
    texts = [mask.encode(np.asfortranarray(m.astype(np.uint8)))["counts"].decode() for m in masks]
    polygons = np.stack([polygon(rng, 9) for _ in range(20)])
    filled = [mask.decode(mask.frPyObjects([p.reshape(-1).tolist()], *SIZE))[..., 0] > 0 for p in polygons]
    np.savez_compressed(
        Path(__file__).with_name("coco.npz"),
        origin=f"pycocotools {version('pycocotools')}, make_coco.py",
        masks=masks,
        texts=np.array(texts),
        polygons=polygons,
        filled=np.stack(filled),
    )
