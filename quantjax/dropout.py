"""Which entries dropout keeps, from random bytes: generators are slow on a CPU, and most draws need no more bits."""

from __future__ import annotations

import math
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
    first_key, second_key = jax.random.split(key)
    words = (shape[-1] + 3) // 4
    first = jax.random.bits(first_key, (*shape[:-1], words), jnp.uint32)
    second = jax.random.bits(second_key, (shape[-2], words), jnp.uint32)
    return _keep(_bytes(first, shape[-1]), _bytes(second, shape[-1]), rate)


def draw_map_dropout(key: Array, shape: Sequence[int], rate: float) -> Array:
    """Draw bools [B, ..., C] as `draw_dropout` does, second bytes being shared by all entries of a channel.

    The generator is called once: in a network with a draw per layer, it is most of what there is to compile.
    """
    rows, channels = math.prod(shape[:-1]), shape[-1]
    drawn = _bytes(jax.random.bits(key, (1 + rows, (channels + 3) // 4), jnp.uint32), channels)
    return _keep(drawn[1:], drawn[0], rate).reshape(shape)


def _keep(first: Array, second: Array, rate: float) -> Array:
    """Whether the number of two bytes is below 1 - rate, in parts of 2^16; second lacks leading axes of first."""
    level = min(round((1 - rate) * 2**16), 2**16 - 1)
    tied = (first == jnp.uint8(level >> 8)) & (second < jnp.uint8(level & 255))[(None,) * (first.ndim - second.ndim)]
    return (first < jnp.uint8(level >> 8)) | tied


def _bytes(words: Array, length: int) -> Array:
    """Words [..., n] as the first `length` of their 4 n bytes."""
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*words.shape[:-1], -1)[..., :length]
