"""Batch normalisation and dropout that give the same numbers on one device and on several.

Batch normalisation over the unmasked rows of the global batch (Ioffe & Szegedy, ICML 2015, algorithm 1):

    y = scale * (x - mean) / sqrt(variance + 1e-5) + bias

normalises with the biased variance and stores the unbiased one, n / (n - 1), as PyTorch does. Where the batch is split
over devices, sums and counts are added over `axis_name` before they become statistics.

Gradients through these statistics are right when every device differentiates its own share of the loss, local sum /
global count, and the gradients are added (psum) afterwards: the transpose of the sum over devices carries the
terms that cross them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from quantjax.types import Array

EPSILON = 1e-5
MOMENTUM = 0.9  # the share that the old running statistic keeps; PyTorch writes this as momentum=0.1


class Mode(NamedTuple):
    """How a network is run: what a training step knows and an evaluation does not need."""

    train: bool = False
    mask: Array | None = None  # [B] bool, False for padded rows; None = all rows count
    axis_name: str | None = None  # the mapped axis over which the batch is split


EVALUATE = Mode()


def batch_statistics(x: Array, mode: Mode) -> tuple[Array, Array, Array]:
    """Mean [C], biased variance [C] and count [] of x [B, ..., C] over unmasked rows, positions and devices."""
    axes = tuple(range(x.ndim - 1))
    rows = jnp.ones(x.shape[:1], x.dtype) if mode.mask is None else mode.mask.astype(x.dtype)
    kept = x if mode.mask is None else jnp.where(rows.reshape(-1, *[1] * (x.ndim - 1)) > 0, x, 0.0)
    positions = x[0, ..., 0].size
    total, squares, count = kept.sum(axes), (kept * kept).sum(axes), rows.sum() * positions
    if mode.axis_name is not None:  # as one array: one message between the devices, not three
        sums = jax.lax.psum(jnp.concatenate([total, squares, count[None]]), mode.axis_name)
        total, squares, count = [*jnp.split(sums[:-1], 2), sums[-1]]
    count = jnp.maximum(count, 1.0)
    mean = total / count
    return mean, jnp.maximum(squares / count - mean * mean, 0.0), count


class BatchNorm(nn.Module):
    """Batch normalisation of [B, ..., C] over all axes but the last; parameters and statistics are float32.

    `folded` runs the precomputed form, one multiply-add with the parameters `scale` and `bias` (see `inference.fold`).
    The result has the dtype `dtype`.
    """

    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(self, x: Array, mode: Mode = EVALUATE) -> Array:
        """Normalise x [B, ..., C] with the batch's statistics when mode.train, else with the running ones."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        x = x.astype(jnp.float32)
        if not self.folded:
            mean, variance = self._statistics(x, mode)
            scale = scale * jax.lax.rsqrt(variance + EPSILON)
            bias = bias - mean * scale
        ones = (1,) * (x.ndim - 1)
        return (x * scale.reshape(*ones, -1) + bias.reshape(*ones, -1)).astype(self.dtype)

    def _statistics(self, x: Array, mode: Mode) -> tuple[Array, Array]:
        shape = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not mode.train:
            return running_mean.value, running_variance.value
        mean, variance, count = batch_statistics(x, mode)
        if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            unbiased = variance * count / jnp.maximum(count - 1.0, 1.0)
            running_mean.value = MOMENTUM * running_mean.value + (1.0 - MOMENTUM) * mean
            running_variance.value = MOMENTUM * running_variance.value + (1.0 - MOMENTUM) * unbiased
        return mean, variance


class Dropout(nn.Module):
    """Set entries to zero with probability `rate` and scale the others by 1 / (1 - rate), in training only.

    Bits come from the `dropout` stream, which must hold the same key on every device: they are drawn for the global
    batch, of which each device takes its rows, so that splitting a batch changes no result.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, mode: Mode = EVALUATE) -> Array:
        """Drop entries of x [B, ...] when mode.train."""
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(f"dropout rate must lie in [0, 1), got {self.rate}")
        if not mode.train or self.rate == 0.0:
            return x
        devices = 1 if mode.axis_name is None else jax.lax.axis_size(mode.axis_name)
        bits = jax.random.bits(self.make_rng("dropout"), (devices * x.shape[0], *x.shape[1:]), jnp.uint32)
        if mode.axis_name is not None:
            first = jax.lax.axis_index(mode.axis_name) * x.shape[0]
            bits = jax.lax.dynamic_slice_in_dim(bits, first, x.shape[0])
        keep = bits >= jnp.uint32(round(self.rate * 2**32))
        return jnp.where(keep, x / jnp.asarray(1.0 - self.rate, x.dtype), jnp.zeros((), x.dtype))
