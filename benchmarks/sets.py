"""CIFAR-10 and whatever outlier sets lie beside it, read without grain or tensorflow-datasets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

INLIER = "cifar10"
MOST = 10_000  # rows of an outlier set


def read(name: str, folder: Path, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and labels int32 [N] of a set that quantjax.data knows, or of a folder's name."""
    from quantjax.data.sources import open_source

    source = open_source(name, folder, split)
    images = getattr(source, "images", None)
    if images is None or images.shape[1:] != (32, 32, 3):
        images = _decoded(source)
    return images, np.asarray(getattr(source, "labels"))  # noqa: B009, not every source promises it


def _decoded(source: Any) -> np.ndarray:
    """All images at 32 pixels, at most MOST of them, in a fixed random order."""
    from quantjax.data.images import fit

    rows = np.random.default_rng(0).permutation(len(source))[:MOST]
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda row: fit(source[int(row)]["image"], 32), rows)))


def outliers(folder: Path) -> dict[str, np.ndarray]:
    """Every other set under `folder`, by the name it opens under; what is no set of images is said and left out."""
    from quantjax.data.sources import KNOWN

    found: dict[str, np.ndarray] = {}
    taken = {part.split("/")[0] for part in KNOWN[INLIER].folders}
    for name in KNOWN:
        if name != INLIER and (images := _try(name, folder, quiet=True)) is not None:
            found[name] = images
            taken |= {part.split("/")[0] for part in KNOWN[name].folders}
    for path in sorted(folder.iterdir()):
        known = path.name in taken or path.name.startswith(".")
        if not known and (path.is_dir() or path.suffix == ".npz"):
            images = _try(path.name, folder)
            found |= {} if images is None else {path.stem: images}
    return found


def _try(name: str, folder: Path, quiet: bool = False) -> np.ndarray | None:
    try:
        return read(name, folder)[0][:MOST]
    except (FileNotFoundError, ValueError) as error:
        if not quiet:
            print(f"no outlier set: {error}", flush=True)
        return None
