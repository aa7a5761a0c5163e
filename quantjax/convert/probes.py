"""Weights of linear probes: a published transformer that a probe is to be trained on, or a probe as it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from quantjax.checks import check_choice
from quantjax.convert.compare import check_finite_weights, difference
from quantjax.convert.transformers import backbone_overrides, to_backbone_variables
from quantjax.convert.wrappings import unwrap
from quantjax.extractors import BACKBONES, FEATURE_BACKBONES, PROBES, SUPERVISED
from quantjax.extractors.positions import resize_positions
from quantjax.extractors.probe import HEAD, TRANSFORMER, join

OWN = f"params/{TRANSFORMER}/"
FOREIGN_HEADS = ("head", "heads.head", "classifier")  # of timm, torchvision, Hugging Face
OWN_HEAD = {leaf: f"params/{HEAD}/{leaf}" for leaf in ("kernel", "bias")}


def is_probe(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the arrays of a probe as quantjax writes one, with its linear layer."""
    return any(name.startswith(OWN) for name in state_dict)


def to_probe_variables(
    state_dict: Mapping[str, np.ndarray], name: str, num_classes: int, image_size: int | None = None
) -> tuple[dict[str, Any], bool]:
    """(variables of BACKBONES[name] for images of image_size pixels, whether they are trained).

    Weights of a transformer alone, under any names that `transformers.to_backbone_variables` reads, get a linear layer
    of zeros and are not; of those in SUPERVISED the published linear layer is taken where it is for so many classes.
    Position embeddings are resized once, here, by the rule of the weights' source; with
    image_size None they keep their size. Raises ValueError as `to_backbone_variables`, for an image_size that is no
    multiple of the patch, and for a linear layer of another class count.
    """
    check_choice("backbone", name, PROBES)
    own = is_probe(state_dict)
    head = {leaf: state_dict[path] for leaf, path in OWN_HEAD.items() if path in state_dict} if own else {}
    arrays = {n: a for n, a in state_dict.items() if n not in OWN_HEAD.values()} if own else state_dict
    if own:
        arrays = {n.replace(OWN, "params/", 1): array for n, array in arrays.items()}
    params = to_backbone_variables(arrays, name)["params"]
    _check_windows(name, backbone_overrides(arrays, name))
    if image_size is not None and "positions" in params:
        params["positions"] = _resized(params["positions"], name, image_size, backbone_overrides(arrays, name))
    if own:
        return join(params, _head(head, name, num_classes)), True
    published = _published_head(state_dict, num_classes) if name in SUPERVISED else None
    return join(params, published or _zeros(name, num_classes)), published is not None


def _check_windows(name: str, overrides: Mapping[str, Any]) -> None:
    """Raise ValueError for a Swin that computes otherwise than a classifier of that name, whatever its sizes say."""
    known = FEATURE_BACKBONES[name].build()
    for attribute in ("window", "shift"):
        if attribute in overrides and overrides[attribute] != getattr(known, attribute):
            raise ValueError(
                f"weights of the classifier {name} have {attribute} {getattr(known, attribute)}, got "
                f"{overrides[attribute]}; give those of a classifier of that window, not of a segmentor"
            )


def _resized(positions: np.ndarray, name: str, image_size: int, overrides: Mapping[str, Any]) -> np.ndarray:
    backbone = FEATURE_BACKBONES[name]
    if image_size % backbone.stride or image_size < 1:
        raise ValueError(f"image_size must be a multiple of the patch of {name}, {backbone.stride}, got {image_size}")
    cells = image_size // backbone.stride
    rule = backbone.build(**overrides).position_rule
    return np.asarray(resize_positions(jnp.asarray(positions), (cells, cells), rule))


def _head(head: Mapping[str, np.ndarray], name: str, num_classes: int) -> dict[str, np.ndarray]:
    kernel = np.shape(head.get("kernel", 0.0))
    classes = kernel[1] if len(kernel) == 2 else num_classes
    problem = difference(head, {"kernel": (BACKBONES[name].feature_dimension, classes), "bias": (classes,)})
    if problem:
        raise ValueError(f"these are not weights of a linear probe on {name}: {problem}")
    if classes != num_classes:
        raise ValueError(
            f"the linear probe is for {classes} classes, but num_classes is {num_classes}; use it with data of "
            f"{classes} classes, or give the weights of the transformer alone"
        )
    check_finite_weights(head)
    return {leaf: np.asarray(array, np.float32) for leaf, array in head.items()}


def _published_head(state_dict: Mapping[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray] | None:
    """The linear layer on the class token under its foreign name, None when there is none for so many classes."""
    arrays = unwrap(state_dict).arrays
    for name in FOREIGN_HEADS:
        weight, bias = (arrays.get(f"{name}.{leaf}") for leaf in ("weight", "bias"))
        if weight is not None and bias is not None and np.shape(weight)[0] == num_classes:
            head = {"kernel": np.asarray(weight, np.float32).T, "bias": np.asarray(bias, np.float32)}
            check_finite_weights(head)
            return {leaf: np.ascontiguousarray(array) for leaf, array in head.items()}
    return None


def _zeros(name: str, num_classes: int) -> dict[str, np.ndarray]:
    shape = (BACKBONES[name].feature_dimension, num_classes)
    return {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(num_classes, np.float32)}
