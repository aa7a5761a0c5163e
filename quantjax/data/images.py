"""One image at a time: any file or array -> uint8 RGB, resized and cropped as torchvision does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def is_image_name(path: Path) -> bool:
    """Whether a path is named like an image; hidden files (`.name`) are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def to_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] -> [H, W, 3]; grey is repeated, alpha is dropped."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 in 0..255, got {image.dtype}; convert with (x * 255).round().astype('uint8')"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(f"an image must have shape [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {list(image.shape)}")
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image file to uint8 [H, W, 3]; palettes are looked up, 16-bit grey keeps its high byte.

    Raises:
        ValueError: the file is no image, or is cut short.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            if file.mode.startswith("I"):
                return to_rgb((np.asarray(file).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            return np.array(file.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError(
            f"{path} is named like an image but is none; remove it from the folder or replace it"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be decoded ({error}); replace it with an intact copy or remove it") from error


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resize the short side to `size` (bilinear, antialiased), then cut the centre: uint8 [H, W, 3] -> [size, size, 3].

    Pixel for pixel torchvision's `Resize(size)` followed by `CenterCrop(size)` on a PIL image: the long side is rounded
    down, the crop's offset rounds half to even.
    """
    from PIL import Image

    height, width = image.shape[:2]
    short = min(height, width)
    if short != size:
        height, width = int(size * height / short), int(size * width / short)
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


def fit(image: Any, size: int) -> np.ndarray:
    """Any uint8 image -> RGB [size, size, 3]."""
    return resize_and_crop(to_rgb(image), size)
