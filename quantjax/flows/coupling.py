"""Two-sided coupling blocks: each half of the features is transformed by networks that read the other half.

With x = [u1, u2], u1 of round(D / 2) features, the first half goes first and the second half reads the NEW first half:
  v1 = u1 * exp(s2(u2)) + t2(u2),   v2 = u2 * exp(s1(v1)) + t1(v1),   log |det| = sum s2 + sum s1.
Scales are softly clamped, s <- clamp * 0.636 * atan(s), so that no factor leaves exp(+-clamp).
Conventions as in FrEIA (Ardizzone et al., "Framework for Easily Invertible Architectures", 2018-2022).

Keywords of the four: layers (each network has layers + 2 linear ones), width, dropout (rate, after every linear layer
but the last), clamp, identity (whether the block begins as the identity, its networks silent), dtype (of the matrix
products; everything else is float32). All four raise ValueError when
dimension < 2, dropout is outside [0, 1) or clamp is not above 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from quantjax.checks import check_interval
from quantjax.dropout import draw_dropout
from quantjax.flows.base import Flow, in_float32
from quantjax.flows.deferred import matmul
from quantjax.types import Array, PyTree

ATAN_GAIN = 0.636  # about 2 / pi: the clamped scale tends to +-clamp


def _init_subnet(key: Array, sizes: Sequence[int], silent: bool) -> PyTree:
    """Uniform in +-1 / sqrt(fan_in), as torch.nn.Linear; in one draw, since every one more is slow to compile.

    A silent network's last layer is zero, and so is what it says.
    """
    draws = jax.random.uniform(key, (sum((i + 1) * o for i, o in pairwise(sizes)),), jnp.float32, -1, 1)
    params, start = {}, 0
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        end = start + (inputs + 1) * outputs
        layer = draws[start:end].reshape(inputs + 1, outputs) * jnp.float32(inputs**-0.5)
        params[f"linear_{index}"] = {"kernel": layer[:-1], "bias": layer[-1]}
        start = end
    if silent:
        params |= {f"linear_{len(sizes) - 2}": jax.tree.map(jnp.zeros_like, params[f"linear_{len(sizes) - 2}"])}
    return params


def _linear(layer: PyTree, x: Array, dtype: Any) -> Array:
    return matmul(layer, x, dtype) + layer["bias"][None, :]


def _apply_subnet(params: PyTree, x: Array, masks: Array | None, keep: float, dtype: Any) -> Array:
    hidden = len(params) - 1
    for i in range(hidden):
        x = jax.nn.relu(_linear(params[f"linear_{i}"], x, dtype))
        if masks is not None:
            x = jnp.where(masks[i], x * jnp.float32(1 / keep), jnp.float32(0))
    return _linear(params[f"linear_{hidden}"], x, dtype)


def _soft_clamp(s: Array, clamp: float) -> Array:
    return jnp.float32(clamp * ATAN_GAIN) * jnp.arctan(s)


def _joint(outputs: list[Array], clamp: float) -> tuple[Array, Array]:
    s, t = jnp.split(outputs[0], 2, axis=1)
    return _soft_clamp(s, clamp), t


def _separate(outputs: list[Array], clamp: float) -> tuple[Array, Array]:
    return _soft_clamp(outputs[0], clamp), outputs[1]


def _volume_preserving(outputs: list[Array], clamp: float) -> tuple[Array, Array]:
    s, t = _joint(outputs, clamp)
    return s - s.mean(axis=1, keepdims=True), t


def _additive(outputs: list[Array], clamp: float) -> tuple[None, Array]:
    del clamp
    return None, outputs[0]


def _scale_and_shift(u: Array, s: Array | None, t: Array) -> tuple[Array, Array]:
    if s is None:
        return u + t, jnp.zeros(u.shape[0], u.dtype)
    return u * jnp.exp(s) + t, s.sum(axis=1)


def _undo_scale_and_shift(v: Array, s: Array | None, t: Array) -> tuple[Array, Array]:
    if s is None:
        return v - t, jnp.zeros(v.shape[0], v.dtype)
    return (v - t) * jnp.exp(-s), -s.sum(axis=1)


def _two_sided(
    dimension: int,
    *,
    read: Callable[[list[Array], float], tuple[Array | None, Array]],
    networks: int,
    outputs_per_feature: int,
    layers: int = 2,
    width: int = 512,
    dropout: float = 0.3,
    clamp: float = 3.0,
    identity: bool = False,
    dtype: Any = jnp.float32,
) -> Flow:
    if dimension < 2:
        raise ValueError(f"dimension must be at least 2 to be split in two halves, got {dimension}")
    check_interval("dropout", dropout, 0, 1, closed="left")
    if clamp <= 0:
        raise ValueError(f"clamp must be above 0, got {clamp}")
    first, keep = round(dimension / 2), 1 - dropout
    second = dimension - first

    def init(key: Array, x: Array) -> PyTree:
        del x
        keys = jax.random.split(key, (2, networks))
        hidden = [width] * (layers + 1)
        to_first = [second, *hidden, first * outputs_per_feature]
        to_second = [first, *hidden, second * outputs_per_feature]
        return {
            "first": {f"network_{i}": _init_subnet(k, to_first, identity) for i, k in enumerate(keys[0])},
            "second": {f"network_{i}": _init_subnet(k, to_second, identity) for i, k in enumerate(keys[1])},
        }

    def coefficients(params: PyTree, half: str, given: Array, masks: Array | None) -> tuple[Array | None, Array]:
        start, outputs = 0 if half == "first" else networks, []
        for i in range(networks):
            drops = None if masks is None else masks[start + i]
            outputs.append(_apply_subnet(params[half][f"network_{i}"], given, drops, keep, dtype))
        return read(outputs, clamp)

    def forward(params: PyTree, x: Array, masks: PyTree = None) -> tuple[Array, Array]:
        u1, u2 = x[:, :first], x[:, first:]
        v1, change1 = _scale_and_shift(u1, *coefficients(params, "first", u2, masks))
        v2, change2 = _scale_and_shift(u2, *coefficients(params, "second", v1, masks))
        return jnp.concatenate([v1, v2], axis=1), change1 + change2

    def inverse(params: PyTree, z: Array, masks: PyTree = None) -> tuple[Array, Array]:
        v1, v2 = z[:, :first], z[:, first:]
        u2, change2 = _undo_scale_and_shift(v2, *coefficients(params, "second", v1, masks))
        u1, change1 = _undo_scale_and_shift(v1, *coefficients(params, "first", u2, masks))
        return jnp.concatenate([u1, u2], axis=1), change1 + change2

    def draw_masks(key: Array, batch: int) -> PyTree:
        return draw_dropout(key, (2 * networks, layers + 1, batch, width), dropout) if dropout > 0 else None

    return in_float32(Flow(init, forward, inverse, draw_masks))


def glow(dimension: int, **options: Any) -> Flow:
    """Affine coupling with one network per half that gives [s, t]. Source: Kingma and Dhariwal (2018)."""
    return _two_sided(dimension, read=_joint, networks=1, outputs_per_feature=2, **options)


def realnvp(dimension: int, **options: Any) -> Flow:
    """Affine coupling with separate networks for s and t. Source: Dinh et al. (2017), eq. 7."""
    return _two_sided(dimension, read=_separate, networks=2, outputs_per_feature=1, **options)


def gin(dimension: int, **options: Any) -> Flow:
    """As glow, s less its mean over the half: log |det| = 0. Source: Sorrenson et al., "GIN", ICLR 2020."""
    return _two_sided(dimension, read=_volume_preserving, networks=1, outputs_per_feature=2, **options)


def nice(dimension: int, **options: Any) -> Flow:
    """Additive coupling, v = u + t: log |det| = 0. Source: Dinh et al., "NICE", ICLR Workshop 2015, eq. 4."""
    return _two_sided(dimension, read=_additive, networks=1, outputs_per_feature=1, **options)
