"""Street scenes with one label per pixel: the source that reads image and label files in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, SupportsIndex

import numpy as np

from quantjax.data.images import read_image
from quantjax.data.label_files import read_values
from quantjax.rows import SceneRow

UNKNOWN = -1  # in a table: a value the publisher does not use


class Scenes(Protocol):
    """What `open_scenes` returns and what training and evaluation take."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K inlier classes; empty for an evaluation set."""
        ...

    def __len__(self) -> int:
        """N, the number of scenes."""
        ...

    def __getitem__(self, index: SupportsIndex, /) -> SceneRow:
        """Scene `index`, decoded."""
        ...


class Pair(NamedTuple):
    """The two files of one scene."""

    image: Path
    """Of the picture."""
    label: Path
    """Of its label, one value per pixel."""
    name: str
    """Of the scene in tables and reports."""


def table(values: Mapping[int, int]) -> np.ndarray:
    """Lookup [256] int16 from the values in label files to labels; all other values are UNKNOWN."""
    lookup = np.full(256, UNKNOWN, np.int16)
    lookup[list(values)] = list(values.values())
    return lookup


class ScenePairs:
    """Scenes in pairs of files, decoded when asked for, as SceneRow.

    lookup [256] maps file values to labels (see `table`). With `height` every scene is resized to that many rows, its
    width in proportion.
    """

    def __init__(
        self, pairs: Sequence[Pair], lookup: np.ndarray, class_names: Sequence[str] = (), height: int | None = None
    ):
        if height is not None and height < 1:
            raise ValueError(f"height must be at least 1, got {height}; leave it out to keep the size of the files")
        self.pairs = list(pairs)
        self.lookup = lookup
        self.class_names = tuple(class_names)
        self.height = height

    def __len__(self) -> int:
        """N, the number of scenes."""
        return len(self.pairs)

    def __getitem__(self, index: SupportsIndex) -> SceneRow:
        """Decode scene `index`.

        Raises:
            ValueError: a file cannot be decoded, the label has another size than the image, or it holds a value that
                the data set does not use.
        """
        image_file, label_file, name = self.pairs[index]
        image, values = read_image(image_file, upright=False), read_values(label_file)  # as labels count pixels
        if values.shape != image.shape[:2]:
            raise ValueError(
                f"{label_file} must have the size of its image, {_size(image)}, got {_size(values)}; "
                f"replace it with the label that belongs to {image_file.name}"
            )
        label = self.lookup[values]
        if label.min() < 0:
            self._refuse(label_file, values)
        row: SceneRow = {"image": image, "label": label.astype(np.uint8), "name": name}
        return row if self.height is None else resized(row, self.height)

    def _refuse(self, file: Path, values: np.ndarray) -> None:
        unknown = np.unique(values[self.lookup[values] < 0]).tolist()
        known = np.flatnonzero(self.lookup >= 0).tolist()
        raise ValueError(
            f"{file} must hold only the label values {_ranges(known)}, got also {_ranges(unknown)}; check that it is "
            "the label file of this data set and not a colour or instance map"
        )


def resized(row: SceneRow, height: int) -> SceneRow:
    """The scene at another height, its width in proportion: the image bilinear (antialiased), the label nearest."""
    size = row["label"].shape
    if size[0] == height:
        return row
    image, label = resize_box(row["image"], row["label"], (0.0, 0.0, *size), at_height(size, height))
    return {"image": image, "label": label, "name": row["name"]}


def resized_image(image: np.ndarray, height: int) -> np.ndarray:
    """The image uint8 [H, W, 3] of `resized`, for a scene that has no label."""
    return resized({"image": image, "label": image[..., 0], "name": ""}, height)["image"]


def at_height(size: tuple[int, ...], height: int) -> tuple[int, int]:
    """The size (H, W) in pixels of a scene that is resized to a height, its width in proportion."""
    return height, max(round(size[1] * height / size[0]), 1)


def resize_box(
    image: np.ndarray, label: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resize the part (top, left, bottom, right) of image [H, W, 3] and label [H, W] to size (h, w), in one go.

    Corners may lie between pixels. The image is resized bilinearly (antialiased), the label takes the nearest pixel, so
    no value appears that was not there.
    """
    from PIL import Image

    top, left, bottom, right = box
    corners, wanted = (left, top, right, bottom), (size[1], size[0])
    return (
        np.asarray(Image.fromarray(image).resize(wanted, Image.Resampling.BILINEAR, corners)),
        np.asarray(Image.fromarray(label).resize(wanted, Image.Resampling.NEAREST, corners)),
    )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"


def _ranges(values: Sequence[int]) -> str:
    """`0..11, 255` for sorted whole numbers."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in parts)
