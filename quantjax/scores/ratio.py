"""Scores of a segmentor with an unknown estimation module; each float32, higher = more outlying.

With F_k the segmentor's logits and u_0, u_1 the module's values for inlier and outlier, the log-likelihood ratio is

    LLR = log p_out - log p_in = u_1 - u_0 - max_k F_k      (Nayal, Shoeb and Güney 2024, arXiv 2409.06424, eq. 11).

Logits of overlapping windows are averaged before the maximum: the mean of the windows' ratios is another number. Where
F (or u) are raw log-densities, hundreds of nats would drown the rest, so they are standardised first by their mean and
standard deviation over labelled training pixels. Pixels that are not finite, or hold 1e19 and more, score NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array


class Standardisation(NamedTuple):
    """Mean and standard deviation by which raw log-densities are brought to scale, in nats; float32 scalars."""

    mean: Array
    """[] nats"""
    deviation: Array
    """[] nats, positive"""


def fit_standardisation(parts: Iterable[ArrayLike]) -> Standardisation:
    """Mean and standard deviation over all values of `parts`, arrays of any shape that hold labelled pixels only.

    It runs on the host in float64 and merges one array at a time, so a generator over a data set is fine.
    Raises ValueError when there are no values, when they are not finite, or when they are all equal.
    """
    count, mean, squares = 0, 0.0, 0.0
    for part in parts:
        values = np.asarray(part, np.float64)
        if values.size:
            difference, total = values.mean() - mean, count + values.size
            squares += values.var() * values.size + difference**2 * count * values.size / total
            mean, count = mean + difference * values.size / total, total
    if not (np.isfinite(squares) and squares > 0.0):
        raise ValueError(
            f"values must be finite and not all equal, got {count} with mean {mean} and squared deviations {squares}; "
            "fit on labelled pixels of more images"
        )
    return Standardisation(jnp.asarray(mean, jnp.float32), jnp.asarray(np.sqrt(squares / count), jnp.float32))


def standardise(values: Array, standardisation: Standardisation | None) -> Array:
    """Return (values - mean) / deviation in float32, elementwise; as they are when standardisation is None."""
    values = jnp.asarray(values, jnp.float32)
    return values if standardisation is None else (values - standardisation.mean) / standardisation.deviation


def inlier(logits: Array, standardisation: Standardisation | None = None) -> Array:
    """Return the ID score -max_k F_k, standardised before the sign; logits [..., K] -> [...]."""
    logits = jnp.asarray(logits, jnp.float32)
    return nan_unless_sound(-standardise(jnp.max(logits, axis=-1), standardisation), logits)


def unknown(values: Array, standardisation: Standardisation | None = None) -> Array:
    """Return the OoD score u_1, the module's raw second value (no softmax); values [..., 2] -> [...].

    Raises ValueError unless the last axis has length 2.
    """
    _check_two("values", values)
    return nan_unless_sound(standardise(values[..., 1], standardisation), values)


def likelihood_ratio(
    unknown: Array,
    logits: Array,
    standardisation: Standardisation | None = None,
    unknown_standardisation: Standardisation | None = None,
) -> Array:
    """Return LLR = u_1 - u_0 - max_k F_k; unknown [..., 2], logits [..., K] -> [...].

    standardisation applies to max_k F_k, unknown_standardisation to u_0 and u_1 alike; None leaves values as they are.
    Raises ValueError when the last axis of unknown is not 2, or the others differ from those of logits.
    """
    _check_two("unknown", unknown)
    if unknown.shape[:-1] != logits.shape[:-1]:
        raise ValueError(
            f"unknown and logits must agree in all axes but the last, got {list(unknown.shape)} and "
            f"{list(logits.shape)}; resize both to the image"
        )
    pair = standardise(unknown, unknown_standardisation)
    return nan_unless_sound(pair[..., 1] - pair[..., 0] + inlier(logits, standardisation), unknown)


def _check_two(name: str, values: Array) -> None:
    if values.ndim == 0 or values.shape[-1] != 2:
        raise ValueError(f"{name} must have shape [..., 2] (inlier, outlier), got {list(values.shape)}")
