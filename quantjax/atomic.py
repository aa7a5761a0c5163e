"""Files and folders that are replaced whole: a reader, also after a kill or a power cut, sees the old or the new."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HERE, EXCHANGE = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
FULL = (errno.ENOSPC, errno.EDQUOT)
IN_WORDS = (*map(os.strerror, FULL), " requested and ")  # NumPy counts "N requested and M written"


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Context: an error of a full disk, which by itself names no file, is one about `path` with the way out.

    Libraries in other languages tell it in their own words and kinds; what they say is what it is known by.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise OSError(
            f"{path} cannot be written, the disk is full (or the quota used up): free space there or choose another "
            "place; what was written before is whole"
        ) from error


def is_full(error: BaseException) -> bool:
    """Whether an error says, by its number or in words, that there is no space left."""
    number = getattr(error, "errno", None)
    return number in FULL or (number is None and any(words in str(error) for words in IN_WORDS))


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """Context: a path beside `path` to write to; that file takes its place when the block ends without an error.

    Missing parent folders are made. Raises OSError when the disk is full, see naming.
    """
    path = Path(path)
    temporary = _beside(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _to_disk(temporary)
            os.replace(temporary, path)
            _to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` in UTF-8, see replaced_file."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replaced_folder(folder: str | Path, marker: str) -> Iterator[Path]:
    """Context: an empty folder that takes the place of `folder` when the block ends without an error.

    Raises ValueError when `folder` exists, is not empty and holds no file of the name `marker`: it is something else's;
    OSError when the disk is full, see naming.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder.is_dir() and ((folder / marker).is_file() or not any(folder.iterdir()))):
        raise ValueError(f"{folder} exists and holds no {marker}: choose another folder or remove it")
    temporary = _beside(folder)
    with naming(folder):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                _to_disk(path)
            if folder.exists():
                exchange(temporary, folder)
            else:
                os.rename(temporary, folder)
            _to_disk(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step; by three renames where the system or the file system has no such step."""
    if _swap(os.fsencode(one), os.fsencode(other)):
        return
    aside = _beside(other)
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def _swap(one: bytes, other: bytes) -> bool:
    try:
        library = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return not library.renamex_np(one, other, EXCHANGE)
        return not library.renameat2(HERE, one, HERE, other, EXCHANGE)
    except (AttributeError, OSError, TypeError):  # another system, an older C library
        return False


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def _to_disk(path: Path) -> None:
    if path.is_dir():
        with suppress(OSError):  # some systems and file systems open or sync no folders
            _sync(path, os.O_RDONLY)
    else:
        _sync(path, os.O_RDWR)


def _sync(path: Path, mode: int) -> None:
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
