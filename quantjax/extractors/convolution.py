"""Convolutions of the CIFAR backbones: NHWC images, HWIO kernels, PyTorch's padding, no bias unless folded."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from quantjax.extractors.normalization import EVALUATE, BatchNorm, Mode
from quantjax.types import Array

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Cross-correlate x [B, H, W, C] with kernel [k, k, C, F] (k odd) after padding (k - 1) / 2 zeros on every side.

    At stride 2 this differs from "SAME", which pads one side only.
    """
    pad = (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolve_pair(x: Array, first: tuple[Array, Array], second: tuple[Array, Array]) -> Array:
    """conv(relu(conv(x, k1) + b1), k2) + b2 for x [B, H, W, C], W even, and (kernel [3, 3, C, C], bias [C]) twice.

    On a CPU, convolutions of 16 channels spend their time on gathering patches: there, two neighbouring pixels are
    taken as one of 2 C channels, a third more arithmetic at twice the speed.
    """
    return jax.lax.platform_dependent(x, first, second, cpu=_packed_pair, default=_plain_pair)


def _plain_pair(x: Array, first: tuple[Array, Array], second: tuple[Array, Array]) -> Array:
    y = nn.relu(convolve(x, first[0]) + first[1].reshape(1, 1, 1, -1))
    return convolve(y, second[0]) + second[1].reshape(1, 1, 1, -1)


def _packed_pair(x: Array, first: tuple[Array, Array], second: tuple[Array, Array]) -> Array:
    """Pairs start at even pixels in x and in the result, at odd ones (-1, 1, ..., W - 1) in between."""
    b, h, w, c = x.shape
    run = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    bias1, bias2 = (jnp.tile(bias, 2).reshape(1, 1, 1, -1) for bias in (first[1], second[1]))
    y = run(x.reshape(b, h, w // 2, 2 * c), _pack_kernel(first[0]), padding=((1, 1), (1, 1)))
    inside = np.pad(np.ones((w, c), bool), ((1, 1), (0, 0))).reshape(1, 1, w // 2 + 1, 2 * c)
    y = jnp.where(inside, nn.relu(y + bias1), jnp.zeros((), y.dtype))
    y = run(y, _pack_kernel(second[0]), padding=((1, 1), (0, 0))) + bias2
    return y.reshape(b, h, w, c)


def _pack_kernel(kernel: Array) -> Array:
    """[3, 3, C, F] -> [3, 2, 2 C, 2 F]: of four pixels in a row, the first output reads 0-2 and the second 1-3."""
    shifted = (jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in (0, 1))
    return jnp.concatenate(list(shifted), -1).reshape(3, 2, 2 * kernel.shape[2], 2 * kernel.shape[3])


class Conv(nn.Module):
    """Convolution with `features` outputs, initialised as He et al. (ICCV 2015), fan-out; computes in `dtype`."""

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        kernel, bias = self.weights(x.shape[-1])
        y = convolve(x.astype(self.dtype), kernel, self.stride)
        return y + bias.reshape(1, 1, 1, -1) if self.use_bias else y

    @nn.compact
    def weights(self, channels: int) -> tuple[Array, Array]:
        """Kernel [size, size, channels, features] and bias [features] in `dtype`; a bias of zero for none."""
        kernel = self.param("kernel", kaiming_normal, (self.size, self.size, channels, self.features), jnp.float32)
        bias = jnp.zeros((self.features,), jnp.float32)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return kernel.astype(self.dtype), bias.astype(self.dtype)


class ConvNorm(nn.Module):
    """A convolution and the batch norm directly after it; `folded`: the same as one convolution with a bias."""

    features: int
    size: int = 3
    stride: int = 1
    dtype: Any = jnp.float32
    folded: bool = False

    def setup(self) -> None:
        """Declare `conv`, and `norm` unless folded."""
        self.conv = Conv(self.features, self.size, self.stride, self.folded, self.dtype)
        if not self.folded:
            self.norm = BatchNorm(self.dtype)

    def __call__(self, x: Array, mode: Mode = EVALUATE) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        y = self.conv(x)
        return y if self.folded else self.norm(y, mode)

    def weights(self, channels: int) -> tuple[Array, Array]:
        """Kernel and bias of the folded form, for `channels` inputs."""
        return self.conv.weights(channels)


class Head(nn.Module):
    """Global average pooling and the linear classifier, both in float32 whatever the network computes in."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """[B, H, W, C] -> logits [B, K], features [B, C]."""
        features = x.astype(jnp.float32).mean((1, 2))
        # PyTorch's default weights, uniform within 1 / sqrt(C); the bias starts at zero
        uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
        return nn.Dense(self.num_classes, kernel_init=uniform, name="linear")(features), features


def check_images(images: Array, folded: bool, train: bool) -> None:
    """Raise ValueError unless images are [B, H, W, 3] floats, or when a folded network is asked to train."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must have shape [B, H, W, 3], got {list(images.shape)}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images must be standardised floats, got {images.dtype}; pass them through preprocess.standardise"
        )
    if folded and train:
        raise ValueError("a folded network has no batch statistics to train; train the network it was folded from")
