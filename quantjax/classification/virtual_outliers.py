"""Virtual outliers of a classifier's features: of many draws from each class's Gaussian the least likely one.

Source: VOS (Du, Wang, Cai and Li, ICLR 2022), section 3.1. The newest features of each class stand in a queue; the
classes' Gaussians have the means of their queues and one covariance for all. The least likely of n draws mean + L z,
z ~ N(0, I_D), is the one with the longest z, so it is drawn as it is distributed, without the n: its direction is
uniform, and its squared length is the largest of n values of a chi-square with D degrees of freedom, whose distribution
function is the n-th power of theirs. That takes K D random numbers a step instead of n K D.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from quantjax.types import Array

JITTER = 1e-4  # added to the covariance's diagonal, as the released code does
HALVINGS = 40  # of the bracket around a squared length: to the last digit of a float32


class Queues(NamedTuple):
    """The newest features of each class."""

    features: Array
    """[K, Q, D] float32; the entries of a class that are filled come first"""
    pushed: Array
    """[K] int32, how many rows came in; above Q it counts from Q on again, so that it never overflows"""


class Draws(NamedTuple):
    """What is random about virtual outliers."""

    quantile: Array
    """[K] in (0, 1), where among its like the largest squared length lies"""
    direction: Array
    """[K, D] normal, of any length"""


def empty_queues(classes: int, length: int, dimension: int) -> Queues:
    """Return queues of K classes for Q = length rows of D = dimension features each."""
    return Queues(jnp.zeros((classes, length, dimension), jnp.float32), jnp.zeros(classes, jnp.int32))


def push(queues: Queues, features: Array, labels: Array, mask: Array) -> Queues:
    """Put features [B, D] into the queues of labels [B], in order, over the oldest; mask [B] is False for padded rows.

    Rows whose label is none of 0..K-1 are left out.
    """
    classes, length = queues.features.shape[:2]
    here = mask[:, None] & (labels[:, None] == jnp.arange(classes)[None, :])
    counts = jnp.sum(here, axis=0, dtype=jnp.int32)
    place = jnp.cumsum(here.astype(jnp.int32), axis=0) - 1  # of a row among the batch's rows of its class
    newest = here & (place >= (counts - length)[None, :])
    place, kept = jnp.sum(jnp.where(newest, place, 0), axis=1), newest.any(axis=1)
    row = jnp.where(kept, labels, classes)  # beyond the last class: dropped
    slot = (queues.pushed[jnp.where(kept, labels, 0)] + place) % length
    rows = jnp.asarray(jax.lax.stop_gradient(features), jnp.float32)
    pushed = queues.pushed + counts
    pushed = jnp.where(pushed < length, pushed, length + pushed % length)
    return Queues(queues.features.at[row, slot].set(rows, mode="drop"), pushed)


def filled(queues: Queues) -> Array:
    """Return how many rows each queue holds, [K] int32, at most Q."""
    return jnp.minimum(queues.pushed, queues.features.shape[1])


def class_gaussians(queues: Queues) -> tuple[Array, Array]:
    """Return the classes' means [K, D] and the lower Cholesky factor [D, D] of their one covariance.

    The covariance is that of all rows from their class's mean, over their number, plus 1e-4 on the diagonal. A class
    without a row has mean 0.
    """
    _, length, dimension = queues.features.shape
    counts = filled(queues)
    there = (jnp.arange(length)[None, :] < counts[:, None])[..., None]
    rows = jnp.where(there, queues.features, 0.0)
    means = rows.sum(axis=1) / jnp.maximum(counts, 1).astype(jnp.float32)[:, None]
    centred = jnp.where(there, rows - means[:, None], 0.0).reshape(-1, dimension)
    total = jnp.maximum(counts.sum(), 1).astype(jnp.float32)
    covariance = jnp.matmul(centred.T, centred, precision="highest") / total
    return means, jnp.linalg.cholesky(covariance + JITTER * jnp.eye(dimension, dtype=jnp.float32))


def draw(key: Array, classes: int, dimension: int) -> Draws:
    """Draws for one virtual outlier of each of K classes among D features."""
    first, second = jax.random.split(key)
    quantile = jax.random.uniform(first, (classes,), jnp.float32, minval=jnp.finfo(jnp.float32).tiny)
    return Draws(quantile, jax.random.normal(second, (classes, dimension), jnp.float32))


def virtual_outliers(draws: Draws, means: Array, factor: Array, samples: int) -> Array:
    """Return the least likely of `samples` draws from N(means_k, factor factor^T) for each class, [K, D] float32."""
    direction = draws.direction / jnp.linalg.norm(draws.direction, axis=1, keepdims=True)
    length = jnp.sqrt(largest_chi_square(draws.quantile, means.shape[1], samples))
    return means + jnp.matmul(length[:, None] * direction, factor.T, precision="highest")


def largest_chi_square(quantile: Array, dimension: int, samples: int) -> Array:
    """Return the `quantile` [...] of the largest of `samples` chi-square values with `dimension` degrees of freedom.

    P(largest <= x) = (1 - S(x))^samples with S(x) the share of values above x, so x solves S(x) = 1 - quantile^(1/n).
    """
    above = -jnp.expm1(jnp.log(quantile) / samples)

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        larger = jax.scipy.special.gammaincc(0.5 * dimension, 0.5 * middle) > above
        return jnp.where(larger, middle, low), jnp.where(larger, high, middle)

    high = dimension + 20.0 * (2.0 * dimension) ** 0.5 + 100.0  # above it lies less than 1e-25
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(above), jnp.full_like(above, high)))
    return 0.5 * (low + high)
