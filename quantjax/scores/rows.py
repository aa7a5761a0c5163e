"""Rows that no score can judge: what is not finite, or so large that its square is not, scores NaN."""

from __future__ import annotations

import jax.numpy as jnp

from quantjax.types import Array

LARGEST = 1e19  # the square of 1.9e19 is float32's largest number


def nan_unless_sound(score: Array, *values: Array) -> Array:
    """Return score [...] with NaN where an entry of `values` [..., D] is NaN, infinite, or 1e19 and more in size.

    Without it a row of infinities or of overflown squares may come out as the surest inlier there is.
    """
    for array in values:
        array = jnp.asarray(array, jnp.float32)
        score = jnp.where(jnp.all(jnp.abs(array) < LARGEST, axis=-1), score, jnp.nan)
    return score
