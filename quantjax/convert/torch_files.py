"""Checkpoints of PyTorch: arrays and plain values are read, nothing in the file is executed."""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

OWN = ("torch.", "torch_utils.", "collections.", "_codecs.", "__builtin__.", "builtins.")  # what plain ones name, too
REFUSED = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)|but got <class '([^']+)'>")


class HoldsObject(ValueError):
    """The file is sound, and holds something that is neither an array nor a plain value."""


def read(path: Path) -> Any:
    """What torch.save wrote, mostly a dict; raises HoldsObject, and for a damaged file whatever torch raises."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols that are read all the same
            entries = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        held = _refused(path, str(error))
        if held is None:
            raise
        raise HoldsObject(held) from None
    return entries


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor of any dtype; floats become float32. Raises ValueError for one that holds no plain numbers."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise ValueError("it is no dense tensor of numbers: save it with .to_dense() or .dequantize()")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _refused(path: Path, message: str) -> str | None:
    """The object that stops torch, as printable text; None when the file is damaged or no checkpoint."""
    match = REFUSED.search(message)
    named = [match[1] or match[2]] if match else _foreign_globals(path)
    return "".join(c for c in named[0] if c.isprintable())[:120] if named else None


def _foreign_globals(path: Path) -> list[str]:
    """What the pickle in the file asks for by name, found without loading; of a damaged one nothing."""
    if zipfile.is_zipfile(path):
        return []  # torch names it
    names: list[str] = []
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(path.read_bytes())):
            if "UNICODE" in opcode.name:
                texts.append(str(argument))
            if opcode.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            if opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
    except Exception:  # pickletools stops at the first thing it does not know, in many ways
        return []
    return [name for name in names if not name.startswith(OWN)]
