"""A backbone at inference: batch norms folded, batches in slices that fit the caches.

With a = scale / sqrt(variance + 1e-5), norm(conv(x)) = conv(x, kernel * a) + (bias - mean * a), so every norm that
directly follows a convolution disappears into it (all of ResNet's, 19 of WRN-40-2's 37); any other becomes the
multiply-add x * a + (bias - mean * a).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from quantjax.extractors.layers import layer_statistics
from quantjax.extractors.normalization import EPSILON
from quantjax.types import Array, ClassifierOutput

Tree = Mapping[str, Any]


def _multiply_add(norm: Tree, statistics: Tree) -> tuple[np.ndarray, np.ndarray]:
    """The norm as x * a + b, computed in float64: a [C], b [C]."""
    scale, bias, mean, variance = (
        np.asarray(v, np.float64) for v in (norm["scale"], norm["bias"], statistics["mean"], statistics["var"])
    )
    a = scale / np.sqrt(variance + EPSILON)
    return a, bias - mean * a


def _fold_tree(params: Tree, statistics: Tree) -> dict[str, Any]:
    if "scale" in params and "mean" in statistics:
        a, b = _multiply_add(params, statistics)
        return {"scale": a.astype(np.float32), "bias": b.astype(np.float32)}
    if "conv" in params and "norm" in params:
        a, b = _multiply_add(params["norm"], statistics["norm"])
        kernel = np.asarray(params["conv"]["kernel"], np.float64) * a
        return {"conv": {"kernel": kernel.astype(np.float32), "bias": b.astype(np.float32)}}
    return {k: _fold_tree(v, statistics.get(k, {})) if isinstance(v, Mapping) else v for k, v in params.items()}


def fold(model: nn.Module, variables: Tree) -> tuple[nn.Module, dict[str, Any]]:
    """(model, {"params", "batch_stats"}) -> (model', {"params"}), equal in evaluation mode to float32 rounding.

    The folded model cannot be trained; one without batch norms comes back as it is. Raises ValueError when the model is
    folded already or the statistics are missing.
    """
    if not hasattr(model, "folded"):
        return model, {"params": variables["params"]}
    if model.folded:
        raise ValueError("model is folded already")
    if not variables.get("batch_stats"):
        raise ValueError('variables must hold "params" and "batch_stats", got ' + ", ".join(map(repr, variables)))
    return model.clone(folded=True), {"params": _fold_tree(variables["params"], variables["batch_stats"])}


def extract(model: nn.Module, variables: Tree, images: Array, rows: int = 16, *, layers: bool = False) -> Any:
    """Logits [B, K] and features [B, D] of standardised images [B, H, W, C] in evaluation mode.

    With `layers` a third thing comes with them, `layer_statistics` of the named maps.

    On a CPU the batch is worked through `rows` at a time, inside the same computation: the maps of larger batches leave
    the caches, which costs 10-20 %. Other devices take the batch whole.
    """

    def whole(images: Array) -> Any:
        out: ClassifierOutput = model.apply(variables, images)  # type: ignore[assignment]
        found = out.logits, out.features
        return (*found, layer_statistics(out.intermediates)) if layers else found

    return jax.lax.platform_dependent(images, cpu=lambda x: _in_slices(whole, x, rows), default=whole)


def _in_slices(function: Callable[[Array], Any], images: Array, rows: int) -> Any:
    if len(images) <= rows:
        return function(images)
    full = len(images) // rows * rows
    slices = images[:full].reshape(-1, rows, *images.shape[1:])
    out = jax.tree.map(lambda y: y.reshape(full, -1), jax.lax.map(function, slices))
    if full == len(images):
        return out
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, function(images[full:]))
