"""Distance to the k-th nearest training feature, exact; higher = more outlying."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_shape
from quantjax.types import Array


class Neighbours(NamedTuple):
    """Training features on the unit sphere."""

    bank: Array
    """[N, D] float32, rows of length one"""


def fit_neighbours(features: ArrayLike) -> Neighbours:
    """Normalise training features [N, D] to length one and keep them.

    Raises ValueError on a wrong rank, no rows, or features that are not finite. Source: Sun et al. (ICML 2022).
    """
    check_shape("features", features, "[N, D]")
    if len(features) == 0:  # type: ignore[arg-type]
        raise ValueError("features must have at least one row, got none")
    check_finite("features", features)
    return Neighbours(_unit(jnp.asarray(features, jnp.float32)))


def knn(neighbours: Neighbours, features: Array, k: int = 10, *, block: int = 4096) -> Array:
    """Return the cosine distance, 1 - cosine, in 0..2, to the k-th nearest training feature; [B, D] -> [B].

    The bank is read `block` rows at a time, so memory grows with B * block, not with B * N; the result is exact, and
    NaN for features that are not finite.
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
    queries = _unit(features.astype(jnp.float32))

    def merge(best: Array, part: Array) -> Array:
        cosines = jnp.matmul(queries, part.T, precision=jax.lax.Precision.HIGHEST)
        nearest = jax.lax.top_k(cosines, min(k, cosines.shape[1]))[0]
        return jax.lax.top_k(jnp.concatenate([best, nearest], axis=1), k)[0]

    def merge_block(i: Array, best: Array) -> Array:
        return merge(best, jax.lax.dynamic_slice_in_dim(bank, i * block, block))

    best = jnp.full((queries.shape[0], k), -jnp.inf, jnp.float32)
    whole = rows // block
    if whole:  # slices: blocks of a reshaped bank would be a second bank in memory
        best = jax.lax.fori_loop(0, whole, merge_block, best)
    if whole * block < rows:
        best = merge(best, bank[whole * block :])
    # top_k may rank a NaN below everything, and such a row would lie next to the bank's first
    return jnp.where(jnp.isnan(queries).any(axis=1), jnp.nan, 1.0 - best[:, k - 1])


def _unit(features: Array) -> Array:
    """Rows of length one; a row of zeros stays zero."""
    length = jnp.linalg.norm(features, axis=1, keepdims=True)
    return features / jnp.maximum(length, jnp.finfo(jnp.float32).tiny)
