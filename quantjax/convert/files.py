"""Weight files: PyTorch state dicts in any of three formats, and our own trees as safetensors.

A state dict is a plain dict of names to NumPy arrays, whatever file it came from. Our trees are stored under "/"-joined
names, e.g. "params/stem/conv/kernel".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantjax.atomic import replaced_file
from quantjax.trees import digest, flatten, unflatten
from quantjax.types import PyTree

FORMATS = (".npz", ".safetensors", ".pt", ".pth", ".bin")
DIGEST = "quantjax.sha256"  # key of the metadata of files that are ours
WRAPPERS = ("state_dict", "model_state_dict", "cls_state_dict", "model")


def read_state_dict(path: str | Path, wrapper: str | None = None) -> dict[str, np.ndarray]:
    """Read a state dict from .npz, .safetensors or .pt/.pth/.bin (the last three need torch); "module." is stripped.

    Half-precision arrays become float32. A dict that holds the state dict under "state_dict", "model_state_dict",
    "cls_state_dict" or "model" is unwrapped; name another one with `wrapper`, e.g. "nfs_state_dict". Raises
    FileNotFoundError for a missing file, ValueError for one that is empty, damaged, not of its format or holds no
    arrays, ImportError when torch is missing. Nothing in the file is executed.
    """
    path = Path(path)
    _check_file(path)
    if path.suffix == ".npz":
        entries = _read_npz(path)
    elif path.suffix == ".safetensors":
        entries = _read_safetensors(path)
    else:
        entries = _read_torch(path)
    arrays = _unwrap(entries, wrapper, path)
    if not arrays:
        raise ValueError(f"{path} holds no arrays; wanted a state dict of names to arrays")
    return {_strip(name): _as_numpy(value) for name, value in arrays.items()}


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
    from safetensors import safe_open

    _check_file(Path(path))
    try:
        with safe_open(path, "np") as file:
            return {name: text for name, text in (file.metadata() or {}).items() if name != DIGEST}
    except Exception as error:
        raise _damaged(Path(path), error) from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}; give the path of a {', '.join(FORMATS)} file")
    if path.suffix not in FORMATS:
        raise ValueError(f"{path} must end in one of {', '.join(FORMATS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); copy or download it again")


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = str(error).split("\n")[0][:200] or type(error).__name__
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
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stored = (file.metadata() or {}).get(DIGEST)
        if stored not in (None, digest(arrays)):
            raise ValueError("its arrays are not those that were written")
        return arrays
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs torch: pip install 'quantjax[torch]' (or convert the file to .npz or .safetensors)"
        ) from error
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # here too
        raise _damaged(path, error) from error
    if not isinstance(entries, Mapping):
        raise ValueError(f"{path} holds a {type(entries).__name__}; wanted a state dict of names to arrays")
    return dict(entries)


def _unwrap(entries: Mapping[str, Any], wrapper: str | None, path: Path) -> Mapping[str, Any]:
    if wrapper is not None:
        if not isinstance(entries.get(wrapper), Mapping):
            raise ValueError(f"{path} holds no {wrapper!r}; it holds {', '.join(map(str, list(entries)[:8]))}")
        return entries[wrapper]
    inner = next((entries[w] for w in WRAPPERS if isinstance(entries.get(w), Mapping)), None)
    if inner is not None:
        return inner
    wrapped = [k for k, v in entries.items() if isinstance(v, Mapping)]
    if wrapped:
        raise ValueError(f"{path} wraps its state dict as {', '.join(wrapped)}: name the one to read")
    return entries


def _strip(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _as_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach()
        value = (value.float() if value.is_floating_point() else value).numpy()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array
