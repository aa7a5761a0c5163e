"""Feature pyramid decoder: four maps of a backbone to one map that a per-pixel head reads.

The decoder of UEM (Nayal, Shoeb & Güney 2024, arXiv 2409.06424), a feature pyramid network (Lin et al., CVPR 2017) with
the added-up scale heads of semantic FPN (Kirillov et al., CVPR 2019):

1. four normalised levels of strides s, 2 s, 4 s, 8 s: those of a pyramid backbone, or made from the maps of a plain
   transformer, which all have the same size, by transposed convolutions and pooling;
2. lateral 1x1 convolutions, each level added to the nearest-resized one above it, a 3x3 convolution per level;
3. heads of 3x3 convolution, batch norm, ReLU and doubling per level, brought to the finest level's size and added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from quantjax import resize
from quantjax.checks import check_choice
from quantjax.extractors.convolution import convolve
from quantjax.extractors.normalization import EPSILON, EVALUATE, BatchNorm, Mode
from quantjax.types import Array

KINDS = ("plain", "pyramid")


def uniform(fan: int) -> nn.initializers.Initializer:
    """PyTorch's default for weights and biases: uniform within 1 / sqrt(fan)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -(fan**-0.5), fan**-0.5)


class Linear(nn.Module):
    """Dense layer over the last axis, a 1x1 convolution on maps; computes in `dtype`."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., features]."""
        kernel, bias = (weight.astype(self.dtype) for weight in self.weights(x.shape[-1]))
        return x.astype(self.dtype) @ kernel + bias.reshape(*[1] * (x.ndim - 1), -1)

    @nn.compact
    def weights(self, width: int) -> tuple[Array, Array]:
        """Kernel [width, features] and bias [features], float32."""
        init = uniform(width)
        kernel = self.param("kernel", init, (width, self.features), jnp.float32)
        return kernel, self.param("bias", init, (self.features,), jnp.float32)


class Conv(nn.Module):
    """3x3 convolution, zeros around the map; computes in `dtype`."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, h, w, features]."""
        init = uniform(9 * x.shape[-1])
        kernel = self.param("kernel", init, (3, 3, x.shape[-1], self.features), jnp.float32)
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        return y + self.param("bias", init, (self.features,), jnp.float32).astype(self.dtype).reshape(1, 1, 1, -1)


class Doubling(nn.Module):
    """Transposed convolution of size and stride 2: one matrix product, as what is made of each pixel never overlaps."""

    features: int
    dtype: Any = jnp.float32

    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, 2 h, 2 w, features]."""
        kernel, bias = (weight.astype(self.dtype) for weight in self.weights(x.shape[-1]))
        return spread(x.astype(self.dtype), kernel) + bias.reshape(1, 1, 1, -1)

    @nn.compact
    def weights(self, width: int) -> tuple[Array, Array]:
        """Kernel [width, 2, 2, features] and bias [features], float32."""
        init = uniform(4 * self.features)  # PyTorch counts the outputs of a transposed convolution
        kernel = self.param("kernel", init, (width, 2, 2, self.features), jnp.float32)
        return kernel, self.param("bias", init, (self.features,), jnp.float32)


def spread(x: Array, kernel: Array) -> Array:
    """Each pixel of x [B, h, w, C] times kernel [C, 2, 2, F], as four pixels of [B, 2 h, 2 w, F]."""
    b, h, w, c = x.shape
    y = (x @ kernel.reshape(c, -1)).reshape(b, h, w, 2, 2, -1)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)


class MapNorm(nn.Module):
    """Group norm of one group (Wu & He, ECCV 2018): each image's map is standardised over positions and channels."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> the same shape in `dtype`; statistics in float32."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        x = x.astype(jnp.float32)
        x = x - x.mean((1, 2, 3), keepdims=True)
        variance = jnp.square(x).mean((1, 2, 3), keepdims=True)
        x = x * jax.lax.rsqrt(variance + EPSILON) * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)
        return x.astype(self.dtype)


class DoubledLateral(nn.Module):
    """Doubling to C channels and the lateral 1x1 convolution, multiplied into one doubling as nothing is between them.

    With C three times `channels` that is a quarter of the arithmetic, and the largest map is never made.
    """

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, 2 h, 2 w, channels]."""
        kernel, shift = Doubling(x.shape[-1], name="double").weights(x.shape[-1])
        lateral, bias = Linear(self.channels, name="lateral").weights(x.shape[-1])
        y = spread(x.astype(self.dtype), (kernel @ lateral).astype(self.dtype))
        return y + (shift @ lateral + bias).astype(self.dtype).reshape(1, 1, 1, -1)


class ScaleHead(nn.Module):
    """`units` times 3x3 convolution, batch norm, ReLU and, where `doubling`, bilinear enlargement by two."""

    channels: int
    units: int
    doubling: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mode: Mode) -> Array:
        """[B, h, w, C] -> [B, 2^units h, 2^units w, channels], or [B, h, w, channels] without doubling."""
        for unit in range(self.units):
            x = Conv(self.channels, False, self.dtype, name=f"conv{unit}")(x)
            x = nn.relu(BatchNorm(self.dtype, name=f"norm{unit}")(x, mode))
            if self.doubling:
                x = resize.bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))
        return x


class FeaturePyramid(nn.Module):
    """Decoder of four maps, shallow to deep; initialised as PyTorch initialises these layers.

    `kind` "plain": maps of one size [B, h, w, C], as those of a plain vision transformer; the result is [B, 4 h, 4 w,
    channels], with 14,958,592 parameters for C = 768. "pyramid": maps of strides s, 2 s, 4 s, 8 s, as Swin's; the
    result has the first one's size. `token_hidden` is the hidden width of the plain kind's token branch.
    """

    kind: str = "plain"
    channels: int = 256
    token_hidden: int = 512
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[Array], mode: Mode = EVALUATE) -> Array:
        """Four maps [B, h_i, w_i, C_i] -> [B, h', w', channels] float32. Raises ValueError for other shapes."""
        check_choice("kind", self.kind, KINDS)
        _check_maps(maps, self.kind)
        levels = self._plain_levels(maps, mode) if self.kind == "plain" else self._pyramid_levels(maps)
        for i in (2, 1, 0):
            levels[i] = levels[i] + resize.nearest(levels[i + 1], levels[i].shape[1:3])
        levels = [Conv(self.channels, dtype=self.dtype, name=f"output{i}")(x) for i, x in enumerate(levels, 1)]
        total = ScaleHead(self.channels, 1, False, self.dtype, name="head1")(levels[0], mode).astype(jnp.float32)
        for i in (1, 2, 3):
            x = ScaleHead(self.channels, i, True, self.dtype, name=f"head{i + 1}")(levels[i], mode)
            total = total + resize.bilinear(x, total.shape[1:3], corners=True).astype(jnp.float32)
        return total

    def _pyramid_levels(self, maps: Sequence[Array]) -> list[Array]:
        maps = [MapNorm(self.dtype, name=f"norm{i}")(x) for i, x in enumerate(maps, 1)]
        return [Linear(self.channels, self.dtype, name=f"lateral{i}")(x) for i, x in enumerate(maps, 1)]

    def _plain_levels(self, maps: Sequence[Array], mode: Mode) -> list[Array]:
        """Levels of 4, 2, 1 and 1/2 times the size of the maps; the last map's tokens join the third."""
        channels, dtype = self.channels, self.dtype
        tokens = nn.relu(Linear(self.token_hidden, dtype, name="tokens1")(maps[3]))
        tokens = Linear(channels, dtype, name="tokens2")(tokens)
        first, second, third, fourth = (MapNorm(dtype, name=f"norm{i}")(x) for i, x in enumerate(maps, 1))
        first = BatchNorm(dtype, name="first_norm")(Doubling(first.shape[-1], dtype, name="first_double")(first), mode)
        return [
            DoubledLateral(channels, dtype, name="level1")(nn.gelu(first, approximate=False)),
            DoubledLateral(channels, dtype, name="level2")(second),
            Linear(channels, dtype, name="lateral3")(jnp.concatenate([third, tokens], -1)),
            Linear(channels, dtype, name="lateral4")(nn.max_pool(fourth, (2, 2), (2, 2))),
        ]


def _check_maps(maps: Sequence[Array], kind: str) -> None:
    shapes = [list(x.shape) for x in maps]
    if len(maps) != 4 or any(x.ndim != 4 for x in maps):
        raise ValueError(f"maps must be 4 arrays [B, h, w, C], from shallow to deep, got shapes {shapes}")
    if kind == "plain" and (any(s != shapes[0] for s in shapes) or min(shapes[0][1:3]) < 2):
        raise ValueError(
            f'maps must have one size of at least 2 x 2 for kind "plain", got {shapes}; see kind "pyramid"'
        )
