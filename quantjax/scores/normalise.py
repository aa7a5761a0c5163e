"""Features divided by a power of their own length."""

from __future__ import annotations

import jax.numpy as jnp

from quantjax.checks import check_interval, check_shape
from quantjax.types import Array


def unit(features: Array) -> Array:
    """Rows [B, D] of length one; a row of zeros stays zero. Scaled first: squares of small rows would vanish."""
    scaled, _ = _scaled(features)
    return scaled / _length(scaled)


def normalise(features: Array, beta: float = 1.0) -> Array:
    """Return f / |f|^beta of every row, float32; features [B, D] -> [B, D]; zeros stay zero, beta 0 changes nothing.

    Raises ValueError on a wrong rank or when beta does not lie in 0..2. Source: beta = 1 is Mahalanobis++ (Mueller and
    Hein, ICML 2025).
    """
    check_shape("features", features, "[B, D]")
    check_interval("beta", beta, 0.0, 2.0)
    features = jnp.asarray(features, jnp.float32)
    if beta == 0.0:
        return features
    scaled, largest = _scaled(features)
    length = _length(scaled)
    return scaled / length * (largest * length) ** (1.0 - beta) if beta != 1.0 else scaled / length


def _scaled(features: Array) -> tuple[Array, Array]:
    """Rows whose largest entry is 1, and what it was, [B, 1]; 1 for a row of zeros."""
    largest = jnp.max(jnp.abs(features), axis=1, keepdims=True)
    largest = jnp.where(largest > 0.0, largest, 1.0)
    return features / largest, largest


def _length(scaled: Array) -> Array:
    """[B, 1], at least 1: written so that its gradient at a row of zeros is 0."""
    return jnp.sqrt(jnp.maximum(jnp.sum(scaled * scaled, axis=1, keepdims=True), 1.0))
