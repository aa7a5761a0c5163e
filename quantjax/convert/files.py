"""Weight files: PyTorch state dicts in any of three formats, and our own trees as safetensors.

A state dict is a plain dict of names to NumPy arrays, whatever file it came from. Our trees are stored under "/"-joined
names, e.g. "params/stem/conv/kernel".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from quantjax.atomic import replaced_file
from quantjax.convert import torch_files
from quantjax.convert.compare import some
from quantjax.convert.wrappings import unwrap
from quantjax.trees import digest, flatten, unflatten
from quantjax.types import PyTree

TORCH = (".pt", ".pth", ".bin", ".th", ".ckpt", ".tar")  # .pth.tar is what many training scripts write
FORMATS = (".npz", ".safetensors", *TORCH)
DIGEST = "quantjax.sha256"  # key of the metadata of files that are ours
# of safetensors; what NumPy does not know comes from ml_dtypes, whether or not anything else has imported it
DTYPES: dict[str, Any] = {
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{f"{kind}{bits}": np.dtype(f"<{kind.lower()}{bits // 8}") for kind in "IU" for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
Say = Callable[[str], None]


class Checkpoint(NamedTuple):
    """One network's arrays as a file holds them."""

    arrays: dict[str, np.ndarray]
    """Under their names without wrappings and prefixes; floats are float32."""
    key: str
    """What was taken off, "cls_state_dict", say; "" for nothing."""
    note: str
    """A sentence about what the file holds beside it, "" when nothing was to choose."""


def read_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Read one network from .npz, .safetensors or a file of PyTorch (.pt .pth .bin .th .ckpt .pth.tar, any case).

    Wrappings and prefixes come off by the rule of `wrappings`; of several networks `key` chooses one, e.g. "teacher" or
    "teacher.backbone". Halves, bfloat16 and 8-bit floats become float32. Raises FileNotFoundError for a missing file,
    ImportError when torch is missing, ValueError that names the file when it is empty, damaged, not of its format,
    holds no arrays, nothing under the key, or an object: nothing in the file is executed.
    """
    path = Path(path)
    _check_file(path)
    entries = _READERS.get(path.suffix.lower(), _read_torch)(path)
    with of_file(path):
        taken = unwrap(entries, key)
        if not taken.arrays:
            raise ValueError("it holds no arrays; wanted a state dict of names to arrays")
        arrays = {name: _as_numpy(name, value) for name, value in taken.arrays.items()}
        return Checkpoint(arrays, taken.key, f"{path}: {taken.note}" if taken.note else "")


def read_state_dict(path: str | Path, key: str | None = None, say: Say = warnings.warn) -> dict[str, np.ndarray]:
    """The arrays of `read_checkpoint`; what it chose between several networks goes to `say`. Raises as it does."""
    found = read_checkpoint(path, key)
    if found.note:
        say(found.note)
    return found.arrays


@contextmanager
def of_file(path: Any) -> Iterator[None]:
    """Context: a ValueError is one about this file, and says so, in characters that can be shown."""
    try:
        yield
    except ValueError as error:
        text = "".join(c if c.isprintable() else "?" for c in str(error))
        raise ValueError(text if str(path) in text else f"{path}: {text}") from error


def write_safetensors(path: str | Path, tree: PyTree, metadata: Mapping[str, str] | None = None) -> None:
    """Write a tree of arrays under "/"-joined names, e.g. flax variables; `metadata` are strings kept beside it.

    A digest of the arrays comes along, by which every reader here sees a flipped bit. The file is replaced whole or
    not at all.
    """
    from safetensors.numpy import save_file

    flat = {name: np.asarray(value, order="C") for name, value in flatten(tree).items()}
    with replaced_file(path) as temporary:
        save_file(flat, temporary, {**(metadata or {}), DIGEST: digest(flat)})


def read_safetensors(path: str | Path) -> dict[str, Any]:
    """Read back what `write_safetensors` wrote: a nested dict of NumPy arrays. Raises as `read_state_dict`."""
    path = Path(path)
    _check_file(path)
    return unflatten(_read_safetensors(path))


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings stored beside the arrays of a safetensors file, {} if none. Raises as `read_state_dict`."""
    _check_file(Path(path))
    return {name: text for name, text in _all_metadata(Path(path)).items() if name != DIGEST}


def _all_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except Exception as error:
        raise _damaged(path, error) from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}; give the path of a {', '.join(FORMATS)} file")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path} must end in one of {', '.join(FORMATS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); copy or download it again")


def _damaged(path: Path, error: Exception) -> ValueError:
    line = str(error).rpartition("WeightsUnpickler error:")[2].strip().split("\n")[0]
    reason = "".join(c for c in line if c.isprintable())[:200] or type(error).__name__
    return ValueError(f"{path} is damaged or not a {path.suffix} file ({reason}); copy or download it again")


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: file[name] for name in file.files}
    except Exception as error:  # zip, zlib, NumPy's header parser: each way to be broken has its own kind
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import deserialize

    try:
        stored = deserialize(path.read_bytes())
    except Exception as error:
        raise _damaged(path, error) from error
    unknown = [f"{name} ({about['dtype']})" for name, about in stored if about["dtype"] not in DTYPES]
    if unknown:
        raise ValueError(f"{path} holds numbers of no known kind, {some(unknown)}; save them as float32")
    arrays = {name: np.frombuffer(a["data"], DTYPES[a["dtype"]]).reshape(a["shape"]) for name, a in stored}
    if _all_metadata(path).get(DIGEST) not in (None, digest(arrays)):
        raise _damaged(path, ValueError("its arrays are not those that were written"))
    return arrays


def _read_torch(path: Path) -> dict[Any, Any]:
    try:
        entries = torch_files.read(path)
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs torch: pip install 'quantjax[torch]' (or convert the file to .npz or .safetensors)"
        ) from error
    except torch_files.HoldsObject as held:
        raise ValueError(
            f"{path} holds an object of Python beside its arrays, {held}, and no code of a file is run here. If you "
            "trust it, open it with torch.load(FILE, weights_only=False), save the arrays alone, "
            "torch.save(model.state_dict(), 'weights.pt'), and give that file"
        ) from None
    except Exception as error:  # damaged ones raise nearly anything
        raise _damaged(path, error) from error
    if not isinstance(entries, Mapping):
        raise ValueError(f"{path} holds a {type(entries).__name__}; wanted a state dict of names to arrays")
    return dict(entries)


_READERS = {".npz": _read_npz, ".safetensors": _read_safetensors}


def _as_numpy(name: str, value: Any) -> np.ndarray:
    try:
        array = torch_files.to_numpy(value) if hasattr(value, "detach") else np.asarray(value)
    except Exception as error:  # sparse, quantised, nested: torch has many kinds of tensors
        raise ValueError(f"{name} cannot be read as numbers ({str(error).splitlines()[0]:.120})") from error
    is_float = array.dtype.kind == "f" or array.dtype in (DTYPES["BF16"], DTYPES["F8_E4M3"], DTYPES["F8_E5M2"])
    return array.astype(np.float32) if is_float else array
