"""One linear layer per pixel or token: the discriminative head."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from quantjax.types import Array


class LinearHead(nn.Module):
    """Logits x W + b in float32 at highest precision, whatever the network's."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., D] -> logits [..., K] float32."""
        return dense(self.num_classes, x.shape[-1], "linear")(x.astype(jnp.float32))


def dense(features: int, inputs: int, name: str) -> nn.Dense:
    """A linear layer with PyTorch's default start: weights and bias uniform within 1 / sqrt(inputs)."""

    def uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        bound = 1.0 / math.sqrt(inputs)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    highest = jax.lax.Precision.HIGHEST
    return nn.Dense(features, kernel_init=uniform, bias_init=uniform, precision=highest, name=name)
