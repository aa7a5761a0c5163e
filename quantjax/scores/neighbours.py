"""Distance to the k-th nearest training feature, exact, and what its neighbours say; higher = more outlying."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_interval, check_same_length, check_shape
from quantjax.scores.logits import energy
from quantjax.scores.nearest import by_chunks, largest_products
from quantjax.scores.normalise import unit
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

SPARE = 22  # candidates about the k-th nearest that a matrix product finds, which rounds their order
BLOCK = 65536


class Neighbours(NamedTuple):
    """Training features that queries are compared with."""

    bank: Array
    """[N, D] float32; of knn rows of length one unless distances are raw, of nnguide times their energies"""


def fit_neighbours(features: ArrayLike, *, normalise: bool = True) -> Neighbours:
    """Keep training features [N, D], brought to length one unless normalise is false.

    Raises ValueError on a wrong rank, no rows, or features that are not finite in float32. Source: Sun et al.
    (ICML 2022).
    """
    rows = _bank(features)
    return Neighbours(unit(rows) if normalise else rows)


def knn(neighbours: Neighbours, features: Array, k: int = 10, *, normalise: bool = True, block: int = BLOCK) -> Array:
    """Return the cosine distance, 1 - cosine, in 0..2, to the k-th nearest training feature; [B, D] -> [B].

    It is ||u - v||^2 / 2 of the directions u and v, which keeps its digits where 1 - cosine has none; against a row of
    zeros it is 1. With normalise=False, as the bank was fitted, it is that of the features themselves. One matrix
    product chooses candidates, 22 on either side of the k-th: only where more rows than that lie within its rounding of
    the k-th neighbour, 1e-7 of the bank's spread, the value may be off by as much. 256 queries meet `block` rows of the
    bank at a time, so memory grows with neither. NaN for features that are not finite or whose squares are not.
    Raises ValueError when features are not [B, D] of the bank's D, or k or block is out of range.
    Source: Sun et al. (ICML 2022), whose Euclidean distance on the unit sphere orders rows the same way.
    """
    bank = neighbours.bank
    features = _queries(bank, features, k, block)
    queries = unit(features) if normalise else features
    centre = jnp.mean(bank, axis=0)[None, :]
    first = max(0, k - 1 - SPARE)

    def prepare(part: Array) -> tuple[Array, Array]:
        """With c the bank's mean: |u - v|^2 / 2 = |u - c|^2 / 2 - ((u - c) . (v - c) - |v - c|^2 / 2)."""
        moved = part - centre
        less = 0.5 * jnp.sum(moved * moved, axis=1)
        if normalise:  # half of a unit vector's square, which a row of zeros lacks
            less = less + jnp.where(jnp.all(part == 0.0, axis=1), 0.5, 0.0)
        return moved, less

    _, candidates = largest_products(queries - centre, bank, prepare, min(len(bank), k + SPARE), block)

    def distances(given: tuple[Array, Array]) -> Array:
        own, places = given
        measure = _cosine_distance if normalise else _half_square
        found = jax.lax.map(lambda row: measure(own, bank[row]), places.T)
        return jnp.sort(found, axis=0)[k - 1 - first]

    # top_k may rank a NaN below everything, and such a row would lie next to the bank's first
    return nan_unless_sound(by_chunks(distances, (queries, candidates[:, first:])), features)


def greedy_coreset(features: ArrayLike, count: int, normalise: bool = True) -> np.ndarray:
    """Indices [min(count, N)] of rows of features [N, D] that lie far apart: each is the farthest from those before it.

    The first is the farthest from the mean. Distances are Euclidean, of directions unless normalise is false; among
    equals the first row is taken. Raises ValueError on a wrong rank, no rows, rows that are not finite in float32, or a
    count under 1. Source: Gonzalez (1985), as PatchCore chooses its memory (Roth et al., CVPR 2022), without its random
    projection.
    """
    rows = _bank(features)
    check_interval("count", count, 1, float("inf"))
    rows = unit(rows) if normalise else rows

    def distances(one: Array) -> Array:
        away = rows - one[None, :]
        return jnp.sum(away * away, axis=1)

    def choose(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, nearest = state
        place = jnp.argmax(nearest).astype(jnp.int32)
        nearest = jnp.minimum(nearest, distances(rows[place]))
        return chosen.at[i].set(place), nearest.at[place].set(-1.0)  # no row is taken twice, not even its double's

    first = jnp.argmax(distances(jnp.mean(rows, axis=0))).astype(jnp.int32)
    wanted = min(count, len(rows))
    begin = jnp.full(wanted, first, jnp.int32), distances(rows[first]).at[first].set(-1.0)
    chosen, _ = jax.lax.fori_loop(1, wanted, choose, begin)
    return np.asarray(chosen)


def fit_nnguide(features: ArrayLike, logits: ArrayLike) -> Neighbours:
    """Keep the directions of training features [N, D], each times logsumexp of its logits [N, K].

    Raises ValueError on wrong shapes, no rows, or rows that are not finite in float32. Source: as nnguide.
    """
    check_shape("logits", logits, "[N, K]")
    rows, logits = _bank(features), jnp.asarray(logits, jnp.float32)
    check_same_length(features=rows, logits=logits)
    check_finite("logits", logits)
    return Neighbours(unit(rows) * -energy(logits)[:, None])


def nnguide(neighbours: Neighbours, features: Array, logits: Array, k: int = 10, *, block: int = BLOCK) -> Array:
    """Return -logsumexp(logits) times the mean of the k largest u . v of the direction u and the bank's rows v; [B].

    features [B, D], logits [B, K]. The bank is that of fit_nnguide. Raises ValueError when features are not [B, D] of
    the bank's D, or k or block is out of range. Source: Park, Jung and Teoh (ICCV 2023).
    """
    features = _queries(neighbours.bank, features, k, block)
    check_shape("logits", logits, f"[{features.shape[0]}, K]")

    prepare = lambda part: (part, jnp.zeros(len(part), jnp.float32))  # noqa: E731
    values, _ = largest_products(unit(features), neighbours.bank, prepare, k, block)
    return nan_unless_sound(energy(logits) * jnp.mean(values, axis=1), features)


def _bank(features: ArrayLike) -> Array:
    check_shape("features", features, "[N, D]")
    rows = jnp.asarray(features, jnp.float32)
    if len(rows) == 0:
        raise ValueError("features must have at least one row, got none")
    check_finite("features", rows)
    return rows


def _queries(bank: Array, features: Array, k: int, block: int) -> Array:
    check_shape("features", features, f"[B, {bank.shape[1]}]")
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must lie in 1..{len(bank)}, the rows of the bank, got {k}")
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    return jnp.asarray(features, jnp.float32)


def _half_square(u: Array, v: Array) -> Array:
    difference = u - v
    return 0.5 * jnp.sum(difference * difference, axis=1)


def _cosine_distance(u: Array, v: Array) -> Array:
    """1 - cosine of directions [B, D], or of zeros -> [B]."""
    half = jnp.minimum(_half_square(u, v), 2.0)
    return jnp.where(jnp.any(u != 0.0, axis=1) & jnp.any(v != 0.0, axis=1), half, 1.0)
