"""COCO photographs (Lin et al. 2014) as objects: the union of all instance masks of one photograph.

The pool of UEM and its predecessors (Chan et al., ICCV 2021): every photograph that shows an excluded class is left
out, both sides must have at least 480 pixels, all other instances, crowds included, are one mask.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from quantjax.data.cutouts import MaskedImages, Objects, cropped
from quantjax.data.driving import images_in
from quantjax.data.images import read_image
from quantjax.rows import ObjectRow

MINIMUM_SIDE = 480
MINIMUM_AREA = 32  # pixels of all objects together; thinner outlines may hold no pixel's centre
PARTS = {"train": "train2017", "test": "val2017"}


class Photograph(NamedTuple):
    """One photograph and the outlines in it, as the annotations give them."""

    file: Path
    size: tuple[int, int]
    """H, W"""
    outlines: tuple[Any, ...]
    """Lists of polygons, or run lengths {"counts", "size"}"""
    class_names: tuple[str, ...]


class CocoObjects:
    """Photographs with their instances' union mask, rasterised when asked for."""

    def __init__(self, photographs: Sequence[Photograph]):
        self.photographs = list(photographs)

    def __len__(self) -> int:
        """N, the number of photographs."""
        return len(self.photographs)

    def __getitem__(self, index: SupportsIndex) -> ObjectRow:
        """Photograph `index`, cropped to its objects; ValueError when its size is not the one of its annotations."""
        file, size, outlines, names = self.photographs[index]
        image = read_image(file)
        if image.shape[:2] != size:
            raise ValueError(
                f"{file} must be {size[0]} x {size[1]}, as its annotations say, "
                f"got {image.shape[0]} x {image.shape[1]}; download it again"
            )
        mask = np.zeros(size, bool)
        for outline in outlines:
            mask |= rasterised(outline, size)
        return cropped(image, mask, file.stem, ", ".join(names))


def coco_objects(folder: Path, split: str, exclude: Sequence[str]) -> Objects:
    """`train2017` (split "train") or `val2017` ("test") with `annotations/instances_*.json` beside.

    Where masks were prepared (`annotations/ood_seg_train2017/ID.png`, 0 and 254) those are read instead: `exclude` was
    decided when they were made.

    Raises:
        FileNotFoundError: annotations or photographs are missing.
        ValueError: the annotations are unreadable, `exclude` names no COCO class, or no photograph is left.
    """
    part = PARTS[split]
    masks = images_in(folder / "annotations" / f"ood_seg_{part}")
    photographs = {file.stem: file for file in images_in(folder / part)}
    if masks:
        _all_there(folder / part, [mask.stem for mask in masks], photographs)
        return MaskedImages([(photographs[mask.stem], mask) for mask in masks], [""] * len(masks))
    content = _read_annotations(folder / "annotations" / f"instances_{part}.json")
    chosen = select(content, folder / part, exclude)
    if not chosen:
        raise ValueError(
            f"{folder / part} has no photograph with an object left after leaving out {', '.join(exclude)} and sides "
            f"under {MINIMUM_SIDE} pixels; exclude fewer classes"
        )
    _all_there(folder / part, [photograph.file.stem for photograph in chosen], photographs)
    return CocoObjects(chosen)


def select(content: dict[str, Any], folder: Path, exclude: Sequence[str]) -> list[Photograph]:
    """The photographs of an instances_*.json that are large enough and show objects, but none of the excluded classes.

    They come in the order of their file names.
    """
    names = {category["id"]: category["name"] for category in content["categories"]}
    if unknown := set(exclude) - set(names.values()):
        raise ValueError(f"exclude must name classes of COCO, got {', '.join(sorted(unknown))}; see its categories")
    instances = defaultdict(list)
    for annotation in content["annotations"]:
        instances[annotation["image_id"]].append(annotation)
    chosen = []
    for image in sorted(content["images"], key=lambda image: image["file_name"]):
        of_image = instances[image["id"]]
        shown = tuple(sorted({names[annotation["category_id"]] for annotation in of_image}))
        size = image["height"], image["width"]
        area = sum(annotation["area"] for annotation in of_image)
        if area >= MINIMUM_AREA and min(size) >= MINIMUM_SIDE and not set(shown) & set(exclude):
            outlines = tuple(annotation["segmentation"] for annotation in of_image)
            chosen.append(Photograph(folder / image["file_name"], size, outlines, shown))
    return chosen


def rasterised(outline: Any, size: tuple[int, int]) -> np.ndarray:
    """An annotation's `segmentation` as a mask bool [H, W]: a list of polygons, or run lengths.

    Polygons hold x, y alternately with pixel i reaching from i to i + 1. Run lengths count down the columns, first the
    pixels outside; they are a list, or text in COCO's compressed form.
    """
    if isinstance(outline, dict):
        counts = outline["counts"]
        runs = decompressed(counts) if isinstance(counts, str) else counts
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        if inside.size != size[0] * size[1]:
            raise ValueError(f"run lengths must cover {size[0]} x {size[1]} pixels, got {inside.size}")
        return inside.reshape(size[::-1]).T
    inside = np.zeros(size, bool)
    for polygon in outline:
        inside |= filled(np.asarray(polygon, np.float64).reshape(-1, 2), size)
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


def _read_annotations(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; unpack annotations_trainval2017.zip next to the photographs")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}); download it again") from error
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise ValueError(f"{file} has no entry {', '.join(sorted(missing))}; it is no COCO instances file")
    return content


def _all_there(folder: Path, wanted: Sequence[str], found: dict[str, Path]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(wanted)} photographs, the first is {missing[0]}; unpack it again"
        )
