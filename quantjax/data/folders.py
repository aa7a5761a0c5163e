"""A folder of images as a source: flat, in class folders, or in train/ and test/ with class folders below.

A folder is read whole or, where it can be understood in two ways, refused.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from quantjax.data.listing import files_in, folders_in, holds_images, images_among, images_in, unread_sentence
from quantjax.data.readers import FileSource

# Folders that are splits rather than classes; the first that is there is the split.
SPLIT_FOLDERS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}


def image_folder(folder: Path, *, upright: bool = True) -> FileSource:
    """A folder of images (no labels), or of class folders (labels 0..K-1 by class name); files in name order.

    Images may lie at any depth of a class folder. upright as in `images.read_image`. Files that look like images and
    are not read are named in one warning.

    Raises:
        ValueError: there is no image in it, there are images beside class folders, or a class has none that is read.
    """
    read, unread = images_among(files_in(folder, deep=True))
    classes: dict[str, list[Path]] = defaultdict(list)
    for file in read:
        inside = file.relative_to(folder).parts
        classes[inside[0] if len(inside) > 1 else ""].append(file)
    _check_classes_are_read(folder, classes.keys(), unread)
    flat = classes.pop("", [])
    if flat and classes:
        raise ValueError(
            f"{folder} holds {len(flat)} images beside the class folders {_few(list(classes))}, so it is neither flat "
            f"nor one of classes; move them, the first is {flat[0].name}, into a class folder or away"
        )
    if not read:
        raise ValueError(
            f"{folder} holds no image, neither directly nor in class folders; put .png or .jpg files there"
            + (f" ({unread_sentence(folder, unread)})" if unread else "")
        )
    if unread:
        warnings.warn(unread_sentence(folder, unread), stacklevel=2)
    if flat:
        return FileSource(flat, upright=upright)
    names = sorted(classes)
    labels = [k for k, name in enumerate(names) for _ in classes[name]]
    return FileSource([file for name in names for file in classes[name]], labels, names, upright=upright)


def _check_classes_are_read(folder: Path, there: Collection[str], unread: Sequence[Path]) -> None:
    """Raise ValueError when a class folder holds images, none of which is read: K would be smaller, in silence."""
    lost: dict[str, list[Path]] = defaultdict(list)
    for file in unread:
        inside = file.relative_to(folder).parts
        if len(inside) > 1 and inside[0] not in there:
            lost[inside[0]].append(file)
    if lost and there:
        first, files = sorted(lost.items())[0]
        raise ValueError(
            f"no image of the class folder{'s' if len(lost) > 1 else ''} {_few(sorted(lost))} is read: "
            + unread_sentence(folder / first, files)
        )


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits "train" and "test" in a folder, {} when it has none; val/ stands in for test/.

    Raises:
        ValueError: train/ and test/ may as well be classes: there are images or class folders beside them, no class
            folders in them, or other ones in each.
    """
    names = {name for aliases in SPLIT_FOLDERS.values() for name in aliases}
    holding = [child for child in folders_in(folder) if holds_images(child)]
    splits = [child for child in holding if child.name.lower() in names]
    if not splits:
        return {}
    others = [child.name for child in holding if child not in splits]
    flat = images_in(folder)
    if others or flat:
        beside = f"{len(flat)} images" if flat else f"the folders {_few(others)}"
        raise ValueError(
            f"{folder} holds {_few([child.name for child in splits])} beside {beside}, so they may be splits or "
            "classes; put class folders into train/ and test/ and nothing beside them, or rename the classes"
        )
    if len(splits) > 1:
        _check_are_splits(folder, splits)
    by_name = {child.name.lower(): child for child in splits}
    found = {
        split: next((by_name[a] for a in aliases if a in by_name), None) for split, aliases in SPLIT_FOLDERS.items()
    }
    return {split: child for split, child in found.items() if child is not None}


def _check_are_splits(folder: Path, splits: Sequence[Path]) -> None:
    classes = [{child.name for child in folders_in(split) if holds_images(child)} for split in splits]
    shown = _few([split.name for split in splits])
    if not all(classes):
        raise ValueError(
            f"{folder} holds {shown} with images but no class folders, so they may be splits or classes; put the "
            f"images of each split into class folders, or name one folder, {splits[-1]} say, as an outlier set"
        )
    if not set.intersection(*classes):
        raise ValueError(
            f"{folder} holds {shown} with no class folder in common, so they may be splits or classes; rename the "
            "classes, or give each split the same class folders"
        )


def _few(names: Sequence[str], most: int = 4) -> str:
    return ", ".join([f"{name}/" for name in names[:most]] + ([f"and {len(names) - most} more"] * (len(names) > most)))
