"""How much of a row's features lies where training features do not; higher = more outlying."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_interval, check_shape
from quantjax.scores.gaussian import second_moments
from quantjax.scores.head import LinearHead
from quantjax.scores.logits import energy
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

_ROWS_AT_ONCE = 4096


class Residual(NamedTuple):
    """The subspace that training features hardly reach; float32."""

    origin: Array
    """[D] the point at which all logits are as near to 0 as they can be"""
    basis: Array
    """[D, R] orthonormal columns"""
    alpha: Array
    """[] of ViM: mean largest logit over mean residual of training rows; 0 where there are no logits"""


def principal_dimension(dimension: int) -> int:
    """How many directions ViM calls principal where none is given: 1,000 of 2,048 and more, 512 of 768 and more.

    As the paper; of fewer features, about which it says nothing, half.
    """
    return 1000 if dimension >= 2048 else 512 if dimension >= 768 else max(1, dimension // 2)


def fit_residual(head: LinearHead, features: ArrayLike, logits: ArrayLike, principal: int | None = None) -> Residual:
    """Fit the R = D - principal directions of least second moment about the origin -(W^T)^+ b, in float64.

    features [N, D], logits [N, K] of the same rows. Raises ValueError on wrong shapes, no rows, rows that are not
    finite or a principal outside 1..D-1. Source: Wang et al. (CVPR 2022).
    """
    features, logits = np.asarray(features), np.asarray(logits)
    check_shape("features", features, f"[N, {head.weight.shape[0]}]")
    check_shape("logits", logits, f"[{len(features)}, {head.weight.shape[1]}]")
    if not len(features):
        raise ValueError("features must have at least one row, got none")
    check_finite("features", features)
    check_finite("logits", logits)
    principal = principal_dimension(features.shape[1]) if principal is None else principal
    check_interval("principal", principal, 1, features.shape[1] - 1)
    origin = -np.linalg.pinv(np.asarray(head.weight, np.float64).T) @ np.asarray(head.bias, np.float64)
    moments = second_moments(features, origin[None], np.zeros(len(features), np.int32))
    basis = np.linalg.eigh(moments)[1][:, : features.shape[1] - principal]  # eigenvalues ascend
    mean = _mean_length(features, origin.astype(np.float32), basis.astype(np.float32))
    alpha = float(logits.max(axis=1).mean(dtype=np.float64)) / mean if mean > 0.0 else 0.0
    return Residual(*(jnp.asarray(value, jnp.float32) for value in (origin, basis, alpha)))


def fit_pca_residual(features: ArrayLike, share: float = 0.9) -> Residual:
    """Fit the directions about the mean that the leading principal components, `share` of the variance, leave over.

    At least one direction is kept and one left over; features [N, D], in float64. Raises ValueError on a wrong rank, no
    rows, rows that are not finite, D = 1, or a share outside 0..1. Source: principal component analysis (Jackson and
    Mudholkar, Technometrics 1979, whose Q is the square of the residual's length).
    """
    features = np.asarray(features)
    check_shape("features", features, "[N, D]")
    check_interval("the width of features", features.shape[1], 2, float("inf"))
    check_interval("share", share, 0.0, 1.0)
    if not len(features):
        raise ValueError("features must have at least one row, got none")
    check_finite("features", features)
    origin = features.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(second_moments(features, origin[None], np.zeros(len(features), np.int32)))
    left = np.cumsum(variances) <= (1.0 - share) * variances.sum()
    basis = directions[:, : min(max(int(left.sum()), 1), features.shape[1] - 1)]
    return Residual(*(jnp.asarray(value, jnp.float32) for value in (origin, basis, 0.0)))


def residual(fitted: Residual, features: Array) -> Array:
    """Return the length of the part of f - origin that lies in the residual subspace; features [B, D] -> [B], >= 0.

    Raises ValueError when features are not [B, D] of the fit's D. Source: Wang et al. (CVPR 2022).
    """
    check_shape("features", features, f"[B, {fitted.origin.shape[0]}]")
    features = jnp.asarray(features, jnp.float32)
    inside = jnp.matmul(features - fitted.origin[None, :], fitted.basis, precision=jax.lax.Precision.HIGHEST)
    return nan_unless_sound(jnp.linalg.norm(inside, axis=1), features)


def vim(fitted: Residual, features: Array, logits: Array) -> Array:
    """Return alpha * residual - logsumexp of the logits, in nats: the virtual logit against all others; [B].

    features [B, D], logits [B, K]. Raises ValueError for other shapes. Source: Wang et al. (CVPR 2022),
    without the last monotonic step, which ties what is sure.
    """
    check_shape("logits", logits, f"[{features.shape[0]}, K]")
    return fitted.alpha * residual(fitted, features) + energy(logits)


def _mean_length(features: np.ndarray, origin: np.ndarray, basis: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(features), _ROWS_AT_ONCE):
        inside = (features[start : start + _ROWS_AT_ONCE] - origin) @ basis
        total += np.sqrt(np.einsum("nr,nr->n", inside, inside)).sum(dtype=np.float64)
    return float(total / len(features))
