"""The largest products of queries with the rows of a bank: exact, in memory that does not grow with either.

A product of few queries and a block of the bank is reduced at once. `top` finds the largest of its columns by groups:
lax.top_k over tens of thousands of columns takes many times as long as the product on a CPU, while the `count` groups
of largest maxima hold the `count` largest numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export

from quantjax.types import Array, PyTree

QUERIES_AT_ONCE = 512
FEWEST_IN_GROUP = 4  # smaller groups cost more than they save


def by_chunks(function: Callable[[Array], PyTree], queries: Array, size: int = QUERIES_AT_ONCE) -> PyTree:
    """function(rows [size, D]) -> pytree of [size, ...], over all queries [B, D], one chunk after another.

    All at once in a program that is exported for any B.
    """
    rows = queries.shape[0]
    if export.is_symbolic_dim(rows) or rows <= size:
        return function(queries)
    padded = jnp.pad(queries, ((0, -rows % size), (0, 0)))
    found = jax.lax.map(function, padded.reshape(-1, size, queries.shape[1]))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rows], found)


def largest_products(
    queries: Array, bank: Array, prepare: Callable[[Array], tuple[Array, Array]], count: int, block: int
) -> tuple[Array, Array]:
    """(values [B, count], rows of the bank [B, count] int32) of the largest queries . moved - less, largest first.

    prepare(rows of the bank [n, D]) -> (moved [n, D], less [n]); `block` rows are read at a time.
    """

    def merge(best: tuple[Array, Array], part: Array, start: Array | int) -> tuple[Array, Array]:
        moved, less = prepare(part)
        values = jnp.matmul(queries, moved.T, precision=jax.lax.Precision.HIGHEST) - less[None, :]
        largest, own = top(values, min(count, values.shape[1]))
        values, places = (jnp.concatenate(pair, axis=1) for pair in zip(best, (largest, own + start), strict=True))
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
    return best


def top(values: Array, count: int) -> tuple[Array, Array]:
    """As lax.top_k(values [B, n], count), in another order among equals."""
    columns = values.shape[1]
    size = int((columns / count) ** 0.5)  # as many groups as there are numbers in the groups that are looked into
    if size < FEWEST_IN_GROUP:
        return jax.lax.top_k(values, count)
    groups = columns // size  # column i of group j is i * groups + j, so that maxima are taken over whole rows
    grouped = values[:, : size * groups].reshape(-1, size, groups)
    _, chosen = jax.lax.top_k(jnp.max(grouped, axis=1), count)
    inside = jnp.take_along_axis(grouped, chosen[:, None, :], axis=2)
    places = jax.lax.broadcasted_iota(jnp.int32, inside.shape, 1) * groups + chosen[:, None, :]
    rest = jax.lax.broadcasted_iota(jnp.int32, (values.shape[0], columns - size * groups), 1) + size * groups
    inside = jnp.concatenate([inside.reshape(values.shape[0], -1), values[:, size * groups :]], axis=1)
    places = jnp.concatenate([places.reshape(values.shape[0], -1), rest], axis=1)
    kept, order = jax.lax.top_k(inside, count)
    return kept, jnp.take_along_axis(places, order, axis=1)
