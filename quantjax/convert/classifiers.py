"""Weights of classifiers -> flax variables of the backbones.

Reads the PyTorch names of energy_ood, Outlier Exposure, VOS and QuantOD for wide networks (`block1.layer.0.bn1.weight`,
`fc.weight`) and the common ones for residual networks (`layer1.0.conv1.weight`, `layer2.0.shortcut.0.weight` or
`downsample`, `linear.weight` or `fc.weight`). Kernels turn from [F, C, k, k] to [k, k, C, F], linear ones from [K, D]
to [D, K].
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from quantjax.checks import check_choice
from quantjax.convert.compare import check_finite_weights, difference, heads
from quantjax.convert.files import Say, of_file, read_state_dict
from quantjax.convert.probes import is_probe, to_probe_variables
from quantjax.convert.wrappings import unwrap
from quantjax.extractors import BACKBONES, PROBES
from quantjax.trees import flatten, unflatten

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
CONVOLUTIONAL = [name for name in BACKBONES if name not in PROBES]
LAST_LAYERS = ("fc.weight", "linear.weight", "params/head/linear/kernel")

# our module -> the foreign one; the first pattern that matches a whole module path is used
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


def load_classifier(
    path: str | Path, backbone: str, num_classes: int, key: str | None = None, say: Say = warnings.warn
) -> dict[str, Any]:
    """Read a weight file, foreign or of `files.write_safetensors` -> variables of float32 arrays.

    `key` and `say` are those of `files.read_state_dict`. Raises as that and `to_variables`, and names the file.
    """
    arrays = read_state_dict(path, key, say)
    with of_file(path):
        return to_variables(arrays, backbone, num_classes)


def to_variables(state_dict: Mapping[str, np.ndarray], backbone: str, num_classes: int) -> dict[str, Any]:
    """Foreign names, or our own "/"-joined ones -> {"params", "batch_stats"} for BACKBONES[backbone], float32.

    Linear probes have "params" alone, and our names; `probes.to_probe_variables` also reads a transformer without one.
    Raises ValueError for an unknown backbone, weights of another backbone (named) or class count, missing, unexpected
    or wrongly shaped arrays (all counted, the first few named), and NaN or infinity.
    """
    check_choice("backbone", backbone, BACKBONES)
    if backbone in PROBES:
        variables, trained = to_probe_variables(state_dict, backbone, num_classes)
        if not trained:
            raise ValueError(f"these are weights of {backbone} without a linear probe: train one on its class tokens")
        return variables
    own = any(name.startswith("params/") for name in state_dict)
    arrays = dict(state_dict) if own else _common_names(state_dict)
    classes = _class_count(arrays)
    wanted = _template(backbone, classes or num_classes, own)
    problem = _difference(arrays, wanted)
    if problem:
        raise ValueError(f"these are not weights of {backbone}: {_suspect(state_dict, backbone)}{problem}")
    if classes != num_classes:
        raise ValueError(
            f"the weights are for {classes} classes, but num_classes is {num_classes}; "
            f"use them with data of {classes} classes"
        )
    flat = {path: _to_flax(arrays[name], own) for name, (path, _) in wanted.items()}
    check_finite_weights({name: flat[path] for name, (path, _) in wanted.items()})
    return unflatten(flat)


def identify(state_dict: Mapping[str, np.ndarray]) -> str | None:
    """The convolutional network whose arrays these are, in names and shapes, or None when they fit none."""
    own = any(name.startswith("params/") for name in state_dict)
    arrays = dict(state_dict) if own else _common_names(state_dict)
    classes = _class_count(arrays)
    if classes is None:
        return None
    return next((name for name in CONVOLUTIONAL if not _difference(arrays, _template(name, classes, own))), None)


def to_foreign(path: str, wide: bool) -> str:
    """Our "/"-joined path -> the foreign name, e.g. "params/stem/conv/kernel" -> "conv1.weight"."""
    _, module, leaf = re.fullmatch(r"(\w+)/(.*)/(\w+)", path).groups()  # type: ignore[union-attr]
    for ours, theirs in (WIDE if wide else RESIDUAL).items():
        match = re.fullmatch(ours, module)
        if match:
            return f"{match.expand(theirs)}.{LEAVES[leaf]}"
    raise KeyError(path)


@cache
def _template(backbone: str, classes: int, own: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (our path, wanted shape) of every array of a backbone, under foreign or our own names."""
    model = BACKBONES[backbone].build(classes)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0), images))
    if own:
        return {path: (path, leaf.shape) for path, leaf in shapes.items()}
    wide = backbone.startswith("wrn")
    return {to_foreign(path, wide): (path, _foreign_shape(leaf.shape)) for path, leaf in shapes.items()}


def _foreign_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _to_flax(array: np.ndarray, own: bool) -> np.ndarray:
    array = np.asarray(array, np.float32)
    if own:
        return array
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)


def _common_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Settle on one of the names in use for shortcuts and heads, without what stands before the names."""
    common = {}
    for name, array in unwrap(state_dict).arrays.items():
        if name.startswith("layer"):
            name = name.replace(".downsample.", ".shortcut.")
        common[name] = array
    wide = any(name.startswith("block") for name in common)
    return common if wide else {re.sub(r"^fc\.", "linear.", name): array for name, array in common.items()}


def _class_count(arrays: Mapping[str, np.ndarray]) -> int | None:
    for name in LAST_LAYERS:
        if name in arrays and np.ndim(arrays[name]) == 2:
            return np.shape(arrays[name])[-1 if "/" in name else 0]
    return None


def _difference(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return difference(arrays, {name: shape for name, (_, shape) in wanted.items()})


def _body_of(state_dict: Mapping[str, np.ndarray]) -> list[str]:
    """The networks whose arrays these are but for the last layer."""
    own = any(name.startswith("params/") for name in state_dict)
    arrays = dict(state_dict) if own else _common_names(state_dict)
    shapes = {name: _template(name, 1, own) for name in CONVOLUTIONAL}
    return [name for name, wanted in shapes.items() if not _difference(_headless(arrays), _headless(wanted))]


def _headless(named: Mapping[str, Any]) -> dict[str, Any]:
    last = set(heads(named))
    return {name: value for name, value in named.items() if name not in last}


def _suspect(state_dict: Mapping[str, np.ndarray], backbone: str) -> str:
    """A sentence that names the backbone these weights fit, "" when there is none or they differ in the head alone."""
    body = _body_of(state_dict)
    if backbone in body:
        return ""
    for found in body:
        return f"they are weights of {found}, so choose that backbone; "
    if is_probe(state_dict):
        return f"they are a linear probe on a transformer, one of {', '.join(PROBES)}; "
    arrays = _common_names(state_dict)
    wide = [m for m in (re.match(r"block1\.layer\.(\d+)\.conv1\.weight", n) for n in arrays) if m]
    plain = [m for m in (re.match(r"layer1\.(\d+)\.conv1\.weight", n) for n in arrays) if m]
    if wide and np.ndim(arrays[wide[0].string]) == 4:
        depth, width = 6 * len(wide) + 4, np.shape(arrays[wide[0].string])[0] // 16
        return f"they look like a wide residual network of depth {depth} and width {width}, which no backbone here is; "
    if plain and not any(n.startswith("layer4.") for n in arrays):
        return f"they look like a CIFAR residual network of depth {6 * len(plain) + 2}, which no backbone here is; "
    return ""
