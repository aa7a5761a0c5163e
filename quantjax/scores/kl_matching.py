"""How far a row's class probabilities lie from those that are usual for a class; higher = more outlying."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_shape
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

NEVER = -1e30  # log-probabilities of a class that no training row is taken for: nothing lies near it


def fit_kl_matching(logits: ArrayLike) -> Array:
    """Return log d [K, K] float32: d_k is the mean of softmax(logits) over the rows [N, K] that are taken for class k.

    Raises ValueError on a wrong rank, no rows, or logits that are not finite. Source: as kl_matching.
    """
    logits = np.asarray(logits)
    check_shape("logits", logits, "[N, K]")
    if not len(logits):
        raise ValueError("logits must have at least one row, got none")
    check_finite("logits", logits)
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(below)
    weights /= weights.sum(axis=1, keepdims=True)
    taken = np.eye(logits.shape[1])[logits.argmax(axis=1)]
    counts = taken.sum(axis=0)[:, None]
    means = taken.T @ weights / np.maximum(counts, 1.0)
    return jnp.asarray(np.where(counts > 0, np.log(np.maximum(means, np.finfo(np.float64).tiny)), NEVER), jnp.float32)


def kl_matching(log_patterns: Array, logits: Array) -> Array:
    """Return min_k KL(softmax(logits) || d_k) in nats; logits [B, K] -> [B], >= 0 up to rounding.

    Raises ValueError when logits are not [B, K] of the fit's K. Source: Hendrycks et al. (ICML 2022).
    """
    check_shape("logits", logits, f"[B, {log_patterns.shape[0]}]")
    logits = jnp.asarray(logits, jnp.float32)
    log_p = jax.nn.log_softmax(logits, axis=1)
    p = jnp.exp(log_p)
    inner = jnp.matmul(p, log_patterns.T, precision=jax.lax.Precision.HIGHEST)
    negative_entropy = jnp.sum(jnp.where(p > 0.0, p * log_p, 0.0), axis=1)
    return nan_unless_sound(negative_entropy - jnp.max(inner, axis=1), logits)
