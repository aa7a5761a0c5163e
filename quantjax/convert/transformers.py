"""Weights of vision transformers -> flax variables of the backbones of segmentors.

Reads the names of DINOv2's authors, of Hugging Face's DINOv2 (with and without registers) and CLIP, of OpenAI's CLIP,
and our own. Linear kernels turn from [D, C] to [C, D], patch kernels from [C, 3, p, p] to [p, p, 3, C]; queries, keys
and values become one product.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from quantjax.checks import check_choice
from quantjax.convert.compare import check_finite_weights, difference, some
from quantjax.convert.files import flatten, read_state_dict, unflatten
from quantjax.convert.transformer_names import Family, find_family, our_name, own_part
from quantjax.extractors import FEATURE_BACKBONES

HUB = "hf:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
LEAVES = {"weight": "scale", "bias": "bias"}


def read_backbone(spec: str | Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a weight file, or "hf:<owner>/<repository>" of the Hugging Face hub -> (variables, overrides).

    `FEATURE_BACKBONES[name].build(**overrides)` is the module that the variables {"params": ...} fit: overrides hold
    the grid of the position embeddings and how their source resizes them. Raises as `files.read_state_dict` and
    `to_backbone_variables`; for the hub ImportError when huggingface_hub is missing, ConnectionError when offline
    without a copy in its cache, FileNotFoundError when the repository or its weights do not exist.
    """
    path = download(str(spec).removeprefix(HUB)) if str(spec).startswith(HUB) else Path(spec)
    state = _read_torchscript(path) if _is_torchscript(path) else read_state_dict(path)
    return _convert(state, name)


def to_backbone_variables(state_dict: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """Foreign names, or our own "/"-joined ones -> {"params": ...} for FEATURE_BACKBONES[name], float32.

    Raises ValueError for an unknown backbone, names of no known source, weights of another size (both named), missing,
    unexpected or wrongly shaped arrays (all counted, the first few named), and NaN or infinity.
    """
    return _convert(state_dict, name)[0]


def backbone_overrides(state_dict: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """The keywords with which FEATURE_BACKBONES[name].build fits these weights. Raises as `to_backbone_variables`."""
    return _convert(state_dict, name)[1]


def download(repository: str) -> Path:
    """Fetch a repository's weights from the Hugging Face hub into its cache; errors as `read_backbone`."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise ImportError(
            f"reading {HUB}{repository} needs huggingface_hub: pip install huggingface_hub (or fetch "
            f"{HUB_FILES[0]} of https://huggingface.co/{repository} yourself and give its path)"
        ) from error
    offline: Exception | None = None
    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(repository, file))
        except errors.LocalEntryNotFoundError as error:
            offline = error
        except errors.EntryNotFoundError:
            continue
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise FileNotFoundError(
                f"the Hugging Face hub has no repository {repository!r} that you may read; "
                "wanted hf:<owner>/<repository>, e.g. hf:facebook/dinov2-with-registers-base"
            ) from error
        except (errors.HfHubHTTPError, OSError) as error:
            offline = error
    if offline is None:
        raise FileNotFoundError(
            f"{HUB}{repository} holds neither {' nor '.join(HUB_FILES)}; give a file's path instead"
        )
    raise ConnectionError(
        f"{HUB}{repository} is not in the cache and the Hugging Face hub cannot be reached; go online, or fetch "
        f"{HUB_FILES[0]} of that repository on another machine and give its path"
    ) from offline


def _convert(state_dict: Mapping[str, np.ndarray], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    check_choice("backbone", name, FEATURE_BACKBONES)
    arrays, family = _our_arrays(state_dict)
    overrides = _overrides(arrays, family)
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
    family = find_family(list(state_dict))
    if family is None:
        raise ValueError(
            "these are no weights of a transformer that is known here: wanted the names of facebookresearch, Hugging "
            f"Face, OpenAI or quantjax, got {some(list(state_dict)) or 'none'}"
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
    return arrays, family


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
    side = round((len(array) - 1) ** 0.5)
    if side * side != len(array) - 1:
        raise ValueError(
            f"position embeddings must be one for the class token and a square of patches, got {len(array)} rows; "
            "copy or download the weights again"
        )
    return {"params/class_position": array[:1], "params/positions": array[1:].reshape(side, side, -1)}


def _overrides(arrays: Mapping[str, np.ndarray], family: Family | None) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    positions = arrays.get("params/positions")
    if positions is not None and positions.ndim == 3:
        overrides["grid"] = positions.shape[:2]
    if family is not None:
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
    given, wanted = _size({path: np.shape(a) for path, a in arrays.items()}), _size(_template(name))
    if given == wanted:
        return ""
    fitting = [other for other in FEATURE_BACKBONES if other != name and _size(_template(other)) == given]
    advice = f"choose {' or '.join(fitting)}" if fitting else "no backbone here is of that size, or the file is cut off"
    return f"they are of {given}, but {name} is {wanted}; {advice}; "


def _size(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What distinguishes one transformer from another, in words."""
    kernel = shapes.get("params/patches/kernel", (0, 0, 0, 0))
    depth = len({path.split("/")[1] for path in shapes if path.startswith("params/block_")})
    registers = shapes.get("params/registers", (0,))[0]
    clip = "CLIP's " if "params/pre_norm/scale" in shapes else ""
    gains = "" if clip or "params/block_0/scale1" in shapes else ", no branch gains"
    return f"{clip}patch {kernel[0]}, width {kernel[-1]}, depth {depth}, {registers} registers{gains}"


def _is_torchscript(path: Path) -> bool:
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    with zipfile.ZipFile(path) as file:
        return any("/code/" in entry for entry in file.namelist())


def _read_torchscript(path: Path) -> dict[str, np.ndarray]:
    """The weights of a compiled program, the form in which OpenAI publishes CLIP."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs torch: pip install 'quantjax[torch]' (or convert the file to .npz or .safetensors)"
        ) from error
    state = torch.jit.load(path, map_location="cpu").state_dict()
    return {name: value.float().numpy() for name, value in state.items()}
