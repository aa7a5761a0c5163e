"""Objects cut out of photographs by their masks: the row, and sources over folders of images with masks.

A row is one object (or all objects of one photograph) cropped to the bounding box of its mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, SupportsIndex

import numpy as np

from quantjax.data.images import decoded, read_image
from quantjax.data.label_files import read_mask
from quantjax.data.listing import images_in
from quantjax.rows import ObjectRow

OPAQUE = 128  # alpha from which a pixel belongs to the object


class Objects(Protocol):
    """What `open_objects` returns and what the mix takes."""

    def __len__(self) -> int:
        """N, the number of objects."""
        ...

    def __getitem__(self, index: SupportsIndex, /) -> ObjectRow:
        """Object `index`, decoded and cropped."""
        ...


class Cutouts:
    """Images with an alpha channel (PNG or WebP), one object each; the class name follows the first underscore."""

    def __init__(self, files: Sequence[Path]):
        self.files = list(files)

    def __len__(self) -> int:
        """N, the number of objects."""
        return len(self.files)

    def __getitem__(self, index: SupportsIndex) -> ObjectRow:
        """Decode object `index`; ValueError when the file has no alpha channel or no opaque pixel."""
        file = self.files[index]
        pixels = _read_rgba(file)
        return cropped(pixels[..., :3], pixels[..., 3] >= OPAQUE, file.stem, class_of(file))


class MaskedImages:
    """Photographs with a mask file each, non-zero on the objects; upright as in `images.read_image`."""

    def __init__(
        self, pairs: Sequence[tuple[Path, Path]], class_names: Sequence[str] | None = None, *, upright: bool = True
    ):
        self.pairs, self.upright = list(pairs), upright
        self.class_names = [class_of(image) for image, _ in pairs] if class_names is None else list(class_names)

    def __len__(self) -> int:
        """N, the number of photographs."""
        return len(self.pairs)

    def __getitem__(self, index: SupportsIndex) -> ObjectRow:
        """Decode photograph `index`; ValueError when the mask has another size or is empty."""
        image_file, mask_file = self.pairs[index]
        image, mask = read_image(image_file, upright=self.upright), read_mask(mask_file)
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"{mask_file} must have the size of its image, {image.shape[0]} x {image.shape[1]}, "
                f"got {mask.shape[0]} x {mask.shape[1]}; replace it with the mask that belongs to {image_file.name}"
            )
        return cropped(image, mask, image_file.stem, self.class_names[index.__index__()])


def cropped(image: np.ndarray, mask: np.ndarray, name: str, class_name: str) -> ObjectRow:
    """The object of mask bool [H, W] in image [H, W, 3], cut to its bounding box; ValueError when the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ValueError(f"the mask of {name} marks no pixel; remove it from the set or repair its mask")
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return {"image": image[box], "mask": mask[box], "name": name, "class_name": class_name}


def folder_objects(folder: Path, split: str, exclude: Sequence[str] = ()) -> Objects:
    """Cut-outs with alpha lying in `folder`, or photographs in `folder/images` with `folder/masks/NAME.png`.

    The first two thirds by name are "train", the rest "test"; classes named in `exclude` are left out after that, so
    that the halves never move.

    Raises:
        ValueError: no object is left.
        FileNotFoundError: a photograph is without its mask.
    """
    paired = (folder / "images").is_dir()
    files = _part(images_in(folder / "images" if paired else folder), split)
    files = [file for file in files if class_of(file) not in exclude]
    if not files:
        raise ValueError(
            f"{folder} holds no object for split {split!r}; put images with an alpha channel into it, or photographs "
            "into images/ and their masks into masks/"
        )
    if not paired:
        return Cutouts(files)
    pairs = [(file, folder / "masks" / f"{file.stem}.png") for file in files]
    if missing := [mask for _, mask in pairs if not mask.is_file()]:
        raise FileNotFoundError(f"an image without its mask: {missing[0]} is missing ({len(missing)} in all)")
    return MaskedImages(pairs)


def _part(files: Sequence[Path], split: str) -> Sequence[Path]:
    border = 2 * len(files) // 3
    return files[:border] if split == "train" else files[border:]


def class_of(file: Path) -> str:
    """`n02099601_golden_retriever.webp` -> "golden retriever"; without an underscore the whole stem."""
    return file.stem.partition("_")[2].replace("_", " ") or file.stem


def _read_rgba(file: Path) -> np.ndarray:
    image = decoded(file, upright=True)
    if not image.has_transparency_data:
        raise ValueError(
            f"{file} cannot be read as a cut-out (it has no alpha channel, so it has no mask); replace it or remove it"
        )
    return np.asarray(image.convert("RGBA"))
