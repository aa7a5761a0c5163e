"""Open a data set by name or path.

A name is one of `KNOWN` (looked up under `data_dir` in its published layout), one of the bundled sets, `tfds:<name>`,
or any folder, .npz file or list of images (.txt), absolute or under `data_dir`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quantjax.bundled import images as bundled
from quantjax.data import readers
from quantjax.data.arrays import stratified_split
from quantjax.data.folders import SPLIT_FOLDERS, image_folder, split_folders
from quantjax.data.image_lists import SUFFIX, image_list
from quantjax.data.listing import matching
from quantjax.data.places import find_folder, find_path, root_of
from quantjax.data.readers import ArraySource, FileSource, Row, Source, TfdsSource

__all__ = ["KNOWN", "SPLITS", "ArraySource", "FileSource", "Row", "Source", "TfdsSource", "open_source"]

SPLITS = ("train", "test")


class Known(NamedTuple):
    """Where a published data set is looked for, how it is read, and where it comes from."""

    folders: tuple[str, ...]
    """Under data_dir, first match wins"""
    marker: str
    """A glob that must match inside the folder, so that a namesake is not taken for it"""
    read: Callable[[Path, str], Source]
    """(folder, split) -> source"""
    origin: str
    splits: tuple[str, ...] = SPLITS


def _test_images(folder: Path, split: str) -> Source:
    return image_folder(folder, upright=False)  # as published numbers read them


_images = partial(Known, marker="*", read=_test_images, splits=("test",))
_ODIN_SETS = "the archives linked from the ODIN project (Liang et al. 2018, https://github.com/facebookresearch/odin)"

KNOWN: dict[str, Known] = {
    "cifar10": Known(
        ("cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar10"),
        "test_batch",
        readers.cifar10,
        "https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-10 python version)",
    ),
    "cifar100": Known(
        ("cifar-100-python", "cifar100/cifar-100-python", "cifar100"),
        "meta",
        readers.cifar100,
        "https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-100 python version)",
    ),
    "svhn": Known(
        ("svhn", "SVHN", "."),
        "*_32x32.mat",
        readers.svhn,
        "http://ufldl.stanford.edu/housenumbers (format 2: train_32x32.mat, test_32x32.mat)",
    ),
    "textures": _images(
        ("dtd/images", "textures/images", "textures/dtd/images", "textures"),
        origin="https://www.robots.ox.ac.uk/~vgg/data/dtd (Describable Textures)",
    ),
    "places365": _images(
        ("places365/test_subset", "places365/test_256", "places365/val_256", "places365", "test_256", "val_256"),
        origin="http://places2.csail.mit.edu (small test images, test_256)",
    ),
    "lsun_c": _images(("LSUN/test", "LSUN_C/test", "LSUN_C", "LSUN", "lsun_c"), origin=_ODIN_SETS),
    "lsun_r": _images(("LSUN_resize/LSUN_resize", "LSUN_resize", "LSUN_R", "lsun_r"), origin=_ODIN_SETS),
    "isun": _images(("iSUN/iSUN_patches", "iSUN_patches", "iSUN", "isun"), origin=_ODIN_SETS),
}


def open_source(
    name_or_path: str | Path, data_dir: str | Path | None = None, split: str = "test", *, divide: bool = False
) -> Source:
    """A random-access source for a name or a path; see the module's docstring for what a name may be.

    Args:
        name_or_path: `cifar10`, `digits`, `tfds:mnist`, a folder, an .npz file, a list of images (.txt, see
            `image_lists`), or the name of one of these under `data_dir`.
        data_dir: the folder that holds the published data sets.
        split: "train" or "test". A set without splits (outlier sets, plain folders) opens as "test" only.
        divide: a folder, .npz or list of one's own, or a set of TFDS, that has not both splits is divided, always
            alike: of every class 20 %, rounded and at least one row, are "test", the others "train"; a class of one row
            is only trained on. Where "test" is missing and "validation" is there, that is "test".

    Raises:
        FileNotFoundError: nothing is there; the message lists the places looked at and where the set comes from.
        ValueError: it is there but unreadable, empty, or without that split.
    """
    name = str(name_or_path)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if name.startswith("tfds:"):
        return _open_tfds(name.removeprefix("tfds:"), root_of(data_dir), split, divide)
    if name in KNOWN:
        return _open_known(name, data_dir, split)
    if name in bundled.SETS:
        _require_split(name, split, bundled.SETS[name].splits)
        return ArraySource(*bundled.SETS[name].make(split))
    known = (*KNOWN, *bundled.SETS, "tfds:<name>")
    place = find_path(name, data_dir, wanted="data set", known=known)
    whole = _undivided(place, data_dir) if divide else None
    if whole is None:
        return _open_path(place, split, data_dir)
    return _divided(whole, whole.labels, split)


def _divided(whole: Source, labels: np.ndarray, split: str) -> Source:
    return readers.part(whole, stratified_split(labels)[SPLITS.index(split)])


def _open_tfds(name: str, data_dir: Path | None, split: str, divide: bool) -> Source:
    """Prepared sets lie in data_dir, in data_dir/tensorflow_datasets or in TFDS's default folder."""
    first = name.split("/")[0].split(":")[0]
    places = [data_dir, data_dir / "tensorflow_datasets"] if data_dir else []
    place = next((place for place in places if (place / first).is_dir()), None)
    theirs = _tfds_names(readers.tfds_splits(name, place)) if divide else {}
    if len(theirs) == 1:
        (only,) = theirs.values()
        return _divided(readers.tfds(name, place, only), readers.tfds_labels(name, place, only), split)
    return readers.tfds(name, place, theirs.get(split, split))


def _tfds_names(prepared: Sequence[str]) -> dict[str, str]:
    """Our splits and what TFDS calls them; as among folders, validation stands in for test."""
    found = {ours: [name for name in names if name in prepared] for ours, names in SPLIT_FOLDERS.items()}
    return {ours: names[0] for ours, names in found.items() if names}


def _open_known(name: str, data_dir: str | Path | None, split: str) -> Source:
    known = KNOWN[name]
    _require_split(name, split, known.splits)
    return known.read(find_folder(name, data_dir, known.folders, (known.marker,), known.origin), split)


def _undivided(place: Path, data_dir: str | Path | None) -> ArraySource | FileSource | None:
    """All rows of a set of one's own that has not both splits; None where there is nothing to divide."""
    if place.suffix == SUFFIX and place.is_file():
        return image_list(place, data_dir)
    if place.is_dir():
        splits = {} if _published_in(place) else split_folders(place)
        if _published_in(place) or len(splits) == len(SPLITS):
            return None
        return image_folder(next(iter(splits.values()), place))
    there = readers.npz_splits(place) if place.suffix == ".npz" else ()
    return readers.npz(place, there[0]) if len(there) == 1 else None


def _open_path(place: Path, split: str, data_dir: str | Path | None) -> Source:
    if place.is_dir():
        return _open_folder(place, split)
    if place.suffix == ".npz":
        return readers.npz(place, split)
    if place.suffix == SUFFIX:
        _require_split(str(place), split, ("test",))
        return image_list(place, data_dir)
    raise ValueError(
        f"{place} must be a folder of images, a list of them ({SUFFIX}) or an .npz file with 'images' (uint8 "
        "[N, H, W, 3]) and 'labels' [N]"
    )


def _open_folder(folder: Path, split: str) -> Source:
    """A folder is read as what its contents say: CIFAR or SVHN files, train and test folders, or just images."""
    if read := _published_in(folder):
        return read(folder, split)
    splits = split_folders(folder)
    _require_split(str(folder), split, tuple(splits) or ("test",))
    return image_folder(splits.get(split, folder))


def _published_in(folder: Path) -> Callable[[Path, str], Source] | None:
    """The reader of the CIFAR or SVHN files that lie in a folder."""
    for name in ("cifar10", "svhn"):
        if matching(folder, KNOWN[name].marker):
            return KNOWN[name].read
    return readers.cifar100 if (folder / "train").is_file() and (folder / "test").is_file() else None


def _require_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    if split not in splits:
        raise ValueError(
            f"{name} has no {split!r} split, only {', '.join(splits)}; a folder of images has them as the "
            "folders train/ and test/, an .npz file as the entries train_images and test_images; divide=True splits "
            "a set that has not both"
        )
