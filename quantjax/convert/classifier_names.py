"""The names that published convolutional classifiers give their arrays, and ours for them.

A table maps patterns of our modules to the foreign ones; the first pattern that matches a whole module path is used.
`common_names` brings the names that only some publishers use to those of the tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from quantjax.convert.wrappings import unwrap
from quantjax.extractors import CIFAR
from quantjax.types import Preprocessing

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

WIDE = {
    r"stem(/conv)?": "conv1",
    r"stem/norm": "block1.layer.0.bn1",
    r"group(\d)_(\d+)/norm1": r"block\1.layer.\2.bn1",
    r"group(\d)_(\d+)/conv1/conv": r"block\1.layer.\2.conv1",
    r"group(\d)_(\d+)/conv1/norm": r"block\1.layer.\2.bn2",
    r"group(\d)_(\d+)/conv2": r"block\1.layer.\2.conv2",
    r"group(\d)_(\d+)/shortcut": r"block\1.layer.\2.convShortcut",
    r"norm": "bn1",
    r"head/linear": "fc",
}
RESIDUAL = {
    r"stem/conv": "conv1",
    r"stem/norm": "bn1",
    r"group(\d)_(\d+)/conv(\d)/conv": r"layer\1.\2.conv\3",
    r"group(\d)_(\d+)/conv(\d)/norm": r"layer\1.\2.bn\3",
    r"group(\d)_(\d+)/shortcut/conv": r"layer\1.\2.shortcut.0",
    r"group(\d)_(\d+)/shortcut/norm": r"layer\1.\2.shortcut.1",
    r"head/linear": "linear",
}
DENSE = {
    r"stem": "conv1",
    r"transition(\d)/norm1": r"trans\1.bn1",
    r"transition(\d)/conv1": r"trans\1.conv1",
    **{ours: theirs for ours, theirs in WIDE.items() if not ours.startswith("stem")},
}


class Dialect(NamedTuple):
    """Other names for the arrays of one of the tables, and how those who use them prepare images."""

    mark: str
    """Pattern that only names of this dialect hold"""
    renames: Mapping[str, str]
    """Pattern -> the name of the table, each applied to every name"""
    preprocessing: Preprocessing
    """What weights under these names expect"""


# Wide residual networks of the reproduction of "Zero-shot Knowledge Transfer via Adversarial Belief Matching"
# (NeurIPS 2019 challenge, A. Ferles and others)
BELIEF_MATCHING = Dialect(
    r"^block\d\.nblockLayer\.",
    {
        r"\.nblockLayer\.": ".layer.",
        r"\bbatch_norm(\d)\.": r"bn\1.",
        r"^batch_norm\.": "bn1.",
        r"\.conv_inp\.": ".convShortcut.",
    },
    CIFAR,
)
DIALECTS = (BELIEF_MATCHING,)


def names_of(backbone: str) -> Mapping[str, str]:
    """The table by which a convolutional backbone's arrays are named."""
    return WIDE if backbone.startswith("wrn") else DENSE if backbone.startswith("densenet") else RESIDUAL


def to_foreign(path: str, names: Mapping[str, str]) -> str:
    """Our "/"-joined path -> the foreign name of a table, e.g. "params/stem/conv/kernel" -> "conv1.weight"."""
    _, module, leaf = re.fullmatch(r"(\w+)/(.*)/(\w+)", path).groups()  # type: ignore[union-attr]
    for ours, theirs in names.items():
        match = re.fullmatch(ours, module)
        if match:
            return f"{match.expand(theirs)}.{LEAVES[leaf]}"
    raise KeyError(path)


def common_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One of the names in use for every array, without what stands before the names."""
    arrays = unwrap(state_dict).arrays
    spoken = dialect(arrays)
    common = {}
    for name, array in arrays.items():
        for theirs, ours in (spoken.renames if spoken else {}).items():
            name = re.sub(theirs, ours, name)
        if name.startswith("layer"):
            name = name.replace(".downsample.", ".shortcut.")
        common[name] = array
    in_blocks = any(name.startswith("block") for name in common)
    return common if in_blocks else {re.sub(r"^fc\.", "linear.", name): array for name, array in common.items()}


def dialect(names: Mapping[str, np.ndarray]) -> Dialect | None:
    """The dialect whose mark one of the names holds."""
    return next((d for d in DIALECTS if any(re.search(d.mark, name) for name in names)), None)
