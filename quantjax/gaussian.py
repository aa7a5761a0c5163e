"""Log-densities of standard, diagonal and tied Gaussians, in nats and float32 whatever the precision of the network.

Matrix products run at precision HIGHEST: on recent GPUs the default rounds float32 factors to about three digits,
which a difference of squares does not survive.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from quantjax.checks import check_shape
from quantjax.types import Array

LOG_TWO_PI = math.log(2.0 * math.pi)


def standard_log_density(x: Array) -> Array:
    """Return log N(x; 0, I) = sum_d (-x_d^2 / 2 - log(2 pi) / 2) in nats; x [B, D] -> [B].

    Raises ValueError when x is not of rank two. Source: base density of Taghikhah et al. (AAAI 2024), eq. 3.
    """
    check_shape("x", x, "[B, D]")
    x = x.astype(jnp.float32)
    return -0.5 * (jnp.sum(x * x, axis=1) + x.shape[1] * LOG_TWO_PI)


def diagonal_log_density(x: Array, mean: Array, variance: Array) -> Array:
    """Return log N(x_b; mean_k, diag(variance_k)) in nats; x [B, D], mean and variance [K, D] -> [B, K].

    The square is multiplied out, so that two matrix products serve all classes and no [B, K, D] array exists:
    sum_d (x - m)^2 / v = x^2 (1/v)^T - 2 x (m/v)^T + sum_d m^2 / v.
    Features whose offset is large against their spread should be centred first, or digits cancel.
    Raises ValueError on a wrong rank or when x, mean and variance disagree in D or K.
    """
    check_shape("x", x, "[B, D]")
    check_shape("mean", mean, f"[K, {x.shape[1]}]")
    check_shape("variance", variance, f"[{mean.shape[0]}, {x.shape[1]}]")
    x, mean, variance = (a.astype(jnp.float32) for a in (x, mean, variance))
    precision = 1.0 / variance
    constant = jnp.sum(mean * mean * precision + jnp.log(variance), axis=1) + x.shape[1] * LOG_TWO_PI
    quadratic = _product(x * x, precision) - 2.0 * _product(x, mean * precision)
    return -0.5 * (quadratic + constant[None, :])


def squared_distances(x: Array, centres: Array) -> Array:
    """Return ||x_b - c_k||^2 >= 0; x [B, D], centres [K, D] -> [B, K], one matrix product for all classes.

    Raises ValueError on a wrong rank or when the two disagree in D.
    """
    check_shape("x", x, "[B, D]")
    check_shape("centres", centres, f"[K, {x.shape[1]}]")
    x, centres = x.astype(jnp.float32), centres.astype(jnp.float32)
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(centres * centres, axis=1)[None, :]
    return jnp.maximum(squares - 2.0 * _product(x, centres), 0.0)


def tied_log_density(whitened: Array, centres: Array, log_det_covariance: Array | float) -> Array:
    """Return log N(x_b; mean_k, S) in nats for one covariance S = L L^T shared by all classes -> [B, K].

    whitened [B, D] holds L^-1 (x - c) and centres [K, D] holds L^-1 (mean - c), with any common c;
    log_det_covariance is log |S|, a scalar. Raises ValueError on a wrong rank or when the two disagree in D.
    """
    distances = squared_distances(whitened, centres)
    return -0.5 * (distances + whitened.shape[1] * LOG_TWO_PI + log_det_covariance)


def _product(x: Array, rows: Array) -> Array:
    """x [B, D] times rows [K, D] transposed."""
    return jnp.matmul(x, rows.T, precision=jax.lax.Precision.HIGHEST)
