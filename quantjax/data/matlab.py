"""Variables of MATLAB files, whose tags are checked before scipy reads them: it trusts them, up to a crash.

The layout is that of "MAT-File Format", The MathWorks: a header of 128 bytes, then one element per variable, each a tag
(type, bytes), which may be deflated. An array holds its flags, dimensions, name and numbers as elements of their own.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

HEADER, START = 128, 4096  # bytes of a file before its variables; of a variable, more than all its tags take
INT8, INT32, UINT32, MATRIX, DEFLATED = 1, 5, 6, 14, 15
NUMBERS = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # type of an element -> bytes of a number
CLASSES, NUMERIC = range(1, 16), range(6, 16)  # of arrays: cells, structures, text and sparse ones come first
COMPLEX = 0x0800
MOST_AXES, LONGEST_NAME = 32, 63
INFLATION = 1100  # at most, of deflated bytes


class Tag(NamedTuple):
    """The tag of an element: its type, its bytes, and where they and the next element start."""

    kind: int
    size: int
    start: int
    end: int


def read_mat(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named variables, arrays of numbers, of a MATLAB file of version 5 to 7.

    Raises ValueError that names a file that is damaged, of format 7.3, or lacks one.
    """
    import scipy.io

    with file.open("rb") as stream:
        quoted = ", ".join(f"'{name}'" for name in names)
        if stream.read(10) == b"MATLAB 7.3":
            raise ValueError(
                f"{file} is a MATLAB 7.3 file (HDF5), which scipy does not read; in MATLAB load it and save it again "
                f"with save('{file.name}', {quoted}, '-v7'), or take the published file"
            )
        try:
            _check(stream, file.stat().st_size, names)
            stream.seek(0)
            content = scipy.io.loadmat(stream, variable_names=list(names))
            return {name: np.asarray(content[name]) for name in names}
        except Exception as error:  # scipy raises many kinds for a damaged file
            raise ValueError(
                f"{file} is not SVHN's .mat with {' and '.join(names)} ({type(error).__name__}: {error}); "
                "download it again"
            ) from error


def _check(stream: BinaryIO, size: int, names: Sequence[str]) -> None:
    """Raise ValueError unless every tag that scipy will follow fits into the element around it."""
    stream.seek(HEADER - 4)
    version, order = struct.unpack("2s2s", stream.read(4))
    if (version, order) not in ((b"\x00\x01", b"IM"), (b"\x01\x00", b"MI")):
        raise ValueError("it is no MATLAB file of version 5 to 7")
    endian = "<" if order == b"IM" else ">"
    place = HEADER
    while place < size:
        stream.seek(place)
        kind, length = _unpack(endian, stream.read(8), 0)
        if kind not in (MATRIX, DEFLATED) or not 0 < length <= size - place - 8:
            raise ValueError(f"the element at byte {place} is none, or longer than the file")
        start = stream.read(min(length, START))
        if kind == DEFLATED:
            start = zlib.decompressobj().decompress(start, START)
            kind, inside = _unpack(endian, start, 0)
            if kind != MATRIX or inside > INFLATION * length:
                raise ValueError(f"the element at byte {place} holds no array, or a larger one than fits")
            _check_array(endian, start[8:], inside, names)
        else:
            _check_array(endian, start, length, names)
        place += 8 + length


def _check_array(endian: str, start: bytes, length: int, names: Sequence[str]) -> None:
    flags = _tag(endian, start, 0)
    dimensions = _tag(endian, start, flags.end)
    name = _tag(endian, start, dimensions.end)
    axes = dimensions.size // 4
    if (flags.kind, flags.size) != (UINT32, 8) or (dimensions.kind, dimensions.size) != (INT32, 4 * axes):
        raise ValueError("an array starts with other tags than flags and dimensions")
    if not 2 <= axes <= MOST_AXES or name.kind != INT8 or name.size > LONGEST_NAME or name.end > length:
        raise ValueError("an array has no dimensions or no name")
    (word,) = struct.unpack_from(f"{endian}I", start, flags.start)
    if word & 0xFF not in CLASSES:
        raise ValueError(f"an array is of the unknown class {word & 0xFF}")
    if start[name.start : name.start + name.size].decode("latin1") not in names:
        return
    shape = struct.unpack_from(f"{endian}{axes}i", start, dimensions.start)
    numbers = _tag(endian, start, name.end)
    wanted = math.prod(shape) * NUMBERS.get(numbers.kind, 0)
    if word & 0xFF not in NUMERIC or word & COMPLEX or min(shape) < 0 or numbers.kind not in NUMBERS:
        raise ValueError("it is no array of real numbers")
    if numbers.size != wanted or numbers.start + wanted > length:
        raise ValueError(f"an array {list(shape)} has {numbers.size} bytes, wanted {wanted}")


def _tag(endian: str, data: bytes, place: int) -> Tag:
    """The tag at `place`; up to four bytes may follow a short one of two halves."""
    kind, size = _unpack(endian, data, place)
    if kind >> 16:
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise ValueError("a short element has more than four bytes")
        return Tag(kind, size, place + 4, place + 8)
    return Tag(kind, size, place + 8, place + 8 + -(-size // 8) * 8)


def _unpack(endian: str, data: bytes, place: int) -> tuple[Any, ...]:
    if len(data) < place + 8:
        raise ValueError("it ends within a tag")
    return struct.unpack_from(f"{endian}II", data, place)
