"""Swin transformer, attention inside shifted windows, with the four maps of segmentation backbones.

Liu et al., ICCV 2021. Every second block of a stage moves its windows by half their size; the cyclic shift brings
far edges into one window, and there a mask keeps tokens to their own region. Two rules are in use for a map that is no
higher, or no wider, than one window:

  larger_maps   its windows stay where they are (the authors' classifiers, SwinModel of Hugging Face)
  always        they move as everywhere (segmentors, SwinBackbone of Hugging Face)

Maps that do not fill whole windows are padded with zero tokens after the norm; these take part in attention, as in the
published networks.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from quantjax.checks import check_choice, check_shape
from quantjax.extractors.normalization import LayerNorm
from quantjax.extractors.vit import Mlp, Patches, gelu, truncated_normal
from quantjax.types import Array, FeatureMaps, NamedMap

ShiftRule = Literal["larger_maps", "always"]
SHIFT_RULES = ("larger_maps", "always")
EPSILON = 1e-5
MASKED = -100.0  # nats added to the logits between regions: exp(-100) is no weight at all


class WindowAttention(nn.Module):
    """Multi-head attention among the tokens of one window, with a learned bias per relative position and head."""

    heads: int
    window: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        """Windows [B, V, N, C], N = window^2, and what is added to logits [V, N, N] -> [B, V, N, C]."""
        width, heads = x.shape[-1], self.heads
        qkv = nn.Dense(3 * width, dtype=self.dtype, kernel_init=truncated_normal, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:3], 3, heads, width // heads), 3, 0)
        q = q * jnp.asarray((width // heads) ** -0.5, q.dtype)
        logits = jnp.einsum("bvnhd,bvmhd->bvhnm", q, k, preferred_element_type=jnp.float32) + self._bias()[None, None]
        if mask is not None:
            logits = logits + mask[None, :, None]
        weights = jax.nn.softmax(logits).astype(v.dtype)
        y = jnp.einsum("bvhnm,bvmhd->bvnhd", weights, v).reshape(x.shape)
        return nn.Dense(width, dtype=self.dtype, kernel_init=truncated_normal, name="out")(y)

    def _bias(self) -> Array:
        """[heads, N, N] from the table [(2 window - 1)^2, heads] of differences (dy, dx), row by row."""
        span = 2 * self.window - 1
        table = self.param("positions", truncated_normal, (span * span, self.heads), jnp.float32)
        y, x = np.divmod(np.arange(self.window**2), self.window)
        index = (y[:, None] - y[None] + self.window - 1) * span + x[:, None] - x[None] + self.window - 1
        return jnp.moveaxis(table[index], -1, 0)


class SwinBlock(nn.Module):
    """One pre-norm block of window attention, its windows moved by `shift`, and MLP."""

    heads: int
    window: int
    shift: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, h, w, C]."""
        h, w = x.shape[1:3]
        y = LayerNorm(EPSILON, dtype=self.dtype, name="norm1")(x)
        y = _pad(y, self.window)
        padded = (y.shape[1], y.shape[2])
        mask = jnp.asarray(shift_mask(padded, self.window, self.shift)) if self.shift else None
        y = partition(jnp.roll(y, (-self.shift, -self.shift), (1, 2)), self.window)
        y = WindowAttention(self.heads, self.window, self.dtype, name="attention")(y, mask)
        y = jnp.roll(join(y, padded, self.window), (self.shift, self.shift), (1, 2))
        x = x + y[:, :h, :w]
        y = LayerNorm(EPSILON, dtype=self.dtype, name="norm2")(x)
        return x + Mlp(gelu, self.dtype, name="mlp")(y)


def _pad(x: Array, multiple: int) -> Array:
    """Zeros at the bottom and the right of [B, h, w, C], up to a multiple of `multiple`."""
    return jnp.pad(x, ((0, 0), *((0, -n % multiple) for n in x.shape[1:3]), (0, 0)))


def partition(x: Any, window: int) -> Any:
    """Array of either kind [B, h, w, C], h and w multiples of window -> windows row by row [B, V, window^2, C]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // window, window, w // window, window, c).swapaxes(2, 3)
    return x.reshape(b, -1, window * window, c)


def join(x: Array, size: tuple[int, int], window: int) -> Array:
    """The inverse of `partition`: [B, V, window^2, C] -> [B, *size, C]."""
    h, w = size
    x = x.reshape(x.shape[0], h // window, w // window, window, window, x.shape[-1]).swapaxes(2, 3)
    return x.reshape(x.shape[0], h, w, x.shape[-1])


def shift_mask(size: tuple[int, int], window: int, shift: int) -> np.ndarray:
    """[V, N, N] float32 for a map of `size`: 0 between tokens of one region after the shift, MASKED between others."""
    row, column = ((np.arange(n) >= n - window).astype(int) + (np.arange(n) >= n - shift) for n in size)
    region = partition((3 * row[:, None] + column[None])[None, :, :, None], window)[0, :, :, 0]
    return np.where(region[:, :, None] == region[:, None], 0.0, MASKED).astype(np.float32)


class PatchMerging(nn.Module):
    """Four neighbouring tokens, normalised as one, to one of twice the width; odd sizes are padded with zeros."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, ceil(h / 2), ceil(w / 2), 2 C]."""
        x = _pad(x, 2)
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5).reshape(b, h // 2, w // 2, 4 * c)
        x = LayerNorm(EPSILON, dtype=self.dtype, name="norm")(x)
        return nn.Dense(2 * c, use_bias=False, dtype=self.dtype, kernel_init=truncated_normal, name="reduction")(x)


class SwinTransformer(nn.Module):
    """Swin whose maps are the ends of its four stages, each through a LayerNorm of its own; defaults are Swin-B's.

    `dtype` is what matrix products compute in; parameters, the stages' norms, softmax and results are float32; `shift`
    is the rule for maps of one window. Built to be run frozen: there is no stochastic depth. Stage i (0 to 3) is
    followed by `merge_i`. Raises ValueError unless there are four stages whose widths are multiples of their heads.
    """

    patch: int = 4
    width: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 12
    shift: ShiftRule = "larger_maps"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> FeatureMaps:
        """Standardised images [B, H, W, 3] of any size -> maps res2 to res5 of strides 4, 8, 16, 32 and their summary.

        Map i is [B, h_i, w_i, width * 2^i] with h_i = ceil(H / 4), then ceil(h / 2); the summary is the mean of res5.
        """
        self._check(images)
        images = _pad(images, self.patch)
        grid = tuple(n // self.patch for n in images.shape[1:3])
        x = Patches(self.patch, self.width, True, self.dtype, name="patches")(images)
        x = LayerNorm(EPSILON, dtype=jnp.float32, name="patch_norm")(x).reshape(images.shape[0], *grid, self.width)
        maps = []
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            if stage:
                x = PatchMerging(self.dtype, name=f"merge_{stage - 1}")(x)
            moves = self.shift == "always" or min(x.shape[1:3]) > self.window
            for i in range(depth):
                shift = self.window // 2 if i % 2 and moves else 0
                x = SwinBlock(heads, self.window, shift, self.dtype, name=f"stage_{stage}_block_{i}")(x)
            maps.append(NamedMap(f"res{stage + 2}", LayerNorm(EPSILON, dtype=jnp.float32, name=f"norm_{stage}")(x)))
        return FeatureMaps(tuple(maps), maps[-1].map.mean((1, 2)))

    def _check(self, images: Array) -> None:
        check_shape("images", images, "[B, H, W, 3]")
        check_choice("shift", self.shift, SHIFT_RULES)
        if len(self.depths) != 4 or len(self.heads) != 4:
            raise ValueError(f"depths and heads must have 4 stages, got depths {self.depths} and heads {self.heads}")
        if any(self.width * 2**i % n for i, n in enumerate(self.heads)):
            raise ValueError(f"heads must divide the widths of the stages, {self.width} * 2^i; got {self.heads}")
