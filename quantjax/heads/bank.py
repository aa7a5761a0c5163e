"""The memory bank of a mixture head: one ring buffer of unit vectors per component.

Every step writes at most `limit` rows per component, evenly spread over its rows in the order of the global batch: of n
rows those of rank floor(j (n - 1) / (limit - 1)), j = 0..limit-1, or all where n <= limit. The buffers change by one
scatter, so that a caller who donates the bank needs no second copy of it. GMMSeg (Liang et al., NeurIPS 2022),
section 3.2 and the authors' code.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from quantjax.heads.density import unit
from quantjax.types import Array


class Selection(NamedTuple):
    """Rows chosen for the bank, equal on all devices; G = K M components."""

    rows: Array
    """[G, limit, D]"""
    taken: Array
    """[G] int32, how many of them are to be written"""


def select(rows: Array, groups: Array, num_groups: int, limit: int, axis_name: str | None = None) -> Selection:
    """Choose at most `limit` of the rows [N, D] of each group; groups [N] int32 in 0..G, where G marks rows left out.

    With axis_name, rows are a device's share, in order: ranks are counted over all devices and each contributes those
    chosen rows that it holds. The only messages are the counts and the chosen rows.
    Raises ValueError when N (G + 1) passes 2^31.
    """
    if (num_groups + 1) * len(groups) >= 2**31:
        raise ValueError(
            f"rows times groups must stay under 2^31, got {len(groups)} rows and {num_groups} groups; "
            "use smaller batches"
        )
    # one sort of group N + position, whose ranks are then plain reads: six times as fast as a cumulative sum of [N, G]
    length = len(groups)
    order = jnp.sort(groups * length + jnp.arange(length, dtype=jnp.int32))
    first = jnp.arange(num_groups, dtype=jnp.int32) * length
    start = jnp.searchsorted(order, first).astype(jnp.int32)
    own = jnp.searchsorted(order, first + length).astype(jnp.int32) - start
    before, total = _over_devices(own, axis_name)
    rank = _spread(total, limit) - before[:, None]
    held = (rank >= 0) & (rank < own[:, None])
    position = order[jnp.clip(start[:, None] + rank, 0, length - 1)] - first[:, None]
    chosen = jnp.where(held[..., None], rows[jnp.where(held, position, 0)], 0.0)
    chosen = chosen if axis_name is None else jax.lax.psum(chosen, axis_name)
    return Selection(chosen, jnp.minimum(total, limit))


def write(bank: Array, pointer: Array, selection: Selection) -> tuple[Array, Array]:
    """Write the chosen rows at each component's pointer [G], wrapping around -> (bank [G, S, D], pointer [G])."""
    groups, slots, dimension = bank.shape
    step = jnp.arange(selection.rows.shape[1], dtype=jnp.int32)[None, :]
    slot = jnp.arange(groups, dtype=jnp.int32)[:, None] * slots + (pointer[:, None] + step) % slots
    slot = jnp.where(step < selection.taken[:, None], slot, groups * slots)  # outside: dropped
    flat = bank.reshape(groups * slots, dimension)
    flat = flat.at[slot.reshape(-1)].set(selection.rows.reshape(-1, dimension), mode="drop")
    return flat.reshape(bank.shape), (pointer + selection.taken) % slots


def moments(bank: Array) -> tuple[Array, Array]:
    """Return each component's direction f = sum_i q_i / ||sum_i q_i|| [G, D] and mean_i (q_i - f)^2 [G, D].

    The bank [G, S, D] is read twice and nothing of its size is made.
    """
    direction = unit(jnp.mean(bank, axis=1))
    difference = bank - direction[:, None, :]
    return direction, jnp.mean(difference * difference, axis=1)


def _over_devices(own: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Rows of each group [G] on earlier devices, and on all of them."""
    if axis_name is None:
        return jnp.zeros_like(own), own
    everywhere = jax.lax.all_gather(own, axis_name)
    earlier = jnp.arange(len(everywhere))[:, None] < jax.lax.axis_index(axis_name)
    return jnp.sum(jnp.where(earlier, everywhere, 0), axis=0), jnp.sum(everywhere, axis=0)


def _spread(total: Array, limit: int) -> Array:
    """Evenly spaced ranks [G, limit] among `total` [G] rows; beyond the last row where there are fewer than limit."""
    step = jnp.arange(limit, dtype=jnp.int32)[None, :]
    return jnp.where(total[:, None] > limit, step * (total[:, None] - 1) // max(limit - 1, 1), step)
