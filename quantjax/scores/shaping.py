"""Energy of a classifier whose features, or whose head, were trimmed first; higher = more outlying.

The papers of ReAct, ASH and SCALE trim activations; where they trim a map before its pooling (ASH and SCALE on some
networks), here it is the pooled features, the input of the last layer, [B, D]. Features are taken to be non-negative,
as a ReLU leaves them: of others the shares below have no meaning, and some rows may score NaN.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_interval, check_shape
from quantjax.scores.head import LinearHead, head_logits
from quantjax.scores.logits import energy
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array


def fit_react(features: ArrayLike, percentile: float = 0.9) -> float:
    """Return the threshold of react: that quantile, in 0..1, of all entries of the training features [N, D].

    Raises ValueError on a wrong rank, no rows, rows that are not finite or a percentile outside 0..1.
    """
    features = _training_rows(features)
    check_interval("percentile", percentile, 0.0, 1.0)
    return float(np.quantile(features, percentile))


def react(head: LinearHead, features: Array, threshold: float) -> Array:
    """Return the energy of the head's logits at min(f, threshold); features [B, D] -> [B], in nats.

    Raises ValueError when features are not [B, D] of the head's D. Source: Sun, Guo and Li (NeurIPS 2021).
    """
    features = jnp.asarray(features, jnp.float32)
    return _energy(head, features, jnp.minimum(features, threshold))


def ash_p(head: LinearHead, features: Array, percentile: float = 0.6) -> Array:
    """Return the energy at features of which that share, the smallest, became 0; features [B, D] -> [B], in nats.

    Raises ValueError when features are not [B, D] of the head's D or percentile does not lie in [0, 1). Source, as of
    ash_b and ash_s: Djurisic et al. (ICLR 2023).
    """
    features, kept = _largest(head, features, percentile)
    return _energy(head, features, jnp.where(kept, features, 0.0))


def ash_b(head: LinearHead, features: Array, percentile: float = 0.65) -> Array:
    """As ash_p, and what is left is made equal: each the sum of all features over the number that is left."""
    features, kept = _largest(head, features, percentile)
    level = jnp.sum(features, axis=1, keepdims=True) / jnp.sum(kept, axis=1, keepdims=True).astype(jnp.float32)
    return _energy(head, features, jnp.where(kept, level, 0.0))


def ash_s(head: LinearHead, features: Array, percentile: float = 0.9) -> Array:
    """As ash_p, and what is left grows by exp(sum of all features / sum of those left)."""
    features, kept = _largest(head, features, percentile)
    return _energy(head, features, jnp.where(kept, features, 0.0) * _growth(features, kept))


def scale(head: LinearHead, features: Array, percentile: float = 0.85) -> Array:
    """Return the energy at features that grow by the factor of ash_s while all are kept; [B, D] -> [B], in nats.

    Raises ValueError as ash_p. Source: Xu et al. (ICLR 2024).
    """
    features, kept = _largest(head, features, percentile)
    return _energy(head, features, features * _growth(features, kept))


def fit_dice(head: LinearHead, features: ArrayLike, sparsity: float = 0.9) -> LinearHead:
    """The head without the weights that contribute little to training rows: that share of all becomes 0.

    What weight W_dk contributes is its product with the mean of feature d over the training features [N, D]. The score
    is the energy of head_logits. Raises ValueError on a wrong shape, no rows, rows that are not finite or a sparsity
    outside 0..1. Source: Sun and Li (ECCV 2022).
    """
    features = _training_rows(features)
    check_shape("features", features, f"[N, {head.weight.shape[0]}]")
    check_interval("sparsity", sparsity, 0.0, 1.0)
    weight = np.asarray(head.weight, np.float64)
    contribution = features.mean(axis=0, dtype=np.float64)[:, None] * weight
    kept = contribution > np.quantile(contribution, sparsity)
    return LinearHead(jnp.asarray(np.where(kept, weight, 0.0), jnp.float32), head.bias)


def dice(head: LinearHead, features: Array) -> Array:
    """Return the energy of the logits of a head of fit_dice; features [B, D] -> [B], in nats.

    Raises ValueError when features are not [B, D] of the head's D. Source: as fit_dice.
    """
    return _energy(head, features, jnp.asarray(features, jnp.float32))


def kth_largest(values: Array, k: int) -> Array:
    """The k-th largest entry of every row, exactly; [B, D] -> [B, 1], -inf or NaN where a row holds NaN.

    It halves the range of float32's bits 32 times, each time counting a row's entries above the middle: for large k
    several times as fast on a CPU as lax.top_k, which sorts.
    """
    bits = jax.lax.bitcast_convert_type(jnp.asarray(values, jnp.float32), jnp.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the numbers they stand for

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds  # the wanted one lies in low..high
        middle = (low >> 1) + (high >> 1) + ((low | high) & 1)  # rounded up, without overflow
        enough = jnp.sum(ordered >= middle, axis=1, keepdims=True) >= k
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    shape = (values.shape[0], 1)
    start = jnp.full(shape, jnp.iinfo(jnp.int32).min), jnp.full(shape, jnp.iinfo(jnp.int32).max)
    found = jax.lax.fori_loop(0, 32, halve, start)[0]
    return jax.lax.bitcast_convert_type(found ^ ((found >> 31) & 0x7FFFFFFF), jnp.float32)


def _largest(head: LinearHead, features: Array, percentile: float) -> tuple[Array, Array]:
    """(features float32, which of a row's entries are its D - round(percentile D) largest: of equals the first)."""
    check_shape("features", features, f"[B, {head.weight.shape[0]}]")
    check_interval("percentile", percentile, 0.0, 1.0, closed="left")
    features = jnp.asarray(features, jnp.float32)
    count = max(1, features.shape[1] - round(percentile * features.shape[1]))
    threshold = kth_largest(features, count)
    above, equal = features > threshold, features == threshold
    missing = count - jnp.sum(above, axis=1, keepdims=True)
    return features, above | (equal & (jnp.cumsum(equal.astype(jnp.int32), axis=1) <= missing))


def _growth(features: Array, kept: Array) -> Array:
    """exp(sum of all / sum of those kept) [B, 1]; of a row of zeros 1, which changes nothing."""
    whole, part = (jnp.sum(values, axis=1, keepdims=True) for values in (features, jnp.where(kept, features, 0.0)))
    return jnp.where(part == 0.0, 1.0, jnp.exp(whole / jnp.where(part == 0.0, 1.0, part)))


def _energy(head: LinearHead, features: Array, shaped: Array) -> Array:
    logits = head_logits(head, shaped)
    return nan_unless_sound(energy(logits), jnp.asarray(features, jnp.float32))


def _training_rows(features: ArrayLike) -> np.ndarray:
    features = np.asarray(features)
    check_shape("features", features, "[N, D]")
    if not len(features):
        raise ValueError("features must have at least one row, got none")
    check_finite("features", features)
    return features
