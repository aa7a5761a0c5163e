"""Text files that list images, a path and a class number a line, as OpenOOD (Zhang et al., 2023) publishes its sets.

    cifar10/test/airplane/0001.png 0

A path is relative to one folder for the whole list. The number is the class, 0..K-1, or -1 of an outlier.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from quantjax.data.places import root_of
from quantjax.data.readers import FileSource

SUFFIX = ".txt"
IMAGE_FOLDERS = ("images_classic", "images_largescale")  # beside OpenOOD's benchmark_imglist/<set>/<list>
LABEL = re.compile(r"-1|[0-9]{1,9}", re.ASCII)
SHOWN = 80  # characters of a line in an error


class Entry(NamedTuple):
    """One line of a list."""

    line: int
    """Counted from 1"""
    path: str
    """As it stands there, relative"""
    label: int
    """0..K-1, or -1 of an outlier"""


def image_list(file: Path, data_dir: str | Path | None = None) -> FileSource:
    """The images that a list names, in its order, with their labels; pixels as they are stored, as OpenOOD reads them.

    Paths are relative to the first of these folders that holds the first image: the list's own, data_dir, and
    images_classic/ or images_largescale/ in data_dir or in the folder two above the list's, as OpenOOD lays them out.

    Raises:
        FileNotFoundError: an image is not there; the message counts them and names the first, and the places looked at.
        ValueError: the file is no text, lists no image, or a line is no path with a class number, or leads elsewhere.
    """
    entries = read_entries(file)
    places = _places(file, root_of(data_dir))
    root = next((place for place in places if os.path.isfile(place / entries[0].path)), None)
    if root is None:
        raise FileNotFoundError(
            f"{file}, line {entries[0].line}: there is no image {entries[0].path!r} in any of "
            f"{', '.join(map(str, places))}; give the folder that the paths are relative to as data_dir"
        )
    missing = [entry for entry in entries if not os.path.isfile(root / entry.path)]
    if missing:
        raise FileNotFoundError(
            f"{file}: {len(missing)} of its {len(entries)} images are not in {root}, the first is "
            f"{missing[0].path!r} in line {missing[0].line}; unpack them there, or take their lines out"
        )
    return FileSource([root / entry.path for entry in entries], [entry.label for entry in entries], upright=False)


def read_entries(file: Path) -> list[Entry]:
    """The lines of a list, empty ones left out; at least one.

    Raises ValueError, with the number of the line, when one is no relative path inside its folder, then blanks, then a
    class number.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no list of images: it is no UTF-8 text ({error})") from error
    entries = [_entry(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise ValueError(f"{file} lists no image; a line is a path and a class number, 'cat/1.png 3'")
    return entries


def _entry(file: Path, number: int, line: str) -> Entry:
    path, *rest = line.strip().rsplit(maxsplit=1)
    if len(rest) != 1 or not LABEL.fullmatch(rest[0]):
        raise ValueError(
            f"{file}, line {number}: a line must be a path and a class number, 'cat/1.png 3', or -1 for an outlier, "
            f"got {line[:SHOWN]!r}"
        )
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor or ".." in PureWindowsPath(path).parts:
        raise ValueError(
            f"{file}, line {number}: the path must be relative and stay in its folder, got {path[:SHOWN]!r}; give that "
            "folder as data_dir and the paths from there on"
        )
    return Entry(number, path, int(rest[0]))


def _places(file: Path, data_dir: Path | None) -> Sequence[Path]:
    own = file.absolute().parent
    above = [] if data_dir is None else [data_dir]
    roots = [*above, own.parent.parent]
    return list(dict.fromkeys([own, *above, *(root / name for root in roots for name in IMAGE_FOLDERS)]))
