"""The largest products of queries with the rows of a bank: exact, in memory that hardly grows with either.

A few queries meet a block of the bank, and what comes of it is reduced at once. `top` finds the largest of its columns
by groups: lax.top_k over tens of thousands of columns takes many times as long as the product on a CPU, while the
`count` groups of largest maxima hold the `count` largest numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
from jax import export

from quantjax.types import Array, PyTree

QUERIES_AT_ONCE = 256
FEWEST_IN_GROUP = 3  # smaller groups cost more than they save

Best = tuple[Array, Array]  # values and rows of the bank, [B, count] each


def by_chunks(function: Callable[[PyTree], PyTree], rows: PyTree, size: int = QUERIES_AT_ONCE) -> PyTree:
    """function(pytree of [size, ...]) -> pytree of [size, ...], over all rows [B, ...], one chunk after another.

    All at once in a program that is exported for any B.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if export.is_symbolic_dim(count) or count <= size:
        return function(rows)

    def split(leaf: Array) -> Array:
        padded = jnp.pad(leaf, ((0, -count % size), *((0, 0),) * (leaf.ndim - 1)))
        return padded.reshape(-1, size, *leaf.shape[1:])

    found = jax.lax.map(function, jax.tree.map(split, rows))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)


def largest_products(
    queries: Array, bank: Array, prepare: Callable[[Array], tuple[Array, Array]], count: int, block: int
) -> Best:
    """(values [B, count], rows of the bank [B, count] int32) of the largest queries . moved - less, largest first.

    prepare(rows of the bank [n, D]) -> (moved [n, D], less [n]); `block` rows are read at a time.
    """
    ones = jnp.ones((queries.shape[0], 1), jnp.float32)
    queries = jnp.concatenate([queries, ones], axis=1)  # a product that subtracts costs no second pass

    def merge(best: Best, part: Array, start: Array | int) -> Best:
        moved, less = prepare(part)
        moved = jnp.concatenate([moved, -less[:, None]], axis=1)

        def merge_chunk(given: tuple[Array, Best]) -> Best:
            own, (values, places) = given
            products = jnp.matmul(own, moved.T, precision=jax.lax.Precision.HIGHEST)
            largest, columns = top(products, min(count, products.shape[1]))
            values = jnp.concatenate([values, largest], axis=1)
            places = jnp.concatenate([places, columns + start], axis=1)
            kept, order = jax.lax.top_k(values, count)
            return kept, jnp.take_along_axis(places, order, axis=1)

        return by_chunks(merge_chunk, (queries, best))

    def merge_block(i: Array, best: Best) -> Best:
        return merge(best, jax.lax.dynamic_slice_in_dim(bank, i * block, block), i * block)

    shape = (queries.shape[0], count)
    best = jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32)
    whole = len(bank) // block
    if whole:  # slices: blocks of a reshaped bank would be a second bank in memory
        best = jax.lax.fori_loop(0, whole, merge_block, best)
    if whole * block < len(bank):
        best = merge(best, bank[whole * block :], whole * block)
    return best


def top(values: Array, count: int) -> Best:
    """As lax.top_k(values [B, n], count), in another order among equals."""
    columns = values.shape[1]
    size = int((columns / count) ** 0.5)  # as many groups as there are numbers in the groups that are looked into
    if size < FEWEST_IN_GROUP:
        return jax.lax.top_k(values, count)
    groups = columns // size  # group j has the columns j, groups + j, 2 groups + j ..: maxima of whole slices
    maxima = reduce(jnp.maximum, [values[:, i * groups : (i + 1) * groups] for i in range(size)])
    _, chosen = jax.lax.top_k(maxima, count)
    inside = jnp.arange(size, dtype=jnp.int32)[None, :, None] * groups + chosen[:, None, :]
    rest = jax.lax.broadcasted_iota(jnp.int32, (values.shape[0], columns - size * groups), 1) + size * groups
    places = jnp.concatenate([inside.reshape(values.shape[0], -1), rest], axis=1)
    kept, order = jax.lax.top_k(jnp.take_along_axis(values, places, axis=1), count)
    return kept, jnp.take_along_axis(places, order, axis=1)
