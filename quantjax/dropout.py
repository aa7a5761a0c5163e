"""Which entries dropout keeps, from random bytes: generators are slow on a CPU, and most draws need no more bits."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from quantjax.types import Array


def draw_dropout(key: Array, shape: Sequence[int], rate: float) -> Array:
    """Draw bools [..., B, W] that are True (keep) with probability 1 - rate, to within 2^-17.

    A random byte decides 255 times in 256, a second one the rest; the second is shared along the leading axes, which
    leaves the draws independent but for ties in 2^-16 of the pairs. This asks for a third of the bits that one float
    per draw takes, or fewer. With threefry, the default generator, rows behind change no draw of the rows before.
    """
    level = min(round((1 - rate) * 2**16), 2**16 - 1)
    first_key, second_key = jax.random.split(key)
    first, second = _draw_bytes(first_key, shape), _draw_bytes(second_key, shape[-2:])
    tied = (first == jnp.uint8(level >> 8)) & (second < jnp.uint8(level & 255))[(None,) * (len(shape) - 2)]
    return (first < jnp.uint8(level >> 8)) | tied


def _draw_bytes(key: Array, shape: Sequence[int]) -> Array:
    *leading, last = shape
    words = jax.random.bits(key, (*leading, -(-last // 4)), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*leading, -1)[..., :last]
