"""Residual networks for 32 x 32 images: He et al.'s CIFAR networks and the CIFAR variant of ResNet-18 (CVPR 2016).

One block: y = relu(shortcut(x) + norm2(conv2(relu(norm1(conv1(x))))))
Shortcuts of the CIFAR networks have no parameters ("option A": every other pixel, new channels zero, half of them in
front); those of ResNet-18 are a 1x1 convolution with batch norm wherever the shape changes.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from quantjax.extractors.convolution import ConvNorm, Head, check_images, convolve_pair
from quantjax.extractors.normalization import Mode
from quantjax.types import Array, ClassifierOutput

NARROW = 16  # channels up to which `convolve_pair` is the faster form


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected or (option A) padded."""

    features: int
    stride: int = 1
    project: bool = False
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(self, x: Array, mode: Mode) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        conv1 = ConvNorm(self.features, 3, self.stride, self.dtype, self.folded, name="conv1")
        conv2 = ConvNorm(self.features, 3, 1, self.dtype, self.folded, name="conv2")
        if self.folded and x.shape[-1] == self.features <= NARROW and x.shape[2] % 2 == 0:
            y = convolve_pair(x.astype(self.dtype), conv1.weights(self.features), conv2.weights(self.features))
        else:
            y = conv2(nn.relu(conv1(x, mode)), mode)
        return nn.relu(self._shortcut(x, mode) + y)

    def _shortcut(self, x: Array, mode: Mode) -> Array:
        new = self.features - x.shape[-1]
        if self.stride == 1 and new == 0:
            return x
        if self.project:
            return ConvNorm(self.features, 1, self.stride, self.dtype, self.folded, name="shortcut")(x, mode)
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


def _run(
    module: nn.Module, images: Array, mode: Mode, widths: tuple[int, ...], blocks: int, project: bool
) -> ClassifierOutput:
    """Stem, groups of blocks and head, as submodules of `module`."""
    check_images(images, module.folded, mode.train)
    x = nn.relu(ConvNorm(widths[0], 3, 1, module.dtype, module.folded, name="stem")(images, mode))
    maps = {"stem": x}
    for group, features in enumerate(widths, 1):
        for i in range(blocks):
            stride = 2 if group > 1 and i == 0 else 1
            block = BasicBlock(features, stride, project, module.dtype, module.folded, name=f"group{group}_{i}")
            x = block(x, mode)
        maps[f"group{group}"] = x
    logits, out = Head(module.num_classes, name="head")(x)
    return ClassifierOutput(logits, out, maps)


class CifarResNet(nn.Module):
    """He et al.'s network of 16, 32 and 64 channels, depth = 6 n + 2 (20, 32, 44, 56, 110), D = 64 features.

    Depth 20 has 0.27 M parameters, 56 has 0.86 M. `dtype` and `folded` as in `wrn.WideResNet`. Raises ValueError for
    another depth.
    """

    num_classes: int
    depth: int = 20
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, mask: Array | None = None, axis_name: str | None = None
    ) -> ClassifierOutput:
        """Images [B, H, W, 3] -> logits [B, K], features [B, 64], maps stem, group1..3; else as WideResNet."""
        if self.depth < 8 or (self.depth - 2) % 6:
            raise ValueError(f"depth must be 8, 14, 20, 26, 32, ... (6 n + 2), got {self.depth}")
        return _run(self, images, Mode(train, mask, axis_name), (16, 32, 64), (self.depth - 2) // 6, False)


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem and no max-pooling, D = 512 features, 11.2 M parameters."""

    num_classes: int
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, mask: Array | None = None, axis_name: str | None = None
    ) -> ClassifierOutput:
        """Images [B, H, W, 3] -> logits [B, K], features [B, 512], maps stem, group1..4; else as WideResNet."""
        return _run(self, images, Mode(train, mask, axis_name), (64, 128, 256, 512), 2, True)
