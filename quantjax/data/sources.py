"""Open a data set by name or path.

A name is one of `KNOWN` (looked up under `data_dir` in its published layout), one of the bundled sets, `tfds:<name>`,
or any folder or .npz file, absolute or under `data_dir`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from quantjax.bundled import images as bundled
from quantjax.data import readers
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
    return readers.image_folder(folder)


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


def open_source(name_or_path: str | Path, data_dir: str | Path | None = None, split: str = "test") -> Source:
    """A random-access source for a name or a path; see the module's docstring for what a name may be.

    Args:
        name_or_path: `cifar10`, `digits`, `tfds:mnist`, a folder, an .npz file, or a folder's name under `data_dir`.
        data_dir: the folder that holds the published data sets.
        split: "train" or "test". A set without splits (outlier sets, plain folders) opens as "test" only.

    Raises:
        FileNotFoundError: nothing is there; the message lists the places looked at and where the set comes from.
        ValueError: it is there but unreadable, empty, or without that split.
    """
    name = str(name_or_path)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    folder = Path(data_dir).expanduser() if data_dir is not None else None
    if name.startswith("tfds:"):
        return _open_tfds(name.removeprefix("tfds:"), folder, split)
    if name in KNOWN:
        return _open_known(name, folder, split)
    if name in bundled.SETS:
        _require_split(name, split, bundled.SETS[name].splits)
        return ArraySource(*bundled.SETS[name].make(split))
    return _open_path(Path(name).expanduser(), folder, split)


def _open_tfds(name: str, data_dir: Path | None, split: str) -> Source:
    """Prepared sets lie in data_dir, in data_dir/tensorflow_datasets or in TFDS's default folder."""
    first = name.split("/")[0].split(":")[0]
    places = [data_dir, data_dir / "tensorflow_datasets"] if data_dir else []
    return readers.tfds(name, next((place for place in places if (place / first).is_dir()), None), split)


def _open_known(name: str, data_dir: Path | None, split: str) -> Source:
    known = KNOWN[name]
    _require_split(name, split, known.splits)
    if data_dir is None:
        raise FileNotFoundError(
            f"{name} is not bundled: pass the folder that holds it as data_dir. Get it from {known.origin}"
        )
    places = [data_dir / folder for folder in known.folders]
    for place in places:
        if place.is_dir() and next(place.glob(known.marker), None):
            return known.read(place, split)
    archives = [file.name for pattern in ("*.tar*", "*.tgz", "*.zip") for file in data_dir.glob(pattern)]
    raise FileNotFoundError(
        f"{name} was not found; looked for {known.marker} in {', '.join(map(str, places))}. Get it from {known.origin} "
        f"and unpack it into {data_dir}"
        + (f" (archives lying there: {', '.join(sorted(archives))})" if archives else "")
    )


def _open_path(path: Path, data_dir: Path | None, split: str) -> Source:
    places = [path] if path.is_absolute() or data_dir is None else [data_dir / path, path]
    place = next((p for p in places if p.exists()), None)
    if place is None:
        raise FileNotFoundError(
            f"{path} is no known data set and no file or folder; looked at {', '.join(map(str, places))}. "
            f"Known names: {', '.join([*KNOWN, *bundled.SETS])}, tfds:<name>"
        )
    if place.is_dir():
        return _open_folder(place, split)
    if place.suffix == ".npz":
        return readers.npz(place, split)
    raise ValueError(
        f"{place} must be a folder of images or an .npz file with 'images' (uint8 [N, H, W, 3]) and 'labels' [N]"
    )


def _open_folder(folder: Path, split: str) -> Source:
    """A folder is read as what its contents say: CIFAR or SVHN files, train and test folders, or just images."""
    for name in ("cifar10", "svhn"):
        if next(folder.glob(KNOWN[name].marker), None):
            return KNOWN[name].read(folder, split)
    if (folder / "train").is_file() and (folder / "test").is_file():
        return readers.cifar100(folder, split)
    splits = [name for name in SPLITS if (folder / name).is_dir()]
    _require_split(str(folder), split, tuple(splits) or ("test",))
    return readers.image_folder(folder / split if splits else folder)


def _require_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    if split not in splits:
        raise ValueError(
            f"{name} has no {split!r} split, only {', '.join(splits)}; an inlier set needs both, a folder of "
            "images has them as the folders train/ and test/, an .npz file as the entries train_images and test_images"
        )
