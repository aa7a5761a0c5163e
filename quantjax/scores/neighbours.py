"""Distance to the k-th nearest training feature, exact; higher = more outlying."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_shape
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

SPARE = 22  # candidates beyond the k nearest that a matrix product finds, which rounds their order


class Neighbours(NamedTuple):
    """Training features on the unit sphere."""

    bank: Array
    """[N, D] float32, rows of length one"""


def fit_neighbours(features: ArrayLike) -> Neighbours:
    """Normalise training features [N, D] to length one and keep them.

    Raises ValueError on a wrong rank, no rows, or features that are not finite in float32. Source: Sun et al.
    (ICML 2022).
    """
    check_shape("features", features, "[N, D]")
    rows = jnp.asarray(features, jnp.float32)
    if len(rows) == 0:
        raise ValueError("features must have at least one row, got none")
    check_finite("features", rows)
    return Neighbours(_unit(rows))


def knn(neighbours: Neighbours, features: Array, k: int = 10, *, block: int = 4096) -> Array:
    """Return the cosine distance, 1 - cosine, in 0..2, to the k-th nearest training feature; [B, D] -> [B].

    It is ||u - v||^2 / 2 of the directions u and v, which keeps its digits where 1 - cosine has none; against a row of
    zeros it is 1. One matrix product chooses candidates, 22 more than k: only where more rows than that lie within its
    rounding of the k-th neighbour, 1e-7 of the bank's spread, the value may be off by as much. The bank is read `block`
    rows at a time, so memory grows with B * block, not with B * N. NaN for features that are not finite or whose
    squares are not.
    Raises ValueError when features are not [B, D] of the bank's D, or k or block is out of range.
    Source: Sun et al. (ICML 2022), whose Euclidean distance on the unit sphere orders rows the same way.
    """
    bank = neighbours.bank
    rows, dimension = bank.shape
    check_shape("features", features, f"[B, {dimension}]")
    if not 1 <= k <= rows:
        raise ValueError(f"k must lie in 1..{rows}, the rows of the bank, got {k}")
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    features = jnp.asarray(features, jnp.float32)
    queries = _unit(features)
    candidates = _nearest(queries, bank, min(rows, k + SPARE), block)
    distances = jax.lax.map(lambda own: _distance(queries, bank[own]), candidates.T)
    # top_k may rank a NaN below everything, and such a row would lie next to the bank's first
    return nan_unless_sound(jnp.sort(distances, axis=0)[k - 1], features)


def _nearest(queries: Array, bank: Array, count: int, block: int) -> Array:
    """Rows of the bank [B, count] int32, the nearest first as far as a matrix product tells them apart.

    With c the bank's mean, 1 - u . v = ||u - c||^2 / 2 - ((u - c) . (v - c) - ||v - c||^2 / 2) for unit vectors.
    """
    centre = jnp.mean(bank, axis=0)[None, :]
    queries = queries - centre

    def merge(best: tuple[Array, Array], part: Array, start: Array | int) -> tuple[Array, Array]:
        moved, zeros = part - centre, jnp.all(part == 0.0, axis=1)
        less = 0.5 * jnp.sum(moved * moved, axis=1) + jnp.where(zeros, 0.5, 0.0)  # half of a unit vector's square
        closeness = jnp.matmul(queries, moved.T, precision=jax.lax.Precision.HIGHEST) - less[None, :]
        nearest, own = jax.lax.top_k(closeness, min(count, closeness.shape[1]))
        values, places = (jnp.concatenate(pair, axis=1) for pair in zip(best, (nearest, own + start), strict=True))
        kept, order = jax.lax.top_k(values, count)
        return kept, jnp.take_along_axis(places, order, axis=1)

    def merge_block(i: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        return merge(best, jax.lax.dynamic_slice_in_dim(bank, i * block, block), i * block)

    shape = (queries.shape[0], count)
    best = jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32)
    whole = len(bank) // block
    if whole:  # slices: blocks of a reshaped bank would be a second bank in memory
        best = jax.lax.fori_loop(0, whole, merge_block, best)
    if whole * block < len(bank):
        best = merge(best, bank[whole * block :], whole * block)
    return best[1]


def _distance(u: Array, v: Array) -> Array:
    """1 - cosine of directions [B, D], or of zeros -> [B]."""
    difference = u - v
    half = jnp.minimum(0.5 * jnp.sum(difference * difference, axis=1), 2.0)
    return jnp.where(jnp.any(u != 0.0, axis=1) & jnp.any(v != 0.0, axis=1), half, 1.0)


def _unit(features: Array) -> Array:
    """Rows of length one; a row of zeros stays zero. Scaled first: squares of small rows would vanish."""
    largest = jnp.max(jnp.abs(features), axis=1, keepdims=True)
    scaled = features / jnp.where(largest > 0.0, largest, 1.0)
    return scaled / jnp.maximum(jnp.linalg.norm(scaled, axis=1, keepdims=True), 1.0)
