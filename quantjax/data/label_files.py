"""Label files and masks: one whole number per pixel, in whatever image format it is kept.

A colour map has a colour per class instead of a number: it is refused, and named where its colours are known.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from quantjax.data.images import decoded


class ColourMap(NamedTuple):
    """The colours in which a publisher draws labels, and where the numbers are instead."""

    name: str
    colours: frozenset[tuple[int, int, int]]
    remedy: str


def _colours(text: str) -> frozenset[tuple[int, int, int]]:
    """`807060 ...`, hexadecimal."""
    return frozenset((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in text.split())


COLOUR_MAPS = (
    ColourMap(
        "RoadAnomaly",  # read off its labels_semantic_color.png
        _colours("000000 ff4500"),
        "take labels_semantic.png beside it",
    ),
    ColourMap(
        "SegmentMeIfYouCan",  # its labels_semantic_color.png: inlier, anomaly, void, obstacle track's background
        _colours("90ee90 ff6600 000000 ffffff"),
        "take NAME_labels_semantic.png beside it",
    ),
    ColourMap(
        "CamVid",  # Brostow et al. 2009, in the 11 classes and "unlabelled" of SegNet
        _colours("808080 800000 c0c080 804080 3c28de 000080 808000 c08080 404080 400080 404000 0080c0 000000"),
        "take SegNet's trainannot/, valannot/ and testannot/, or write the class numbers 0..11 in its place",
    ),
    ColourMap(
        "Cityscapes",  # Cordts et al. 2016, cityscapesScripts' labels.py
        _colours(
            "804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 "
            "003c64 005064 0000e6 770b20 000000 6f4a00 510051 faaaa0 e6968c b4a5b4 966464 96785a 00005a 00006e"
        ),
        "take ..._gtFine_labelIds.png beside it, or write labelTrainIds with cityscapesScripts' "
        "createTrainIdLabelImgs.py",
    ),
)


def read_values(path: Path) -> np.ndarray:
    """Decode a label file to uint8 [H, W]: palette indices as they are, grey of any depth, or equal colour channels.

    Raises:
        ValueError: the file is no image, is cut short, holds fractions, NaN or values outside 0..255, or is in colour
            or transparent.
    """
    image = decoded(path)
    values = np.asarray(image)
    if values.ndim == 3:
        values = _single_channel(path, image.mode, values)
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.floor(values))).all():
        some = values[~(np.isfinite(values) & (values == np.floor(values)))][0]
        raise ValueError(f"{path} must hold whole numbers, one label per pixel, got {some}; round or repair it")
    if values.dtype.kind != "b" and (values.min() < 0 or values.max() > 255):
        raise ValueError(
            f"{path} must hold labels in 0..255, got {values.min()}..{values.max()}; write them as 8-bit grey"
        )
    return values.astype(np.uint8)


def read_mask(path: Path) -> np.ndarray:
    """Decode a mask to bool [H, W]: True where the value, or any colour channel, is not 0. Raises as `read_values`."""
    image = decoded(path)
    if image.mode in ("RGB", "RGBA"):
        values = np.asarray(image)
        _check_opaque(path, image.mode, values)
        return np.asarray(values[..., :3].any(axis=-1))
    return read_values(path) > 0


def _single_channel(path: Path, mode: str, values: np.ndarray) -> np.ndarray:
    _check_opaque(path, mode, values)
    if mode in ("RGB", "RGBA") and (values[..., :1] != values[..., 1:3]).any():
        colours = {(r, g, b) for r, g, b in np.unique(values[..., :3].reshape(-1, 3), axis=0).tolist()}
        known = next((known for known in COLOUR_MAPS if colours <= known.colours), None)
        what, remedy = (
            (f"the colour map of {known.name}", known.remedy)
            if known
            else (f"in colour ({len(colours)} colours)", "write the number of each pixel's class as 8-bit grey")
        )
        raise ValueError(f"{path} must hold one number per pixel, but is {what}; {remedy}")
    if mode not in ("RGB", "RGBA", "LA"):
        raise ValueError(f"{path} must be grey, a palette or RGB, got mode {mode}; write it as 8-bit grey")
    return values[..., 0]


def _check_opaque(path: Path, mode: str, values: np.ndarray) -> None:
    """Raise ValueError where pixels are transparent: whether they hold a label, nobody says."""
    if mode.endswith("A") and values[..., -1].min() < 255:
        raise ValueError(
            f"{path} has transparent pixels, whose labels are unclear; write one number per pixel as 8-bit grey"
        )
