"""The image files that a command is given: by name, by folder, by glob, or as a list on standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

LIST = "-"  # in a path's place: one path a line on standard input
MAGIC = frozenset("*?[")


def open_inputs(given: Sequence[str], output: Path | None = None) -> Iterator[Path | str]:
    """Files as given, all images below folders but `output`, what globs match; a sentence for what is not read.

    Folders and globs are looked through at once, in name order; a list is read line by line as the files are asked for,
    and what is wrong with a line comes as a sentence.

    Raises ValueError for a folder or glob without images, and when two lists are asked for.
    """
    if given.count(LIST) > 1:
        raise ValueError(f"{LIST} reads the list on standard input, once: it stands there {given.count(LIST)} times")
    return chain.from_iterable([_listed(output) if one == LIST else _expanded(one, output) for one in given])


def _listed(output: Path | None) -> Iterator[Path | str]:
    if sys.stdin is None:
        raise ValueError(f"{LIST} reads a list of paths on standard input, which is closed")
    for line in sys.stdin.buffer:
        name = os.fsdecode(line.rstrip(b"\r\n"))
        if not name:
            continue
        try:
            yield from _expanded(name, output)
        except ValueError as error:
            yield str(error)


def _expanded(name: str, output: Path | None) -> list[Path | str]:
    path = Path(name).expanduser()
    if path.is_dir():
        from quantjax.data.listing import files_in

        return _images(name, files_in(path, deep=True), output, "subfolders included")
    if path.exists() or not MAGIC & set(name):
        return [path]
    return _images(name, _matching(path), output, "which matches nothing else")


def _matching(path: Path) -> list[Path]:
    """What a glob matches; a folder stands for all files below it, as where a shell expands the glob."""
    from quantjax.data.listing import files_in, matching

    fixed = next(i for i, part in enumerate(path.parts) if MAGIC & set(part))
    found = matching(Path(*path.parts[:fixed]), str(Path(*path.parts[fixed:])))
    files = [files_in(one, deep=True) if one.is_dir() else [one] for one in found]
    return list(dict.fromkeys(chain.from_iterable(files)))  # ** matches files and the folders that they lie in


def _images(name: str, files: Sequence[Path], output: Path | None, where: str) -> list[Path | str]:
    from quantjax.data.images import SUFFIXES
    from quantjax.data.listing import images_among, unread_sentence

    written = None if output is None else output.resolve()
    read, unread = images_among(f for f in files if written not in f.resolve().parents)
    sentence = [unread_sentence(Path(name), unread)] if unread else []
    if not read:
        why = sentence[0] if sentence else f"looked for {', '.join(sorted(SUFFIXES))}"
        raise ValueError(f"{name} holds no images ({why}, {where})")
    return [*sentence, *read]
