"""A folder with one JSON file and one safetensors file that belong together; written whole, read with suspicion."""

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

FORMAT = 1
CONTENT, ARRAYS = "detector.json", "arrays.safetensors"


def save(folder: str | Path, content: Mapping[str, Any], tree: Mapping[str, PyTree]) -> None:
    """Write `content` and the arrays of `tree`; a kill leaves the old folder or the new one.

    Raises ValueError when `folder` exists and is not such a folder, or content or arrays hold NaN or infinity.
    """
    from safetensors.numpy import save as to_bytes

    arrays = {name: np.array(leaf, order="C") for name, leaf in trees.flatten(tree).items()}
    _check_finite(arrays, "do not save a diverged model")
    data = to_bytes(arrays)
    head = {"format": FORMAT, "quantjax": quantjax.__version__, "arrays_sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps({**head, **content}, indent=2, allow_nan=False) + "\n"
    with replaced_folder(folder, CONTENT) as temporary:
        (temporary / ARRAYS).write_bytes(data)
        (temporary / CONTENT).write_text(text, encoding="utf-8")


def load(folder: str | Path, *known: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(content, arrays by name) of what save wrote, checked against each other.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged, of another kind or a newer format.
    """
    folder = Path(folder)
    content = read_json(folder / CONTENT)
    if content.get("kind") not in known:
        wanted, given = " or a ".join(known), content.get("kind")
        raise ValueError(f"{folder / CONTENT} must be a {wanted}, its kind is {given!r:.80}")
    if content.get("format") != FORMAT:
        given, version = content.get("format"), content.get("quantjax")
        raise ValueError(
            f"{folder / CONTENT} has format {given!r} (quantjax {version}), this version reads {FORMAT}: "
            "update quantjax"
        )
    data = read_bytes(folder / ARRAYS)
    if hashlib.sha256(data).hexdigest() != content.get("arrays_sha256"):
        raise ValueError(
            f"{folder / ARRAYS} is not the file that {CONTENT} was written with (damaged or cut short, {len(data)} "
            "bytes): copy the folder again"
        )
    arrays = _parse_arrays(folder / ARRAYS, data)
    _check_finite(arrays, f"{folder / ARRAYS} is of no use: write it again")
    return content, arrays


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


def _parse_arrays(path: Path, data: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        return from_bytes(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no safetensors file of numbers: {error}") from error
