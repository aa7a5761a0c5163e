"""Read the pickles that CIFAR is published as, without running anything they ask for."""

from __future__ import annotations

import _codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np

_reconstruct = np.empty(0).__reduce__()[0]  # private in numpy, and moved between versions

# CIFAR's own files were written by Python 2 and name numpy.core; later writers name numpy._core and wrap bytes in
# _codecs.encode.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _codecs.encode,
}


class _Refused(Exception):
    """A pickle asked for something other than an array."""


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"persistent object {pid!r}")


def read_pickle(path: str | Path) -> Any:
    """The plain Python and numpy values in a pickle file; strings written by Python 2 come back as bytes.

    Only arrays, dtypes and encoded bytes may be built, so loading executes no code from the file.

    Raises:
        ValueError: the file is truncated or no pickle, or names anything else (the message says what was refused).
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            return _RestrictedUnpickler(file, encoding="bytes").load()
        except _Refused as refused:
            raise ValueError(
                f"{path} asks Python to load {refused}, and a data file should hold only arrays, numbers and text; "
                "it was not executed. Download the data set again from its publisher"
            ) from None
        except Exception as error:  # a damaged pickle can raise nearly any exception, depending on where it is cut
            raise ValueError(
                f"{path} is damaged or not a pickle ({type(error).__name__}: {error}); download it again"
            ) from error
