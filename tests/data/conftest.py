"""Writing small data sets in their publishers' layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def save(tmp_path):
    """Write an array to tmp_path/name as an image; the format follows the suffix, folders are made."""

    def write(name: str, array: np.ndarray) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lossless = {"lossless": True} if path.suffix == ".webp" else {}
        Image.fromarray(np.asarray(array)).save(path, **lossless)
        return path

    return write


@pytest.fixture
def picture(rng):
    """A random uint8 image [H, W, 3]."""

    def make(height: int = 6, width: int = 8) -> np.ndarray:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make
