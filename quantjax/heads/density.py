"""Log-densities of normalised features under diagonal Gaussians, with a backward pass in blocks of rows.

    y = LayerNorm(x) = scale h + bias,   e = y / ||y||,   l_g = log N(e; mean_g, diag(variance_g))

Vectors of length one are too near the origin for the square multiplied out, sum_d (e - m)^2 / v = e^2 (1/v)^T - 2 e
(m/v)^T + sum_d m^2 / v, to lose digits unless a variance is tiny, and two matrix products take a tenth of the time of
squared differences; under SMALL_VARIANCE the differences are squared. Differentiated as it stands, this keeps six
arrays of the features' size at once (360 MB for one crop of 43,808 rows of 256). The backward pass below needs the
features alone and works on a block of rows at a time.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax.gaussian import LOG_TWO_PI, diagonal_log_density
from quantjax.types import Array

EPSILON = 1e-5  # of the layer norm
SMALL_VARIANCE = 5e-3  # half of the mixture head's smallest by default; a term e^2 / v of 200 still keeps 5 decimals
_BLOCK = 2**22  # entries of x in one block of the backward pass


def unit(x: Array) -> Array:
    """Return x / ||x|| over the last axis; a zero vector stays zero, with a finite gradient."""
    return x * _inverse_length(x)


def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    """Return (x - mean) / sqrt(variance + 1e-5) * scale + bias over the last axis; x [..., D], scale and bias [D]."""
    ones = (1,) * (x.ndim - 1)
    return _whiten(x)[0] * scale.reshape(*ones, -1) + bias.reshape(*ones, -1)


@jax.custom_vjp
def normed_log_density(x: Array, scale: Array, bias: Array, mean: Array, variance: Array) -> Array:
    """Return l [N, G] in nats for x [N, D], scale and bias [D], mean and variance [G, D], all float32.

    Gradients reach x, scale and bias; those of mean and variance are zero by definition.
    """
    return unit_log_density(unit(layer_norm(x, scale, bias)), mean, variance)


def unit_log_density(e: Array, mean: Array, variance: Array) -> Array:
    """Return log N(e_n; mean_g, diag(variance_g)) in nats for vectors of length one; [N, D], [G, D] -> [N, G]."""
    return jax.lax.cond(jnp.min(variance) < SMALL_VARIANCE, diagonal_log_density, _multiplied_out, e, mean, variance)


def _multiplied_out(e: Array, mean: Array, variance: Array) -> Array:
    precision = 1.0 / variance
    constant = jnp.sum(mean * mean * precision + jnp.log(variance), axis=1) + e.shape[1] * LOG_TWO_PI
    quadratic = _product(e * e, precision.T) - 2.0 * _product(e, (mean * precision).T)
    return -0.5 * (quadratic + constant[None, :])


def _forward(x: Array, scale: Array, bias: Array, mean: Array, variance: Array) -> tuple[Array, tuple[Array, ...]]:
    return normed_log_density(x, scale, bias, mean, variance), (x, scale, bias, mean, variance)


def _backward(saved: tuple[Array, ...], grad: Array) -> tuple[Any, ...]:
    x, scale, bias, mean, variance = saved
    length, rows = len(x), min(len(x), max(1, _BLOCK // x.shape[1]))

    def block(i: Array | int, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """The last block starts early enough to be full; rows that the one before it has seen count once."""
        start = jnp.minimum(i * rows, length - rows)
        piece, own = (jax.lax.dynamic_slice_in_dim(a, start, rows) for a in (x, grad))
        fresh = (start + jnp.arange(rows))[:, None] >= i * rows
        for_x, for_y, whitened = _rows_backward(piece, own, scale, bias, mean, variance)
        for_y = jnp.where(fresh, for_y, 0.0)
        into, for_scale, for_bias = sums
        into = jax.lax.dynamic_update_slice_in_dim(into, for_x, start, 0)
        return into, for_scale + jnp.sum(for_y * whitened, axis=0), for_bias + jnp.sum(for_y, axis=0)

    sums = (jnp.zeros_like(x), jnp.zeros_like(scale), jnp.zeros_like(bias))
    blocks = -(-length // rows)
    sums = block(0, sums) if blocks == 1 else jax.lax.fori_loop(0, blocks, block, sums)
    return (*sums, None, None)


def _rows_backward(
    x: Array, grad: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> tuple[Array, Array, Array]:
    """Gradients of x and y, and h, by the chain rule: l -> e (two products) -> y -> h -> x."""
    precision = 1.0 / variance
    h, inverse_deviation = _whiten(x)
    y = h * scale[None, :] + bias[None, :]
    inverse_length = _inverse_length(y)
    e = y * inverse_length
    for_e = _product(grad, mean * precision) - e * _product(grad, precision)
    for_y = inverse_length * (for_e - e * jnp.sum(for_e * e, axis=1, keepdims=True))
    for_h = for_y * scale[None, :]
    along = jnp.mean(for_h * h, axis=1, keepdims=True)
    for_x = inverse_deviation * (for_h - jnp.mean(for_h, axis=1, keepdims=True) - h * along)
    return for_x, for_y, h


normed_log_density.defvjp(_forward, _backward)


def _whiten(x: Array) -> tuple[Array, Array]:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    inverse_deviation = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + EPSILON)
    return centred * inverse_deviation, inverse_deviation


def _inverse_length(x: Array) -> Array:
    return jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def _product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
