"""Vision transformers that return the maps of chosen blocks (Dosovitskiy et al., ICLR 2021).

Patches become tokens [class, registers, patches row by row]. One block:

    x = x + g1 * attention(norm1(x)),     x = x + g2 * mlp(norm2(x))

Style "dinov2" (Oquab et al., TMLR 2024; registers: Darcet et al., ICLR 2024): exact GELU, LayerNorm epsilon 1e-6, a
bias of the patches, learned gains g1, g2. Style "clip" (Radford et al., ICML 2021): x sigmoid(1.702 x) for GELU,
epsilon 1e-5, no patch bias, no gains, and one more LayerNorm before the first block. `scale_branches=False` leaves out
the gains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from quantjax.checks import check_choice, check_shape
from quantjax.extractors.attention import attend
from quantjax.extractors.normalization import LayerNorm
from quantjax.extractors.positions import PositionRule, resize_positions
from quantjax.types import Array, FeatureMaps, NamedMap

EPSILON = {"dinov2": 1e-6, "clip": 1e-5}
Activation = Literal["gelu", "quick_gelu"]
ACTIVATIONS: dict[str, Activation] = {"dinov2": "gelu", "clip": "quick_gelu"}  # of each style
truncated_normal = nn.initializers.truncated_normal(0.02)


class Attention(nn.Module):
    """Multi-head self-attention with one product for queries, keys and values."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, N, C] -> [B, N, C]."""
        batch, tokens, width = x.shape
        qkv = nn.Dense(3 * width, dtype=self.dtype, kernel_init=truncated_normal, name="qkv")(x)
        y = attend(qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)).reshape(x.shape)
        return nn.Dense(width, dtype=self.dtype, kernel_init=truncated_normal, name="out")(y)


class Mlp(nn.Module):
    """Linear layer to four times the width, an activation, linear layer back."""

    activation: Callable[[Array], Array]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, N, C] -> [B, N, C]."""
        width = x.shape[-1]
        x = nn.Dense(4 * width, dtype=self.dtype, kernel_init=truncated_normal, name="in")(x)
        return nn.Dense(width, dtype=self.dtype, kernel_init=truncated_normal, name="out")(self.activation(x))


class Block(nn.Module):
    """One pre-norm block of attention and MLP."""

    heads: int
    style: str
    scale_branches: bool
    activation: Activation
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, N, C] -> [B, N, C]."""
        epsilon = EPSILON[self.style]
        activation = gelu if self.activation == "gelu" else quick_gelu
        y = LayerNorm(epsilon, dtype=self.dtype, name="norm1")(x)
        x = x + self._scaled("scale1", Attention(self.heads, self.dtype, name="attention")(y))
        y = LayerNorm(epsilon, dtype=self.dtype, name="norm2")(x)
        return x + self._scaled("scale2", Mlp(activation, self.dtype, name="mlp")(y))

    def _scaled(self, name: str, branch: Array) -> Array:
        if not self.scale_branches:
            return branch
        gain = self.param(name, nn.initializers.ones, branch.shape[-1:], jnp.float32)
        return branch * gain.astype(branch.dtype).reshape(1, 1, -1)


class VisionTransformer(nn.Module):
    """ViT whose maps are the patch tokens after the blocks `layers` (counted from 0), each through the final norm.

    `dtype` is what matrix products compute in; parameters, norms, softmax and results are float32. `grid` is the size
    of the stored position embeddings, in patches; `position_rule` says how they are brought to another (`positions`);
    `activation` is the style's unless it is given: CLIP trained with GELU (OpenCLIP's, mostly) has "gelu".
    Raises ValueError when the width is not a multiple of heads, or a layer is not in 0..depth-1 or out of order.
    """

    patch: int = 14
    width: int = 768
    depth: int = 12
    heads: int = 12
    registers: int = 0
    layers: tuple[int, ...] = (1, 4, 8, 11)
    grid: tuple[int, int] = (37, 37)
    style: Literal["dinov2", "clip"] = "dinov2"
    scale_branches: bool = True
    position_rule: PositionRule = "exact"
    activation: Activation | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> FeatureMaps:
        """Standardised images [B, H, W, 3] -> maps block_<i> [B, H / patch, W / patch, C] and the class token [B, C].

        The class token is that of the last block, through the final norm. Raises ValueError unless images have this
        shape with H and W multiples of the patch.
        """
        self._check(images)
        batch, h, w = images.shape[0], images.shape[1] // self.patch, images.shape[2] // self.patch
        x = self._tokens(images)
        norm = LayerNorm(EPSILON[self.style], dtype=jnp.float32, name="norm")
        activation = self.activation or ACTIVATIONS[self.style]
        maps = []
        for i in range(self.depth):
            x = Block(self.heads, self.style, self.scale_branches, activation, self.dtype, name=f"block_{i}")(x)
            if i in self.layers:
                tokens = norm(x[:, 1 + self.registers :])
                maps.append(NamedMap(f"block_{i}", tokens.reshape(batch, h, w, self.width)))
        return FeatureMaps(tuple(maps), norm(x[:, 0]))

    def _tokens(self, images: Array) -> Array:
        """[B, H, W, 3] -> [B, 1 + registers + h w, C]: patches with positions behind the class token and registers."""
        batch, h, w = images.shape[0], images.shape[1] // self.patch, images.shape[2] // self.patch
        patches = Patches(self.patch, self.width, self.style == "dinov2", self.dtype, name="patches")(images)
        positions = self.param("positions", truncated_normal, (*self.grid, self.width), jnp.float32)
        patches = patches + resize_positions(positions, (h, w), self.position_rule).reshape(1, h * w, self.width)
        first = self.param("class_token", truncated_normal, (1, self.width), jnp.float32)
        first = first + self.param("class_position", truncated_normal, (1, self.width), jnp.float32)
        if self.registers:
            registers = self.param("registers", truncated_normal, (self.registers, self.width), jnp.float32)
            first = jnp.concatenate([first, registers])
        first = jnp.broadcast_to(first[None], (batch, *first.shape))
        x = jnp.concatenate([first, patches], axis=1)
        return LayerNorm(EPSILON["clip"], dtype=jnp.float32, name="pre_norm")(x) if self.style == "clip" else x

    def _check(self, images: Array) -> None:
        check_choice("style", self.style, EPSILON)
        check_choice("activation", self.activation or ACTIVATIONS[self.style], ACTIVATIONS.values())
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width {self.width} and {self.heads} heads")
        if list(self.layers) != sorted({i for i in self.layers if 0 <= i < self.depth}) or not self.layers:
            raise ValueError(f"layers must be increasing numbers in 0..{self.depth - 1}, got {self.layers}")
        check_shape("images", images, "[B, H, W, 3]")
        height, width = images.shape[1:3]
        if height % self.patch or width % self.patch or not height * width:
            fit = [max(1, round(n / self.patch)) * self.patch for n in (height, width)]
            raise ValueError(
                f"images must have a height and a width that are multiples of the patch, {self.patch}; "
                f"got {height} x {width}: resize, crop or pad them to {fit[0]} x {fit[1]}"
            )


class Patches(nn.Module):
    """Linear map of every patch: a convolution with stride = kernel, written as one matrix product."""

    patch: int
    width: int
    use_bias: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """[B, H, W, 3] -> [B, h w, C] float32."""
        p = self.patch
        batch, h, w = images.shape[0], images.shape[1] // p, images.shape[2] // p
        kernel = self.param("kernel", truncated_normal, (p, p, 3, self.width), jnp.float32)
        x = images.astype(self.dtype).reshape(batch, h, p, w, p, 3).swapaxes(2, 3).reshape(batch, h * w, p * p * 3)
        x = jnp.dot(x, kernel.astype(self.dtype).reshape(p * p * 3, self.width), preferred_element_type=jnp.float32)
        if not self.use_bias:
            return x
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        return x + bias.reshape(1, 1, -1)


def gelu(x: Array) -> Array:
    """x Phi(x), Phi the normal distribution function (Hendrycks & Gimpel, 2016)."""
    return nn.gelu(x, approximate=False)


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x), CLIP's stand-in for GELU."""
    return x * nn.sigmoid(1.702 * x)
