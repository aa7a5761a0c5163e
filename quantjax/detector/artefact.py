"""A folder with a JSON file and safetensors files that belong together; written whole, read with suspicion.

Scores of held-out inliers lie in a file of their own, which versions that know nothing of them pass over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import quantjax
from quantjax import trees
from quantjax.atomic import replaced_folder
from quantjax.types import PyTree

FORMATS = (1, 2)  # written: the first, unless the content names a later one
CONTENT, ARRAYS, HELD_OUT = "detector.json", "arrays.safetensors", "held_out.safetensors"


def save(
    folder: str | Path,
    content: Mapping[str, Any],
    tree: Mapping[str, PyTree],
    held_out: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write `content`, the arrays of `tree` and those of `held_out`; a kill leaves the old folder or the new one.

    Raises ValueError when `folder` exists and is not such a folder, or content or tree hold NaN or infinity.
    """
    arrays = {name: np.array(leaf, order="C") for name, leaf in trees.flatten(tree).items()}
    _check_finite(arrays, "do not save a diverged model")
    data, (about, more) = to_bytes(arrays), held_out_files(held_out or {})
    head = {"format": FORMATS[0], "quantjax": quantjax.__version__, "arrays_sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps({**head, **about, **content}, indent=2, allow_nan=False) + "\n"
    with replaced_folder(folder, CONTENT) as temporary:
        for name, file in {ARRAYS: data, **more}.items():
            (temporary / name).write_bytes(file)
        (temporary / CONTENT).write_text(text, encoding="utf-8")


def held_out_files(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, str], dict[str, bytes]]:
    """(what the JSON file says, files by name) of arrays of held-out inliers; both empty where there are none."""
    if not arrays:
        return {}, {}
    data = to_bytes(arrays)
    return {"held_out_sha256": hashlib.sha256(data).hexdigest()}, {HELD_OUT: data}


def read_held_out(folder: Path, content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that `held_out_files` wrote, none when the JSON file speaks of none; raises as load does."""
    if "held_out_sha256" not in content:
        return {}
    return _read_arrays(folder / HELD_OUT, content["held_out_sha256"])


def load(folder: str | Path, *known: str) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(content, arrays by name, those of held-out inliers) of what save wrote, checked against each other.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged, of another kind or a newer format.
    """
    folder = Path(folder)
    content = read_json(folder / CONTENT)
    if content.get("kind") not in known:
        wanted, given = " or a ".join(known), content.get("kind")
        raise ValueError(f"{folder / CONTENT} must be a {wanted}, its kind is {given!r:.80}")
    check_format(folder / CONTENT, content)
    arrays = _read_arrays(folder / ARRAYS, content.get("arrays_sha256"))
    _check_finite(arrays, f"{folder / ARRAYS} is of no use: write it again")
    return content, arrays, read_held_out(folder, content)


def check_format(path: Path, content: Mapping[str, Any]) -> None:
    """Raise ValueError when a JSON file is of a format that this version does not read."""
    if content.get("format") not in FORMATS:
        given, version, known = content.get("format"), content.get("quantjax"), " and ".join(map(str, FORMATS))
        raise ValueError(
            f"{path} has format {given!r} (quantjax {version}), this version reads {known}: update quantjax"
        )


def _check_finite(arrays: Mapping[str, np.ndarray], remedy: str) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity; {remedy}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object without NaN; FileNotFoundError or ValueError names the file."""

    def refuse(token: str) -> Any:
        raise ValueError(f"{token} is no JSON number")

    try:
        content = json.loads(read_bytes(path).decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def read_bytes(path: Path) -> bytes:
    """The file's bytes; FileNotFoundError says what a run should have written."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} does not exist: point at a folder that holds it") from None


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name, each in C order, as a safetensors file."""
    from safetensors.numpy import save

    return bytes(save(dict(arrays)))


def _read_arrays(path: Path, digest: Any) -> dict[str, np.ndarray]:
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(
            f"{path} is not the file that its folder was written with (damaged or cut short, {len(data)} bytes): "
            "copy the folder again"
        )
    return _parse_arrays(path, data)


def _parse_arrays(path: Path, data: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        return from_bytes(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no safetensors file of numbers: {error}") from error
