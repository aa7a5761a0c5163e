"""Features and labels in the files that programs write them to, each read by the library made for it.

`.npy` and `.npz` (NumPy), `.safetensors`, `.pt` and `.pth` (torch), `.h5` and `.hdf5` (h5py), `.parquet` (pyarrow).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from quantjax.data.labels import whole_labels

Entries = Mapping[str, Callable[[], np.ndarray]]  # name -> what reads it
ALONE = ""  # the name of the entry of a file that holds one array and no names


def read_features(path: str | Path, key: str | None = None) -> np.ndarray:
    """Features [N, D] of a file, as they are stored; float16, bfloat16 and integers become float32.

    key names the entry (of .npz, .pt, .safetensors), the data set (HDF5) or the column of lists (Parquet); None takes
    the only one that is two-dimensional. In a Parquet file the floating-point columns (integer ones where there are
    none) are such a matrix, in their order.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the library that reads it is not installed; the message says which extra brings it.
        ValueError: the file is damaged or of another kind, has no such entry, several that fit, or no real numbers.
    """
    entries = _open(Path(path))
    name, array = _chosen(Path(path), entries, key, rank=2)
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise ValueError(f"{_named(path, name)} must hold real numbers, got dtype {array.dtype}; give another key")
    wide = array.dtype in (np.float32, np.float64)
    return np.ascontiguousarray(array if wide else array.astype(np.float32))


def read_labels(path: str | Path, key: str | None = None) -> np.ndarray:
    """Labels int32 [N] of a file, key and errors as in `read_features`; what is no class number is refused.

    None takes the only one-dimensional entry.
    """
    name, array = _chosen(Path(path), _open(Path(path)), key, rank=1)
    try:
        return whole_labels(array)
    except ValueError as error:
        raise ValueError(f"{_named(path, name)}: {error}") from None


def _chosen(path: Path, entries: Entries, key: str | None, rank: int) -> tuple[str, np.ndarray]:
    """(name, array of `rank` dimensions): the entry called key or, without one, the only entry of that rank."""
    if key is not None and key not in entries:
        raise ValueError(f"{path} holds no {key!r}, only {_few(entries)}")
    arrays = {name: _read(path, name, entries[name]) for name in ([key] if key is not None else entries)}
    wanted = "[N, D]" if rank == 2 else "[N]"
    fits = [name for name, array in arrays.items() if array.ndim == rank]
    if key is not None and not fits:
        raise ValueError(f"{_named(path, key)} must have shape {wanted}, got {list(arrays[key].shape)}")
    if len(fits) != 1:
        shapes = ", ".join(f"{name or 'array'} {list(array.shape)}" for name, array in list(arrays.items())[:8])
        raise ValueError(f"{path} must hold one array {wanted}, got {shapes or 'none'}; name one with key=")
    return fits[0], arrays[fits[0]]


def _read(path: Path, name: str, read: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return np.asarray(read())
    except Exception as error:  # each library has its own kinds for a damaged entry
        raise ValueError(f"{_named(path, name)} cannot be read ({_first_line(error)}); write the file again") from error


def _open(path: Path) -> Entries:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} must end in one of {', '.join(READERS)}")
    try:
        return reader(path)
    except ImportError:
        raise
    except Exception as error:  # as above
        kind = path.suffix.lower()
        raise ValueError(f"{path} is damaged or no {kind} file ({_first_line(error)}); write it again") from error


def _numpy(path: Path) -> Entries:
    stored = np.load(path, allow_pickle=False)
    if isinstance(stored, np.ndarray):
        return {ALONE: partial(np.asarray, stored)}
    with stored:
        return {name: partial(np.asarray, stored[name]) for name in stored.files}


def _safetensors(path: Path) -> Entries:
    import ml_dtypes  # noqa: F401, teaches NumPy bfloat16, which safetensors takes for granted
    from safetensors import safe_open

    def read(name: str) -> np.ndarray:
        with safe_open(path, "np") as file:
            return file.get_tensor(name)

    with safe_open(path, "np") as file:
        return {name: partial(read, name) for name in file.keys()}  # noqa: SIM118


def _torch(path: Path) -> Entries:
    torch = _library("torch", "torch", path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    named = content if isinstance(content, Mapping) else {ALONE: content}
    tensors = {str(name): value for name, value in named.items() if isinstance(value, torch.Tensor)}
    return {name: partial(_as_numpy, tensor) for name, tensor in tensors.items()}


def _as_numpy(tensor: Any) -> np.ndarray:
    """Of a torch tensor; what NumPy has no type for is widened."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor).numpy()


def _hdf5(path: Path) -> Entries:
    h5py = _library("h5py", "hdf5", path)

    def read(name: str) -> np.ndarray:
        with h5py.File(path, "r") as file:
            return np.asarray(file[name])

    names: list[str] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
    return {name: partial(read, name) for name in names}


def _parquet(path: Path) -> Entries:
    parquet = _library("pyarrow.parquet", "parquet", path)
    from pyarrow.types import is_floating, is_integer

    def read(name: str) -> np.ndarray:
        return _column(parquet.read_table(path, columns=[name]).column(name).combine_chunks())

    fields = [field for field in parquet.read_schema(path) if not field.name.startswith("__index_level_")]  # pandas'
    entries: dict[str, Callable[[], np.ndarray]] = {field.name: partial(read, field.name) for field in fields}
    floating = [field.name for field in fields if is_floating(field.type)]
    numbers = floating or [field.name for field in fields if is_integer(field.type)]
    if len(numbers) > 1:
        entries[ALONE] = lambda: np.stack([read(name) for name in numbers], axis=1)
    return entries


def _column(values: Any) -> np.ndarray:
    """An arrow column [N], or [N, D] of lists of one length."""
    from pyarrow import compute, types

    if values.null_count:
        raise ValueError(f"{values.null_count} rows are empty")
    if types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
        lengths = compute.list_value_length(values).unique().to_pylist()
        if len(lengths) != 1:
            raise ValueError(f"its lists must have one length, got {', '.join(map(str, sorted(lengths)[:8]))}")
        return _column(values.flatten()).reshape(len(values), -1)
    return values.to_numpy(zero_copy_only=False)


def _library(name: str, extra: str, path: Path) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"reading {path} needs {name.partition('.')[0]}: pip install 'quantjax[{extra}]'") from error


READERS: dict[str, Callable[[Path], Entries]] = {
    ".npy": _numpy,
    ".npz": _numpy,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".parquet": _parquet,
}


def _named(path: str | Path, name: str) -> str:
    return f"{path}, {name!r}," if name else str(path)


def _few(entries: Entries) -> str:
    return ", ".join(list(entries)[:8]) + (" ..." if len(entries) > 8 else "")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
