"""Data sets that need no download: real digits as inliers, six kinds of outliers, all deterministic.

The digits are the 8x8 test part of the UCI optical digits that scikit-learn ships, upsampled; the photographs ship with
scikit-learn too; the letters are drawn with the DejaVu fonts that matplotlib ships. Gratings and noise are generated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIZE = 32
INLIER_CLASSES = 8  # digits 0..7; 8 and 9 are kept out of training
TEST_SHARE = 0.3
OUTLIER_ROWS = 400
# Capitals and minuscules that cannot be mistaken for a digit in any of the fonts.
_LETTERS = "ACEFHJKLMNPRTUVWXYadefhkmnprtuvwx"
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic")

Arrays = tuple[np.ndarray, np.ndarray | None]  # images [N, SIZE, SIZE, 3] uint8, labels [N] or None


def digits(split: str, size: int = SIZE) -> Arrays:
    """Digits 0-7, stratified 70/30 into train and test; rows are shuffled, so any tail of them holds every class."""
    pixels, labels = _digit_pixels()
    train, test = _stratified_rows(labels)
    rows = train if split == "train" else test
    return _enlarge(pixels[rows], size), labels[rows].astype(np.int32)


def digits_8_9(split: str, size: int = SIZE) -> Arrays:
    """The digits 8 and 9: the nearest outliers, same writers and scanner, in no training stage."""
    pixels, labels = _digit_pixels()
    return _enlarge(pixels[labels >= INLIER_CLASSES], size), None


def inverted_digits(split: str, size: int = SIZE) -> Arrays:
    """The inlier test digits as negatives, black on white."""
    images, _ = digits("test", size)
    return 255 - images, None


def letters(split: str, size: int = SIZE) -> Arrays:
    """Latin letters that resemble no digit, drawn in five fonts and fitted to 8x8 pixels as the digits are."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(str(folder / f"{name}.ttf"), 64) for name in _FONTS]
    rng = np.random.default_rng(3)
    glyphs = []
    for k in range(OUTLIER_ROWS):
        canvas, small = Image.new("L", (128, 128)), Image.new("L", (8, 8))
        stroke, width, font = int(rng.integers(1, 5)), int(rng.integers(5, 8)), fonts[rng.integers(len(fonts))]
        ImageDraw.Draw(canvas).text((64, 64), _LETTERS[k % len(_LETTERS)], 255, font, anchor="mm", stroke_width=stroke)
        glyph = canvas.crop(canvas.getbbox()).resize((width, 8), Image.Resampling.BOX)
        small.paste(glyph, ((8 - width) // 2, 0))
        glyphs.append(np.asarray(small))
    return _enlarge(np.stack(glyphs), size), None


def photo_crops(split: str, size: int = SIZE) -> Arrays:
    """Random crops, 32 to 128 pixels wide, of scikit-learn's two photographs (a temple and a flower), in colour."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(1)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    crops = []
    for k in range(OUTLIER_ROWS):
        photo, width = photos[k % len(photos)], int(rng.integers(32, 129))
        left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - width + 1))
        box = (left, top, left + width, top + width)
        crops.append(np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR, box=box)))
    return np.stack(crops), None


def gratings(split: str, size: int = SIZE) -> Arrays:
    """Generated sinusoidal stripes of random direction, period (4 to 16 pixels of 32), phase and two random colours."""
    rng = np.random.default_rng(2)
    angle, phase = rng.uniform(0, np.pi, OUTLIER_ROWS), rng.uniform(0, 2 * np.pi, OUTLIER_ROWS)
    cycles = 32 / rng.uniform(4, 16, OUTLIER_ROWS)
    dark, light = rng.uniform(0, 255, (2, OUTLIER_ROWS, 1, 1, 3))
    y, x = np.mgrid[:size, :size] / size
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * cycles[:, None, None] * along + phase[:, None, None])
    return (dark + wave[..., None] * (light - dark)).round().astype(np.uint8), None


def gaussian_noise(split: str, size: int = SIZE) -> Arrays:
    """Generated: every channel of every pixel from N(127.5, 64^2), clipped to 0..255."""
    noise = np.random.default_rng(4).normal(127.5, 64.0, (OUTLIER_ROWS, size, size, 3))
    return noise.round().clip(0, 255).astype(np.uint8), None


class Bundled(NamedTuple):
    """One bundled set."""

    make: Callable[[str], Arrays]
    """Split -> images, labels"""
    splits: tuple[str, ...] = ("test",)


INLIER = "digits"
SETS: dict[str, Bundled] = {
    INLIER: Bundled(digits, ("train", "test")),
    "digits_8_9": Bundled(digits_8_9),
    "letters": Bundled(letters),
    "inverted_digits": Bundled(inverted_digits),
    "photo_crops": Bundled(photo_crops),
    "gratings": Bundled(gratings),
    "gaussian_noise": Bundled(gaussian_noise),
}
BUNDLED_OUTLIERS = tuple(name for name in SETS if name != INLIER)


def _digit_pixels() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits: uint8 [N, 8, 8] in 0..255 (the originals count 0..16) and labels [N]."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8), labels


def _stratified_rows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled train and test rows of the inlier classes, each class cut at the same share."""
    rng = np.random.default_rng(0)
    by_class = [rng.permutation(np.flatnonzero(labels == k)) for k in range(INLIER_CLASSES)]
    cuts = [round(len(rows) * TEST_SHARE) for rows in by_class]
    test = np.concatenate([rows[:cut] for rows, cut in zip(by_class, cuts, strict=True)])
    train = np.concatenate([rows[cut:] for rows, cut in zip(by_class, cuts, strict=True)])
    return rng.permutation(train), rng.permutation(test)


def _enlarge(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [N, 8, 8] -> [N, size, size, 3], bilinear."""
    from PIL import Image

    resize = partial(Image.Image.resize, size=(size, size), resample=Image.Resampling.BILINEAR)
    grey = np.stack([np.asarray(resize(Image.fromarray(image))) for image in pixels])
    return np.repeat(grey[..., None], 3, axis=-1)
