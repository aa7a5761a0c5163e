"""Read the pickles that CIFAR is published as, without running anything they ask for.

The names that such a pickle holds stand for functions of this file: they take what NumPy wrote for an array of plain
numbers, check dtype, shape and length, and refuse everything else. Nothing of NumPy is called with what a file says,
and no array is made before its bytes are there. The interpreter of the opcodes is pickle's own in Python, whose memory
follows the file's size.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = frozenset(f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)) - {"f1"} | {"b1"}
ORDERS = ("<", "|", "=")
MOST_AXES = 4
DEPTH = 8  # of lists and dicts in each other


class _Refused(Exception):
    """A pickle asked for something other than an array."""


class _NdarrayName:
    """What the name of NumPy's class of arrays stands for: it cannot be called."""


class _Dtype:
    """The dtype of plain numbers that a pickle describes."""

    def __init__(self, code: str):
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags) as numpy.dtype reduces itself
        plain = isinstance(state, tuple) and len(state) == 8 and state[2:5] == (None, None, None)
        if not plain or _text(state[1]) not in ORDERS:
            raise _Refused(f"a dtype that is not of plain numbers, {state!r:.80}")


class _Array:
    """An array whose bytes have not come yet."""

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        # (version, shape, dtype, whether columns come first, bytes) as numpy.ndarray reduces itself
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array without shape, dtype and bytes")
        _, shape, dtype, columns_first, data = state
        whole = isinstance(shape, tuple) and len(shape) <= MOST_AXES and all(type(n) is int and n >= 0 for n in shape)
        if not whole or not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise _Refused("an array that is not of plain numbers")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise _Refused(f"an array {list(shape)} of {dtype.dtype} with {len(data)} bytes")
        self.values = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if columns_first else "C").copy()


def _make_array(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY or shape != (0,) or _text(code) != "b":
        raise _Refused(f"an array that starts as {shape!r:.40} {code!r:.40}")
    return _Array()


def _make_dtype(code: Any, align: Any, copy: Any) -> _Dtype:
    if _text(code) not in DTYPES:
        raise _Refused(f"dtype {code!r:.40}")
    return _Dtype(_text(code))


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise _Refused(f"text in another encoding, {encoding!r:.40}")
    return text.encode("latin1")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value if isinstance(value, str) else ""


_NDARRAY = _NdarrayName()
# CIFAR's own files were written by Python 2 and name numpy.core; later writers name numpy._core and wrap bytes in
# _codecs.encode.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _make_dtype,
    ("_codecs", "encode"): _encode,
}
_UNUSED = ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "BYTEARRAY8", "NEXT_BUFFER", "PERSID")


def _refuse(unpickler: Any) -> None:
    raise _Refused("an object that is neither an array nor a plain value")


class _RestrictedUnpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    dispatch = {  # noqa: RUF012, as in the parent
        **pickle._Unpickler.dispatch,  # type: ignore[attr-defined]
        **{getattr(pickle, name)[0]: _refuse for name in _UNUSED},
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"persistent object {pid!r:.40}")


def read_pickle(path: str | Path) -> Any:
    """The plain Python values and arrays of numbers in a pickle file; strings written by Python 2 come back as bytes.

    Only arrays, dtypes and encoded bytes may be built, by functions of this file: loading calls nothing else.

    Raises:
        ValueError: the file is truncated or no pickle, or holds anything else (the message says what was refused).
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        return _with_arrays(_RestrictedUnpickler(io.BytesIO(content), encoding="bytes").load())
    except _Refused as refused:
        if not content.endswith(pickle.STOP):
            raise ValueError(f"{path} is damaged or not a pickle (it is cut off); download it again") from None
        raise ValueError(
            f"{path} asks Python to load {refused}, and a data file should hold only arrays, numbers and text; "
            "it was not executed. Download the data set again from its publisher"
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly any exception, depending on where it is cut
        raise ValueError(
            f"{path} is damaged or not a pickle ({type(error).__name__}: {error!s:.200}); download it again"
        ) from error


def _with_arrays(value: Any, depth: int = DEPTH) -> Any:
    """The value with arrays where they were announced; what is nested deeper than any data set is refused."""
    if isinstance(value, _Array):
        if value.values is None:
            raise _Refused("an array without bytes")
        return value.values
    if isinstance(value, dict | list | tuple):
        if not depth:
            raise _Refused(f"values nested more than {DEPTH} deep")
        if isinstance(value, dict):
            return {key: _with_arrays(item, depth - 1) for key, item in value.items()}
        return type(value)(_with_arrays(item, depth - 1) for item in value)
    if isinstance(value, _Dtype | _NdarrayName):
        raise _Refused("part of an array")
    return value
