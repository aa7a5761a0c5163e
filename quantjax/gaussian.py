"""Log-densities of standard, diagonal and tied Gaussians, in nats and float32 whatever the precision of the network.

Differences are taken before they are squared: ||x||^2 - 2 x . c + ||c||^2 in one matrix product is faster, but where x
and c lie far from the origin it keeps no digit of their distance. Centres are read a few at a time, so that no
[B, K, D] array exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from quantjax.checks import check_shape
from quantjax.types import Array

LOG_TWO_PI = math.log(2.0 * math.pi)
CENTRES_AT_ONCE = 8  # rows are read once for so many
FEW_CENTRES = 16  # up to so many, differences cost no more than the products that would save them


def standard_log_density(x: Array) -> Array:
    """Return log N(x; 0, I) = sum_d (-x_d^2 / 2 - log(2 pi) / 2) in nats; x [B, D] -> [B].

    Raises ValueError when x is not of rank two. Source: base density of Taghikhah et al. (AAAI 2024), eq. 3.
    """
    check_shape("x", x, "[B, D]")
    x = jnp.asarray(x, jnp.float32)
    return -0.5 * (jnp.sum(x * x, axis=1) + x.shape[1] * LOG_TWO_PI)


def diagonal_log_density(x: Array, mean: Array, variance: Array) -> Array:
    """Return log N(x_b; mean_k, diag(variance_k)) in nats; x [B, D], mean and variance [K, D] -> [B, K].

    Raises ValueError on a wrong rank or when x, mean and variance disagree in D or K.
    """
    check_shape("x", x, "[B, D]")
    check_shape("mean", mean, f"[K, {x.shape[1]}]")
    check_shape("variance", variance, f"[{mean.shape[0]}, {x.shape[1]}]")
    x, mean, variance = (jnp.asarray(a, jnp.float32) for a in (x, mean, variance))
    constant = jnp.sum(jnp.log(variance), axis=1) + x.shape[1] * LOG_TWO_PI

    def quadratic(one: tuple[Array, Array]) -> Array:
        difference = x - one[0][None, :]
        return jnp.sum(difference * difference / one[1][None, :], axis=1)

    return -0.5 * (_each(quadratic, (mean, variance)) + constant[None, :])


def squared_distances(x: Array, centres: Array) -> Array:
    """Return ||x_b - c_k||^2 >= 0; x [B, D], centres [K, D] -> [B, K]; 0 where they are equal.

    Raises ValueError on a wrong rank or when the two disagree in D.
    """
    check_shape("x", x, "[B, D]")
    check_shape("centres", centres, f"[K, {x.shape[1]}]")
    x, centres = jnp.asarray(x, jnp.float32), jnp.asarray(centres, jnp.float32)

    def squared(centre: Array) -> Array:
        difference = x - centre[None, :]
        return jnp.sum(difference * difference, axis=1)

    return _each(squared, centres)


def squared_distances_by_product(x: Array, centres: Array) -> Array:
    """squared_distances as one matrix product, for many centres: off by 1e-7 of ||x - c||^2 + ||c_k - c||^2 and more.

    c is the mean of the centres. Raises ValueError as squared_distances does.
    """
    check_shape("x", x, "[B, D]")
    check_shape("centres", centres, f"[K, {x.shape[1]}]")
    middle = jnp.mean(centres, axis=0, keepdims=True)
    x, centres = jnp.asarray(x, jnp.float32) - middle, jnp.asarray(centres, jnp.float32) - middle
    products = jnp.matmul(x, centres.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(centres * centres, axis=1)[None, :]
    return jnp.maximum(squares - 2.0 * products, 0.0)


def tied_log_density(whitened: Array, centres: Array, log_det_covariance: Array | float) -> Array:
    """Return log N(x_b; mean_k, S) in nats for one covariance S = L L^T shared by all classes -> [B, K].

    whitened [B, D] holds L^-1 (x - c) and centres [K, D] holds L^-1 (mean - c), with any common c;
    log_det_covariance is log |S|, a scalar. Raises ValueError on a wrong rank or when the two disagree in D.
    """
    distances = squared_distances(whitened, centres)
    return -0.5 * (distances + whitened.shape[1] * LOG_TWO_PI + log_det_covariance)


def _each(function: Callable[[Any], Array], centres: Any) -> Array:
    """function(centre) [B] of each of the K centres -> [B, K]; a gradient computes the differences anew."""
    return jax.lax.map(jax.checkpoint(function), centres, batch_size=CENTRES_AT_ONCE).T
