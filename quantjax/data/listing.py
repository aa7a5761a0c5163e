"""Which files and folders a folder holds: the one place that lists them, for every reader.

Hidden ones (`.name`), what lies in hidden folders, and what systems leave behind (`__MACOSX`) are never seen.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from quantjax.data.images import DECODERS, is_image_name, looks_like_an_image

LEFT_BEHIND = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})  # by zip, NAS and Windows


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is passed over."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def folders_in(folder: Path) -> list[Path]:
    """The visible folders directly in a folder, in name order."""
    return sorted(child for child in folder.iterdir() if not is_hidden(child.name) and child.is_dir())


def files_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """The visible files in a folder, with deep also those below it, in name order; none when there is no folder."""
    return sorted(_walk(folder, deep))


def images_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """The image files among `files_in`; warns in one line about those that look like images and are not read."""
    return _read(folder, files_in(folder, deep=deep))


def images_matching(folder: Path, pattern: str) -> list[Path]:
    """The image files that a glob finds in a folder, in name order; none when there is no folder. Warns alike."""
    return _read(folder, [file for file in matching(folder, pattern) if file.is_file()])


def _read(folder: Path, files: Iterable[Path]) -> list[Path]:
    read, unread = images_among(files)
    if unread:
        warnings.warn(unread_sentence(folder, unread), stacklevel=3)
    return read


def images_among(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """(files that are read as images, files that look like images and are not read)."""
    read: list[Path] = []
    unread: list[Path] = []
    for file in files:
        if is_image_name(file):
            read.append(file)
        elif looks_like_an_image(file):
            unread.append(file)
    return read, unread


def holds_images(folder: Path) -> bool:
    """Whether anything in or below a folder is, or looks like, an image."""
    return any(is_image_name(file) or looks_like_an_image(file) for file in _walk(folder, deep=True))


def matching(folder: Path, pattern: str) -> list[Path]:
    """What a glob finds in a folder, in name order, without anything hidden; folders count."""
    found = folder.glob(pattern)
    return sorted(path for path in found if not any(map(is_hidden, path.relative_to(folder).parts)))


def unread_sentence(folder: Path, unread: Sequence[Path]) -> str:
    """One line about the files in `folder` that look like images and are not read: how many, of which kind, why."""
    kinds = Counter(file.suffix.lower() or "without a suffix" for file in unread)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    packages = sorted({DECODERS[kind] for kind in kinds if kind in DECODERS})
    remedy = f"install {', '.join(packages)}, or convert" if packages else "convert"
    some = "1 file looks like an image and is" if len(unread) == 1 else f"{len(unread)} files look like images and are"
    return f"{folder}: {some} not read ({listed}), the first is {unread[0]}; {remedy} to .png or .jpg"


def _walk(folder: Path, deep: bool) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if deep and not is_hidden(name) and not _leads_back(parent, name)]
        yield from (Path(parent, name) for name in files if not is_hidden(name))


def _leads_back(parent: str, name: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    path = os.path.join(parent, name)
    return os.path.islink(path) and Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(path))
