"""Open a set of objects to paste into scenes, by name or from any folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from quantjax.checks import check_choice
from quantjax.data.coco import coco_objects
from quantjax.data.cutouts import Cutouts, MaskedImages, Objects, folder_objects
from quantjax.data.places import find_folder, find_path
from quantjax.rows import ObjectRow

__all__ = ["OBJECT_SETS", "OVERLAP", "Cutouts", "MaskedImages", "ObjectRow", "Objects", "open_objects"]

# COCO's names of classes that are inliers of driving sets; UEM's authors leave every photograph with one of them out.
OVERLAP = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "stop sign")
SPLITS = ("train", "test")


class ObjectSet(NamedTuple):
    """Where a set of objects is looked for, how it is read, and where it comes from."""

    folders: tuple[str, ...]
    markers: tuple[str, ...]
    read: Callable[[Path, str, Sequence[str]], Objects]
    """(folder, split, excluded class names) -> objects"""
    origin: str


_COCO_ORIGIN = "https://cocodataset.org/#download (train2017, val2017 and their annotations)"

OBJECT_SETS: dict[str, ObjectSet] = {
    "cutouts": ObjectSet(("cutouts",), ("*.webp", "*.png"), folder_objects, "your own folder of RGBA cut-outs"),
    "coco": ObjectSet(("coco", "COCO"), ("annotations",), coco_objects, _COCO_ORIGIN),
}
BUNDLED = "bundled"


def open_objects(name: str, data_dir: str | Path | None, split: str, exclude: Iterable[str] = OVERLAP) -> Objects:
    """A random-access source of objects, ObjectRow by index.

    Args:
        name: `bundled`, `coco`, `cutouts`, or a folder (absolute, or under data_dir): see `folder_objects`.
        data_dir: the folder that holds the published sets; not needed for the bundled one or an absolute folder.
        split: "train" or "test"; they share no photograph.
        exclude: class names that count as inliers; photographs that show one are left out. Of `coco` the whole
            photograph is left out, as UEM's authors do. Ignored by `bundled`.

    Raises:
        FileNotFoundError: nothing is there; the message says where it was looked for.
        ValueError: unknown split, unreadable annotations, or no object left.
    """
    check_choice("split", split, SPLITS)
    excluded = tuple(exclude)
    folder = find_objects(name, data_dir)
    if folder is None:
        return _open_bundled(split)
    read = OBJECT_SETS[name].read if name in OBJECT_SETS else folder_objects
    return read(folder, split, excluded)


def find_objects(name: str, data_dir: str | Path | None) -> Path | None:
    """The folder of a set of objects, None for the bundled one; name, data_dir and errors as in `open_objects`."""
    if name == BUNDLED:
        return None
    if name in OBJECT_SETS:
        known = OBJECT_SETS[name]
        return find_folder(name, data_dir, known.folders, known.markers, known.origin)
    return find_path(name, data_dir, wanted="set of objects", known=(*OBJECT_SETS, BUNDLED), folder=True)


def _open_bundled(split: str) -> Objects:
    from quantjax.bundled import street_objects

    return cast(Objects, street_objects.StreetObjects(split))
