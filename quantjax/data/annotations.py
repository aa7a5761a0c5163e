"""COCO's instances_*.json: which photographs of it show objects to paste, and what does not fit together in it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quantjax.data.outlines import rasterised

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
    annotations: tuple[Any, ...] = ()
    """The id of each outline, for messages"""


class Misfit(ValueError):
    """Annotations do not fit together; the message says where."""


def select(content: dict[str, Any], folder: Path, exclude: Sequence[str]) -> list[Photograph]:
    """The photographs of an instances_*.json that are large enough and show objects, but none of the excluded classes.

    They come in the order of their file names. An annotation without `area` counts the pixels of its outline.

    Raises:
        ValueError: exclude names no class of the file, or an image, category or annotation lacks a field, has one of
            another type, or names an image or category that the file does not list.
    """
    names = {
        _field(category, "id", "category"): category["name"] for category in _listed(content, "categories", "name")
    }
    if unknown := set(exclude) - set(names.values()):
        raise ValueError(f"exclude must name classes of COCO, got {', '.join(sorted(unknown))}; see its categories")
    images = _listed(content, "images", "file_name")
    known = {_field(image, "id", "image") for image in images}
    instances = defaultdict(list)
    for annotation in _listed(content, "annotations"):
        where = f"annotation {annotation.get('id')}"
        image, category = _field(annotation, "image_id", where), _field(annotation, "category_id", where)
        if image not in known or category not in names:
            what = f"image_id {image!r}" if image not in known else f"category_id {category!r}"
            raise Misfit(f"{where} names {what}, which the file does not list; repair it or remove the annotation")
        instances[image].append(annotation)
    chosen = []
    for image in sorted(images, key=lambda image: _inside(image["file_name"])):
        of_image = instances[image["id"]]
        shown = tuple(sorted({names[annotation["category_id"]] for annotation in of_image}))
        size = _side(image, "height"), _side(image, "width")
        if min(size) < MINIMUM_SIDE or set(shown) & set(exclude):
            continue
        if sum(_area(annotation, size) for annotation in of_image) >= MINIMUM_AREA:
            outlines = tuple(_outline(annotation) for annotation in of_image)
            ids = tuple(annotation.get("id") for annotation in of_image)
            chosen.append(Photograph(folder / _inside(image["file_name"]), size, outlines, shown, ids))
    return chosen


def _listed(content: dict[str, Any], entry: str, text: str | None = None) -> list[dict[str, Any]]:
    """The dicts of an entry, each with a string called `text`."""
    rows = content[entry]
    if not isinstance(rows, list):
        raise Misfit(f"{entry} must be a list, got {type(rows).__name__}; it is no COCO instances file")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or (text is not None and not isinstance(row.get(text), str)):
            wanted = "an object" if text is None else f"an object with the text {text!r}"
            raise Misfit(f"{entry}, number {number}, must be {wanted}, got {str(row)[:80]}; repair it")
    return rows


def _field(row: dict[str, Any], name: str, where: str) -> Any:
    """An id, a number or text; True is neither."""
    value = row.get(name)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise Misfit(f"{where} must have {name} as a whole number, got {value!r}; repair it or remove it")
    return value


def _side(image: dict[str, Any], name: str) -> int:
    value = image.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not 0 < value < 2**31:
        raise Misfit(f"image {image['file_name']} must have a {name} of whole pixels, got {value!r}; repair it")
    return int(value)


def _area(annotation: dict[str, Any], size: tuple[int, int]) -> float:
    value = annotation.get("area")
    if value is None:
        return _checked_area(annotation, size)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise Misfit(f"annotation {annotation.get('id')} must have an area in pixels, got {value!r}; remove the field")
    return float(value)


def _checked_area(annotation: dict[str, Any], size: tuple[int, int]) -> float:
    try:
        return float(rasterised(_outline(annotation), size).sum())
    except Misfit:
        raise
    except Exception as error:  # as in CocoObjects
        raise Misfit(
            f"annotation {annotation.get('id')} has a segmentation that is none ({error}); repair it"
        ) from error


def _outline(annotation: dict[str, Any]) -> Any:
    outline = annotation.get("segmentation")
    if not outline or not isinstance(outline, list | dict):
        raise Misfit(
            f"annotation {annotation.get('id')} has no segmentation, polygons or run lengths, got {str(outline)[:80]}; "
            "a box is no mask: remove the annotation or give it an outline"
        )
    return outline


def _inside(name: str) -> Path:
    """file_name below the folder of photographs: without that folder's own name, never above it."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return Path(*(parts[1:] if len(parts) > 1 and parts[0] in PARTS.values() else parts))


def read_annotations(file: Path) -> dict[str, Any]:
    """The content of an instances_*.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or lacks images, annotations or categories.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; unpack annotations_trainval2017.zip next to the photographs")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON ({error}); download it again") from error
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise ValueError(f"{file} has no entry {', '.join(sorted(missing))}; it is no COCO instances file")
    return content
