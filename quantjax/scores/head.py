"""A classifier's last layer, logits = f W + b, for scores that read it; found from features and logits of rows."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_same_length, check_shape
from quantjax.types import Array

ROWS_PER_UNKNOWN = 4  # rows that the equations are solved on; all rows are checked
TOLERANCE = 0.01  # of the logits' deviation; bfloat16 arithmetic rounds by 0.004


class LinearHead(NamedTuple):
    """Weights of the linear layer that ends a classifier; float32."""

    weight: Array
    """[D, K]"""
    bias: Array
    """[K]"""


def solve_head(features: ArrayLike, logits: ArrayLike) -> LinearHead:
    """Find the head of a classifier from its features [N, D] and logits [N, K], by least squares in float64.

    Directions in which the features do not vary have no weight: no row can tell it. Raises ValueError on wrong shapes,
    rows that are not finite, too few rows to tell whether logits are affine in features, and when they are not: when
    the equations leave more than a hundredth of the logits' deviation.
    """
    features, logits = np.asarray(features), np.asarray(logits)
    check_shape("features", features, "[N, D]")
    check_shape("logits", logits, "[N, K]")
    check_same_length(features=features, logits=logits)
    for name, rows in (("features", features), ("logits", logits)):
        check_finite(name, rows)
    step = max(1, len(features) // (ROWS_PER_UNKNOWN * (features.shape[1] + 1)))
    weight, bias, rank = _least_squares(features[::step], logits[::step])
    if rank + 1 >= len(features[::step]):
        raise ValueError(
            f"the head needs more rows than the {rank + 1} unknowns of each logit, got {len(features)}; "
            "fit on more rows or give the head"
        )
    left = logits - (features @ weight.astype(np.float32) + bias.astype(np.float32))
    spread = np.sqrt(np.mean((logits - logits.mean(axis=0)) ** 2))
    share = np.sqrt(np.mean(np.square(left))) / spread if spread > 0.0 else 0.0
    if not share <= TOLERANCE:
        raise ValueError(
            f"logits must be an affine function of the features, the output of a linear layer, but differ from the "
            f"nearest one by {100.0 * share:.1f} % of their deviation; give features and logits of the same network, "
            "or choose a method that does not read the head"
        )
    return LinearHead(jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32))


def head_logits(head: LinearHead, features: Array) -> Array:
    """Return features W + b; [B, D] -> [B, K]. Raises ValueError when features are not [B, D] of the head's D."""
    check_shape("features", features, f"[B, {head.weight.shape[0]}]")
    product = jnp.matmul(jnp.asarray(features, jnp.float32), head.weight, precision=jax.lax.Precision.HIGHEST)
    return product + head.bias[None, :]


def _least_squares(features: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Weight, bias and rank, from the normal equations of centred rows in units of each feature's deviation.

    Equations that are solved for what the first solution left (once) make up for the squared condition number.
    """
    rows, wanted = features.astype(np.float64), logits.astype(np.float64)
    centre, origin = rows.mean(axis=0), wanted.mean(axis=0)
    rows, wanted = rows - centre, wanted - origin
    scale = np.sqrt(np.mean(rows**2, axis=0))
    varies = scale > 1e-6 * np.abs(features).max(axis=0, initial=0.0)
    inverse_scale = np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0)
    rows *= inverse_scale
    values, vectors = np.linalg.eigh(rows.T @ rows)
    kept = values > max(rows.shape) * 1e-14 * values.max(initial=0.0)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T if kept.any() else np.zeros_like(vectors)
    weight = inverse @ (rows.T @ wanted)
    weight += inverse @ (rows.T @ (wanted - rows @ weight))
    weight *= inverse_scale[:, None]
    return weight, origin - centre @ weight, int(kept.sum())
