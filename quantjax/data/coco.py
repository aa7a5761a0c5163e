"""COCO photographs (Lin et al. 2014) as objects: the union of all instance masks of one photograph.

The pool of UEM and its predecessors (Chan et al., ICCV 2021): every photograph that shows an excluded class is left
out, both sides must have at least 480 pixels, all other instances, crowds included, are one mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from quantjax.data.annotations import MINIMUM_SIDE, PARTS, Photograph, read_annotations, select
from quantjax.data.cutouts import MaskedImages, Objects, cropped
from quantjax.data.images import read_image
from quantjax.data.listing import images_in
from quantjax.data.outlines import rasterised
from quantjax.rows import ObjectRow


class CocoObjects:
    """Photographs with their instances' union mask, rasterised when asked for."""

    def __init__(self, photographs: Sequence[Photograph]):
        self.photographs = list(photographs)

    def __len__(self) -> int:
        """N, the number of photographs."""
        return len(self.photographs)

    def __getitem__(self, index: SupportsIndex) -> ObjectRow:
        """Photograph `index`, cropped to its objects; ValueError when its size is not the one of its annotations."""
        file, size, outlines, names, ids = self.photographs[index]
        image = read_image(file, upright=False)  # annotations count the pixels as they are stored
        if image.shape[:2] != size:
            raise ValueError(
                f"{file} must be {size[0]} x {size[1]}, as its annotations say, "
                f"got {image.shape[0]} x {image.shape[1]}; download it again"
            )
        mask = np.zeros(size, bool)
        for annotation, outline in itertools.zip_longest(ids, outlines):
            try:
                mask |= rasterised(outline, size)
            except Exception as error:  # what is no outline fails in any way
                raise ValueError(
                    f"{file}: the segmentation of annotation {annotation} is neither polygons nor run lengths of this "
                    f"photograph ({error}); repair it in the annotations or leave it out"
                ) from error
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
        return MaskedImages([(photographs[mask.stem], mask) for mask in masks], [""] * len(masks), upright=False)
    file = folder / "annotations" / f"instances_{part}.json"
    try:
        chosen = select(read_annotations(file), folder / part, exclude)
    except ValueError as error:
        raise ValueError(str(error) if str(file) in str(error) else f"{file}: {error}") from None
    if not chosen:
        raise ValueError(
            f"{folder / part} has no photograph with an object left after leaving out {', '.join(exclude)} and sides "
            f"under {MINIMUM_SIDE} pixels; exclude fewer classes"
        )
    chosen = [_located(photograph, photographs) for photograph in chosen]
    _all_there(folder / part, [p.file.stem for p in chosen], {p.file.stem: p.file for p in chosen if p.file.is_file()})
    return CocoObjects(chosen)


def _located(photograph: Photograph, found: dict[str, Path]) -> Photograph:
    """With the file that is there: where file_name says, else directly in the folder, under any suffix."""
    file = photograph.file
    return photograph if file.is_file() else photograph._replace(file=found.get(file.stem, file))


def _all_there(folder: Path, wanted: Sequence[str], found: dict[str, Path]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(wanted)} photographs, the first is {missing[0]}; unpack it again"
        )
