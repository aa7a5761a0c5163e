"""Normalisation and dropout: the numbers of PyTorch, and the same ones on one device and on several.

Batch normalisation over the unmasked rows of the global batch (Ioffe & Szegedy, ICML 2015, algorithm 1):

    y = scale * (x - mean) / sqrt(variance + 1e-5) + bias

normalises with the biased variance and stores the unbiased one, n / (n - 1), as PyTorch does. No variance is a
difference of large squares, which at means of 1,000 deviations leaves no digit of a float32.

Gradients through these statistics are right when every device differentiates its own share of the loss, local sum /
global count, and the gradients are added (psum) afterwards: the transpose of the gathering from all devices carries
the terms that cross them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from quantjax.dropout import draw_map_dropout
from quantjax.types import Array

EPSILON = 1e-5
MOMENTUM = 0.9  # the share that the old running statistic keeps; PyTorch writes this as momentum=0.1


class Mode(NamedTuple):
    """How a network is run: what a training step knows and an evaluation does not need."""

    train: bool = False
    """Whether batch norms use the batch's statistics and update theirs"""
    mask: Array | None = None
    """[B] bool, False for padded rows; None = all rows count"""
    axis_name: str | None = None
    """The mapped axis over which the batch is split"""


EVALUATE = Mode()


def batch_statistics(x: Array, mode: Mode) -> tuple[Array, Array, Array]:
    """Mean [C], biased variance [C] and count [] of x [B, ..., C] over unmasked rows, positions and devices.

    Devices exchange one message, their own means, squared deviations and counts, and merge them: adding up the means
    first and then deviations from the common one would take two, the second waiting for the first. Source: Chan, Golub
    and LeVeque, "Algorithms for computing the sample variance", The American Statistician 1983.
    """
    mean, squares, count = _own_statistics(x, mode.mask)
    if mode.axis_name is not None:
        own = jax.lax.all_gather(jnp.concatenate([mean, squares, count[None]]), mode.axis_name)
        means, counts = own[:, : len(mean)], own[:, -1:]
        count = counts.sum()
        mean = (counts * means).sum(0) / jnp.maximum(count, 1.0)
        squares = (own[:, len(mean) : -1] + counts * jnp.square(means - mean[None])).sum(0)
    count = jnp.maximum(count, 1.0)
    return mean, squares / count, count


def _own_statistics(x: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """Mean [C], sum of squared deviations [C] and count [] of this device's unmasked rows of x [B, ..., C].

    x is read once, as for plain sums and squares, but less a shift: the rows' mean at one of the P positions, whose
    distance from the mean is at most sqrt(P) deviations. So the sums of squares lose P of 2^24 parts at worst.
    """
    x = x.reshape(len(x), -1, x.shape[-1])
    mask = jnp.ones(len(x), bool) if mask is None else mask
    rows, positions = mask.sum(dtype=x.dtype), x.shape[1]
    some = jnp.where(mask[:, None], x[:, positions // 2], 0.0)
    shift = jax.lax.stop_gradient(some.sum(0) / jnp.maximum(rows, 1.0))
    moved = jnp.where(mask[:, None, None], x - shift[None, None], 0.0)
    count, total = rows * positions, moved.sum((0, 1))
    offset = total / jnp.maximum(count, 1.0)
    return shift + offset, jnp.maximum(jnp.square(moved).sum((0, 1)) - offset * total, 0.0), count


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
        x, ones = x.astype(jnp.float32), (1,) * (x.ndim - 1)
        if not self.folded:
            mean, variance = self._statistics(x, mode)
            x = x - mean.reshape(*ones, -1)  # first, or its digits go
            scale = scale * jax.lax.rsqrt(variance + EPSILON)
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


class LayerNorm(nn.LayerNorm):
    """Flax's layer normalisation over the last axis (Ba et al., 2016), but with PyTorch's variance: mean (x - mean)^2.

    Parameters and statistics are float32, the result has the dtype `dtype`.
    """

    use_fast_variance: bool = False


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
        keep = draw_map_dropout(self.make_rng("dropout"), (devices * x.shape[0], *x.shape[1:]), self.rate)
        if mode.axis_name is not None:
            first = jax.lax.axis_index(mode.axis_name) * x.shape[0]
            keep = jax.lax.dynamic_slice_in_dim(keep, first, x.shape[0])
        return jnp.where(keep, x / jnp.asarray(1.0 - self.rate, x.dtype), jnp.zeros((), x.dtype))
