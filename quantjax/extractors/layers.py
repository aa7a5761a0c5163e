"""What the named maps of a network say of an image as a whole: mean and deviation of every channel."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from quantjax.types import Array


def layer_statistics(maps: Mapping[str, Array]) -> dict[str, Array]:
    """Of every map [B, h, w, C] the means over h and w, then the deviations: {name: [B, 2 C] float32}."""
    return {name: _means_and_deviations(values.astype(jnp.float32)) for name, values in maps.items()}


def _means_and_deviations(values: Array) -> Array:
    means = jnp.mean(values, axis=(1, 2), keepdims=True)
    deviations = jnp.sqrt(jnp.mean(jnp.square(values - means), axis=(1, 2)))
    return jnp.concatenate([means[:, 0, 0], deviations], axis=1)
