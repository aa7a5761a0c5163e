"""The network of the unknown estimation module, between the backbone's tokens and its two-class head.

Linear layers with ReLU in between and none after the last, as UEM (Nayal, Shoeb and Güney 2024, arXiv 2409.06424),
eq. 5: 768 -> 512 -> 512 -> 256 has 787,712 parameters, 788,226 with a linear head of two classes.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from quantjax.heads.linear import dense
from quantjax.types import Array


class Projector(nn.Module):
    """Tokens -> features of `widths[-1]` channels, in float32 at highest precision."""

    widths: tuple[int, ...] = (512, 512, 256)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., D] float32, D = widths[-1]; raises ValueError when widths is empty."""
        if not self.widths:
            raise ValueError("widths must name at least one layer, got none; for no projector leave it out")
        x = x.astype(jnp.float32)
        for i, width in enumerate(self.widths):
            x = dense(width, x.shape[-1], f"linear{i}")(nn.relu(x) if i else x)
        return x
