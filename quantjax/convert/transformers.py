"""Weights of vision transformers -> flax variables of the backbones of segmentors.

Reads the names of the authors of DINOv2, CLIP and Swin, those of Hugging Face for them (DINOv2 with and without
registers) and for ViT, those of timm for DINOv2, ViT and DeiT, those of torchvision for ViT, and our own. What a file
does not say is decided by its source: how positions are resized (`transformer_names`), and whether Swin's windows move
on maps of one window (`swin`: always where every map has a norm, as in segmentors; not so in classifiers). Nothing
tells GELU from QuickGELU: the backbone's name does.

Linear kernels turn from [D, C] to [C, D], patch kernels from [C, 3, p, p] to [p, p, 3, C];
queries, keys and values become one product. Weights of Swin classifiers have a norm for the last map only: that of the
others starts as scale one and bias zero.
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
from quantjax.convert.compare import check_finite_weights, difference, some
from quantjax.convert.files import Say, of_file
from quantjax.convert.hub import read_weights
from quantjax.convert.transformer_names import CLASSIFIER_NORM, Family, find_family, our_name, own_part
from quantjax.convert.wrappings import unwrap
from quantjax.extractors import FEATURE_BACKBONES, SwinTransformer, VisionTransformer
from quantjax.trees import flatten, unflatten

STAGE_NORM = r"(^|\.)(norm0|hidden_states_norms\.stage1)\.weight$"
SWIN_TABLE = "params/stage_0_block_0/attention/positions"
LEAVES = {"weight": "scale", "bias": "bias"}


def read_backbone(
    spec: str | Path, name: str, key: str | None = None, say: Say = warnings.warn
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a weight file, or "hf:<owner>/<repository>" of the Hugging Face hub -> (variables, overrides).

    `FEATURE_BACKBONES[name].build(**overrides)` is the module that the variables {"params": ...} fit: overrides hold
    the grid of the position embeddings and how their source resizes them, or Swin's window and rule of shifts.
    `key` and `say` are those of `files.read_state_dict`. Raises as `hub.read_weights` and `to_backbone_variables`, and
    names the file.
    """
    arrays = read_weights(spec, key, say)
    with of_file(spec):
        return _convert(arrays, name)


def to_backbone_variables(state_dict: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """Foreign names, or our own "/"-joined ones -> {"params": ...} for FEATURE_BACKBONES[name], float32.

    Raises ValueError for an unknown backbone, names of no known source, weights of another size (both named), missing,
    unexpected or wrongly shaped arrays (all counted, the first few named), and NaN or infinity.
    """
    return _convert(state_dict, name)[0]


def backbone_overrides(state_dict: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """The keywords with which FEATURE_BACKBONES[name].build fits these weights. Raises as `to_backbone_variables`."""
    return _convert(state_dict, name)[1]


def assumption(name: str, overrides: Mapping[str, Any] | None = None) -> str:
    """A sentence about what weights of FEATURE_BACKBONES[name] do not say and was assumed, "" when they say all."""
    module = FEATURE_BACKBONES[name].build(**(overrides or {}))
    if isinstance(module, SwinTransformer):
        moves = "always move" if module.shift == "always" else "stay on maps of one window"
        return f"{name}: windows {moves}, shift {module.shift}"
    if module.style != "clip":
        return ""
    plain = name.removesuffix("_gelu")
    if name == plain:
        return f"{name}: QuickGELU, as in OpenAI's weights; for weights trained with GELU name {name}_gelu"
    return f"{name}: GELU, as in most of OpenCLIP's weights; for weights trained with QuickGELU name {plain}"


def _convert(state_dict: Mapping[str, np.ndarray], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    check_choice("backbone", name, FEATURE_BACKBONES)
    arrays, family = _our_arrays(state_dict)
    module = FEATURE_BACKBONES[name].build()
    overrides = {k: v for k, v in _overrides(arrays, family, list(state_dict)).items() if hasattr(module, k)}
    wanted = _template(name, tuple(overrides.items()))
    problem = difference(arrays, wanted)
    if problem:
        raise ValueError(f"these are not weights of {name}: {_suspect(arrays, name)}{problem}")
    flat = {path: np.ascontiguousarray(arrays[path], np.float32) for path in wanted}
    check_finite_weights(flat)
    return unflatten(flat), overrides


def _our_arrays(state_dict: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Family | None]:
    """All arrays under our paths, in our layouts; those that have no path of ours keep their names."""
    if any(name.startswith("params/") for name in state_dict):
        return {name: np.asarray(array) for name, array in state_dict.items()}, None
    state_dict = unwrap(state_dict).arrays
    family = find_family(list(state_dict))
    if family is None:
        raise ValueError(
            "these are no weights of a transformer that is known here: wanted the names of facebookresearch, timm, "
            f"Hugging Face, OpenAI or quantjax, got {some(list(state_dict)) or 'none'}"
        )
    named, arrays = {}, {}
    for foreign, array in own_part(state_dict, family).items():
        ours = our_name(foreign, family)
        if ours is None:
            arrays[foreign] = np.asarray(array)
        elif ours:
            named[ours] = np.asarray(array)
    for path, array in _joined(named).items():
        arrays |= _placed(path, array)
    return _with_stage_norms(arrays), family


def _joined(named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Queries, keys and values one under the other where all three are there."""
    joined = {}
    for path, array in named.items():
        stem, mark, ending = path.partition("@")
        parts = [f"{stem}@{i}{ending[1:]}" for i in range(3)]
        if not mark or any(part not in named for part in parts):
            joined[path] = array
        elif ending[0] == "0":
            joined[stem + ending[1:]] = np.concatenate([named[part] for part in parts])
    return joined


def _placed(path: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """One array under our path(s), "params/" in front, in our layout."""
    stem, _, ending = path.partition(".")
    if stem == "positions":
        return _placed_positions(array.reshape(-1, array.shape[-1]))
    if stem in ("class_token", "registers"):
        return {f"params/{stem}": array.reshape(-1, array.shape[-1])}
    if ending == "weight" and array.ndim > 1:
        return {f"params/{stem}/kernel": array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T}
    return {f"params/{stem}/{LEAVES[ending]}" if ending else f"params/{stem}": array}


def _placed_positions(array: np.ndarray) -> dict[str, np.ndarray]:
    side = round(len(array) ** 0.5)
    if side * side == len(array):  # timm's, which has added the class token's position to the token itself
        array = np.concatenate([np.zeros_like(array[:1]), array])
    side = round((len(array) - 1) ** 0.5)
    if side * side != len(array) - 1:
        raise ValueError(
            f"position embeddings must be one for the class token and a square of patches, got {len(array)} rows; "
            "copy or download the weights again"
        )
    return {"params/class_position": array[:1], "params/positions": array[1:].reshape(side, side, -1)}


def _with_stage_norms(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Swin: the norm of the classifier becomes that of the last map, unless each map has one of its own."""
    rest = {path: array for path, array in arrays.items() if f"/{CLASSIFIER_NORM}/" not in path}
    if len(rest) == len(arrays) or any(path.startswith("params/norm_") for path in rest):
        return rest
    for leaf, fill in (("scale", np.ones), ("bias", np.zeros)):
        last = arrays.get(f"params/{CLASSIFIER_NORM}/{leaf}")
        if last is not None:
            rest |= {f"params/norm_{i}/{leaf}": fill(len(last) >> (3 - i), np.float32) for i in range(3)}
            rest[f"params/norm_3/{leaf}"] = last
    return rest


def _overrides(arrays: Mapping[str, np.ndarray], family: Family | None, names: list[str]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    positions, table = arrays.get("params/positions"), arrays.get(SWIN_TABLE)
    if positions is not None and positions.ndim == 3:
        overrides["grid"] = positions.shape[:2]
    if table is not None:
        overrides["window"] = (round(len(table) ** 0.5) + 1) // 2  # of (2 window - 1)^2 rows
    if table is not None and family is not None:
        overrides["shift"] = "always" if any(re.search(STAGE_NORM, name) for name in names) else "larger_maps"
    if family is not None and family.rule is not None:
        overrides["position_rule"] = "antialiased" if "params/registers" in arrays else family.rule
    return overrides


@cache
def _template(name: str, overrides: tuple[tuple[str, Any], ...] = ()) -> dict[str, tuple[int, ...]]:
    """Our path -> shape of every array of a backbone."""
    backbone = FEATURE_BACKBONES[name]
    images = jax.ShapeDtypeStruct((1, backbone.stride, backbone.stride, 3), np.float32)
    shapes = jax.eval_shape(backbone.build(**dict(overrides)).init, jax.random.key(0), images)
    return {path: leaf.shape for path, leaf in flatten(shapes).items()}


def _suspect(arrays: Mapping[str, np.ndarray], name: str) -> str:
    """A sentence with both sizes and the backbones that these weights may be of, "" when the sizes agree."""
    given, wanted = _size(arrays), _size_of_backbone(name)
    if given == wanted:
        return ""
    fitting = [other for other in FEATURE_BACKBONES if _size_of_backbone(other) == given]
    advice = f"choose {' or '.join(fitting)}" if fitting else "no backbone here is of that size, or the file is cut off"
    return f"they are of {given}, but {name} is {wanted}; {advice}; "


def _size(arrays: Mapping[str, np.ndarray]) -> str:
    """What distinguishes one transformer from another, in words."""
    kernel = np.shape(arrays.get("params/patches/kernel", np.zeros((0, 0, 0, 0))))
    blocks = {path.split("/")[1] for path in arrays if "block_" in path}
    stages = [block.split("_")[1] for block in blocks if block.startswith("stage_")]
    if stages:
        depths = tuple(stages.count(stage) for stage in sorted(set(stages)))
        return f"Swin, patch {kernel[0]}, width {kernel[-1]}, depths {depths}"
    style = "CLIP" if "params/pre_norm/scale" in arrays else "DINOv2"
    registers = len(arrays.get("params/registers", ()))
    gains = "params/block_0/scale1" in arrays
    return _plain_size(style, kernel[0], kernel[-1], len(blocks), registers, gains)


def _size_of_backbone(name: str) -> str:
    module = FEATURE_BACKBONES[name].build()
    if not isinstance(module, VisionTransformer):
        return f"Swin, patch {module.patch}, width {module.width}, depths {module.depths}"
    style = "CLIP" if module.style == "clip" else "DINOv2"
    return _plain_size(style, module.patch, module.width, module.depth, module.registers, module.scale_branches)


def _plain_size(style: str, patch: int, width: int, depth: int, registers: int, gains: bool) -> str:
    without = ", no gains of branches" if style == "DINOv2" and not gains else ""
    return f"{style}'s kind, patch {patch}, width {width}, depth {depth}, {registers} registers{without}"
