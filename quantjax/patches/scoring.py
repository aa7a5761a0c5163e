"""Scores of a scene's patches, window by window: what evaluation, calibration and the shipped detector all run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from quantjax import methods, resize
from quantjax.inference import sliding
from quantjax.patches.fit import PatchMethod, score_rows
from quantjax.patches.network import PatchNetwork, named_features
from quantjax.types import Array, PyTree

PREDICTION = "prediction"  # as in segmentation: there is one class, number 0


def make_scorer(
    network: PatchNetwork,
    method: PatchMethod,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int = 8,
    products: str | None = None,
    devices: Sequence[Any] | None = None,
) -> Callable[..., dict[str, np.ndarray]]:
    """run((variables, params), image uint8 [H, W, 3]) -> {name of the method: [H, W], "prediction": [H, W]}.

    The image may have any size; params are FittedPatches.params. Window, stride (pixels), batch_size (windows) and
    devices as of inference.sliding; products as of `windows`.
    """
    sizes: dict[str, Any] = {"window": window, "stride": stride, "batch_size": batch_size, "devices": devices}
    return sliding(windows(network, method, products), finish(method.name), **sizes)


def windows(
    network: PatchNetwork, method: PatchMethod, products: str | None = None
) -> Callable[[tuple[PyTree, PyTree], Array], tuple[Array]]:
    """fn((variables, params), uint8 [B, h, w, 3]) -> (scores [B, h, w, 1],): those of the patches, bilinear between.

    Scores of several maps are standardised by what the reference patches scored, then added up. Products is the
    precision of the network's matrix products; None leaves it as it is set.
    """

    def run(weights: tuple[PyTree, PyTree], images: Array) -> tuple[Array]:
        variables, params = weights
        parts = patch_scores(method, params, named_features(network, products, variables, images))
        return (sum((resize.bilinear(part, images.shape[1:3]) for part in parts.values()), jnp.zeros(())),)

    return run


def patch_scores(method: PatchMethod, params: PyTree, maps: dict[str, Array]) -> dict[str, Array]:
    """Standardised scores [B, h, w, 1] of every map [B, h, w, C] by name; higher = more outlying."""
    known = methods.get(method.name)
    found = {}
    for name, settings in zip(method.maps, method.settings, strict=True):
        rows, own = maps[name].reshape(-1, maps[name].shape[-1]), params[name]
        scores = (score_rows(known, settings, own["method"], rows) - own["mean"]) / own["deviation"]
        found[name] = scores.reshape(*maps[name].shape[:3], 1)
    return found


def finish(name: str) -> Callable[[tuple[Array]], dict[str, Array]]:
    """fn((scores [H, W, 1],)) -> {name: [H, W] float32, "prediction": zeros [H, W] uint8}."""

    def run(averages: tuple[Array]) -> dict[str, Array]:
        (scores,) = averages
        return {name: scores[..., 0].astype(jnp.float32), PREDICTION: jnp.zeros(scores.shape[:2], jnp.uint8)}

    return run
