"""Weights of classifiers -> flax variables of the backbones.

Reads the PyTorch names of energy_ood, Outlier Exposure, VOS and QuantOD for wide networks (`block1.layer.0.bn1.weight`,
`fc.weight`), those of DICE for DenseNet-BC (`trans1.conv1.weight`) and the common ones for residual networks
(`layer1.0.conv1.weight`, `layer2.0.shortcut.0.weight` or `downsample`, `linear.weight` or `fc.weight`); others are in
`classifier_names`. Kernels turn from [F, C, k, k] to [k, k, C, F], linear ones from [K, D] to [D, K].
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
from quantjax.convert.classifier_names import common_names, dialect, names_of, to_foreign
from quantjax.convert.compare import check_finite_weights, difference, heads
from quantjax.convert.files import Say, of_file, read_state_dict
from quantjax.convert.probes import is_probe, to_probe_variables
from quantjax.convert.wrappings import unwrap
from quantjax.extractors import BACKBONES, PROBES
from quantjax.trees import flatten, unflatten
from quantjax.types import Preprocessing

CONVOLUTIONAL = [name for name in BACKBONES if name not in PROBES]
LAST_LAYERS = ("fc.weight", "linear.weight", "params/head/linear/kernel")


def load_classifier(
    path: str | Path, backbone: str, num_classes: int, key: str | None = None, say: Say = warnings.warn
) -> dict[str, Any]:
    """Read a weight file, foreign or of `files.write_safetensors` -> variables of float32 arrays.

    `key` and `say` are those of `files.read_state_dict`. Raises as that and `to_variables`, and names the file.
    """
    arrays = read_state_dict(path, key, say)
    with of_file(path):
        return to_variables(arrays, backbone, num_classes)


def preprocessing_of(state_dict: Mapping[str, np.ndarray], backbone: str) -> Preprocessing:
    """How those who publish weights of BACKBONES[backbone] under these names prepare images.

    Raises ValueError for an unknown backbone.
    """
    check_choice("backbone", backbone, BACKBONES)
    spoken = dialect(unwrap(state_dict).arrays)
    return spoken.preprocessing if spoken else BACKBONES[backbone].preprocessing


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
            raise ValueError(
                f"these are weights of {backbone} without a linear probe for {num_classes} classes: train one on its "
                "class tokens"
            )
        return variables
    own = any(name.startswith("params/") for name in state_dict)
    arrays = dict(state_dict) if own else common_names(state_dict)
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
    arrays = dict(state_dict) if own else common_names(state_dict)
    classes = _class_count(arrays)
    if classes is None:
        return None
    return next((name for name in _alike(arrays) if not _difference(arrays, _template(name, classes, own))), None)


@cache
def _template(backbone: str, classes: int, own: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (our path, wanted shape) of every array of a backbone, under foreign or our own names."""
    model = BACKBONES[backbone].build(classes)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0), images))
    if own:
        return {path: (path, leaf.shape) for path, leaf in shapes.items()}
    names = names_of(backbone)
    return {to_foreign(path, names): (path, _foreign_shape(leaf.shape)) for path, leaf in shapes.items()}


def _foreign_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _to_flax(array: np.ndarray, own: bool) -> np.ndarray:
    array = np.asarray(array, np.float32)
    if own:
        return array
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)


def _class_count(arrays: Mapping[str, np.ndarray]) -> int | None:
    for name in LAST_LAYERS:
        if name in arrays and np.ndim(arrays[name]) == 2:
            return np.shape(arrays[name])[-1 if "/" in name else 0]
    return None


def _difference(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return difference(arrays, {name: shape for name, (_, shape) in wanted.items()})


def _alike(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The convolutional networks that have transitions, or all others: tracing a dense one takes its time."""
    dense = any("trans" in name for name in arrays)
    return [name for name in CONVOLUTIONAL if name.startswith("densenet") == dense]


def _body_of(state_dict: Mapping[str, np.ndarray]) -> list[str]:
    """The networks whose arrays these are but for the last layer."""
    own = any(name.startswith("params/") for name in state_dict)
    arrays = dict(state_dict) if own else common_names(state_dict)
    shapes = {name: _template(name, 1, own) for name in _alike(arrays)}
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
    arrays = common_names(state_dict)
    blocks = [m for m in (re.match(r"block1\.layer\.(\d+)\.conv1\.weight", n) for n in arrays) if m]
    plain = [m for m in (re.match(r"layer1\.(\d+)\.conv1\.weight", n) for n in arrays) if m]
    depth = 6 * len(blocks) + 4
    if "trans1.conv1.weight" in arrays:
        return f"they look like a densely connected network of depth {depth}, which no backbone here is; "
    if blocks and np.ndim(arrays[blocks[0].string]) == 4:
        width = np.shape(arrays[blocks[0].string])[0] // 16
        return f"they look like a wide residual network of depth {depth} and width {width}, which no backbone here is; "
    if plain and not any(n.startswith("layer4.") for n in arrays):
        return f"they look like a CIFAR residual network of depth {6 * len(plain) + 2}, which no backbone here is; "
    return ""
