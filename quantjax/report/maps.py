"""Score maps as pictures: an image, its label and its scores side by side, as one PNG inside the page."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from quantjax.checks import check_shape
from quantjax.rows import IGNORED

ANOMALY = 1
THUMBNAIL = 240  # pixels wide
GAP = 4  # pixels between thumbnails
ORANGE = (235, 104, 52)
COLOURS = "inferno"


class Example(NamedTuple):
    """One scene of an evaluation set and the score maps of some methods, higher = more outlying."""

    name: str
    """What the report calls the scene."""
    image: np.ndarray
    """[H, W, 3] uint8"""
    label: np.ndarray
    """[H, W] 0 inlier, 1 anomaly, 255 ignored"""
    scores: Mapping[str, np.ndarray]
    """Method -> [H, W]"""
    classes: np.ndarray | None = None
    """[H, W] predicted inlier classes, drawn beside the label where given"""


def score_limits(examples: Sequence[Example]) -> dict[str, tuple[float, float]]:
    """Return per method the 1st and 99th percentile of its scores over all examples: the ends of its colours.

    Raises ValueError for a map of another size than its image, and for NaN.
    """
    values: dict[str, list[np.ndarray]] = {}
    for example in examples:
        check_shape("image", example.image, "[H, W, 3]")
        size = f"[{example.image.shape[0]}, {example.image.shape[1]}]"
        check_shape(f"label of {example.name!r}", example.label, size)
        if example.classes is not None:
            check_shape(f"classes of {example.name!r}", example.classes, size)
        for method, score in example.scores.items():
            check_shape(f"scores[{method!r}] of {example.name!r}", score, size)
            if np.isnan(score).any():
                raise ValueError(f"scores[{method!r}] of {example.name!r} must not be NaN; see the network")
            values.setdefault(method, []).append(score[np.isfinite(score)])
    limits = {}
    for method, parts in values.items():
        finite = np.concatenate(parts)
        low, high = np.quantile(finite, [0.01, 0.99]) if finite.size else (0.0, 1.0)
        limits[method] = float(low), float(high)
    return limits


def columns(example: Example) -> list[str]:
    """The names of a strip's thumbnails, left to right."""
    return ["image", "label", *(["classes"] if example.classes is not None else []), *example.scores]


def strip(example: Example, limits: Mapping[str, tuple[float, float]], width: int = THUMBNAIL) -> str:
    """Return the thumbnails that `columns` names, side by side, as a data URI of one PNG; `limits` of score_limits."""
    height, full = example.image.shape[:2]
    width = min(width, full)
    size = max(round(height * width / full), 1), width
    image = _shrink(example.image, size)
    parts = [image, label_overlay(image, _nearest(example.label, size))]
    if example.classes is not None:
        parts.append(class_overlay(image, _nearest(example.classes, size)))
    for method, score in example.scores.items():
        parts.append(colour_map(_shrink(np.clip(score, *limits[method]), size), *limits[method]))
    gap = np.full((size[0], GAP, 3), 255, np.uint8)
    return png_uri(np.concatenate([piece for part in parts for piece in (gap, part)][1:], axis=1))


def colour_map(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map values [H, W] to uint8 [H, W, 3]: dark at low and under, bright at high and over."""
    from matplotlib import colormaps

    share = (np.asarray(values, np.float64) - low) / (high - low if high > low else 1.0)
    return colormaps[COLOURS](np.clip(share, 0.0, 1.0), bytes=True)[..., :3]


def label_overlay(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """image [H, W, 3] with anomalies in orange, ignored pixels in grey and the others in their paler own colours."""
    pale = (image.astype(np.float32) + 255.0) / 2.0
    grey = np.full_like(pale, 128.0)
    shown = np.where((label == ANOMALY)[..., None], np.array(ORANGE, np.float32), pale)
    return np.where((label == IGNORED)[..., None], grey, shown).astype(np.uint8)


def class_overlay(image: np.ndarray, classes: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """image [H, W, 3] under the colours of classes [H, W]; pixels of class 255 stay as they are."""
    colours = class_colours(int(classes.max(initial=0)) + 1)[classes]
    mixed = (1.0 - opacity) * image + opacity * colours
    return np.where((classes == IGNORED)[..., None], image, mixed).astype(np.uint8)


def class_colours(count: int) -> np.ndarray:
    """uint8 [K, 3]: hues a golden section apart, so that neighbours in the list differ and few classes do not crowd."""
    rows = [
        colorsys.hsv_to_rgb((0.61803399 * k) % 1.0, 0.75 - 0.25 * (k % 2), 0.95 - 0.3 * (k % 3)) for k in range(count)
    ]
    return (255.0 * np.array(rows).reshape(count, 3)).astype(np.uint8)


def png_uri(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3] as a data URI, for an <img> that needs no file beside the page."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _shrink(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Average over the pixels that a thumbnail's pixel covers: uint8 [H, W, 3], or numbers [H, W] as float32."""
    from PIL import Image

    pixels = values if values.dtype == np.uint8 else values.astype(np.float32)
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BOX))


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, across = (np.arange(n) * length // n for n, length in zip(size, labels.shape, strict=True))
    return np.asarray(labels)[rows[:, None], across[None, :]]
