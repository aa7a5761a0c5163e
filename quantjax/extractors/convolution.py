"""Convolutions of the CIFAR backbones: NHWC images, HWIO kernels, PyTorch's padding, no bias unless folded."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
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


class Conv(nn.Module):
    """Convolution with `features` outputs, initialised as He et al. (ICCV 2015), fan-out; computes in `dtype`."""

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        kernel = self.param("kernel", kaiming_normal, (self.size, self.size, x.shape[-1], self.features), jnp.float32)
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return y


class ConvNorm(nn.Module):
    """A convolution and the batch norm directly after it; `folded`: the same as one convolution with a bias."""

    features: int
    size: int = 3
    stride: int = 1
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(self, x: Array, mode: Mode = EVALUATE) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        y = Conv(self.features, self.size, self.stride, self.folded, self.dtype, name="conv")(x)
        return y if self.folded else BatchNorm(self.dtype, name="norm")(y, mode)


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
