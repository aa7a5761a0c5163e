"""Residual networks (He et al., CVPR 2016): those for CIFAR, ResNet-18 in its CIFAR variant, ResNet-50 for ImageNet.

One block: y = relu(shortcut(x) + norm2(conv2(relu(norm1(conv1(x))))))
Shortcuts of the CIFAR networks have no parameters ("option A": every other pixel, new channels zero, half of them in
front); those of ResNet-18 and 50 are a 1x1 convolution with batch norm wherever the shape changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
    """Stem, groups of basic blocks and head, as submodules of `module`."""
    check_images(images, module.folded, mode.train)
    x = nn.relu(ConvNorm(widths[0], 3, 1, module.dtype, module.folded, name="stem")(images, mode))
    return _behind_stem(module, x, mode, partial(BasicBlock, project=project), [(width, blocks) for width in widths])


def _behind_stem(
    module: nn.Module, x: Array, mode: Mode, block: Callable[..., nn.Module], groups: Sequence[tuple[int, int]]
) -> ClassifierOutput:
    """Groups of (features, number) blocks, each but the first halving the sides, and head; maps begin with `x`."""
    maps = {"stem": x}
    for group, (features, number) in enumerate(groups, 1):
        for i in range(number):
            stride, name = 2 if group > 1 and i == 0 else 1, f"group{group}_{i}"
            x = block(features, stride, dtype=module.dtype, folded=module.folded, name=name)(x, mode)
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


class Bottleneck(nn.Module):
    """1x1, 3x3 (which has the stride) and 1x1 convolutions to four times as many channels, and a shortcut."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(self, x: Array, mode: Mode) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, 4 features]."""
        shared = {"dtype": self.dtype, "folded": self.folded}
        y = nn.relu(ConvNorm(self.features, 1, 1, **shared, name="conv1")(x, mode))
        y = nn.relu(ConvNorm(self.features, 3, self.stride, **shared, name="conv2")(y, mode))
        y = ConvNorm(4 * self.features, 1, 1, **shared, name="conv3")(y, mode)
        if x.shape[-1] != 4 * self.features:
            x = ConvNorm(4 * self.features, 1, self.stride, **shared, name="shortcut")(x, mode)
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """ResNet-50 for images of 224 pixels, D = 2048 features, 25.6 M parameters (1000 classes), as torchvision has it.

    The stride of a block is that of its 3x3 convolution, which the paper gives to the first 1x1 one. `dtype` and
    `folded` as in `wrn.WideResNet`.
    """

    num_classes: int
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, mask: Array | None = None, axis_name: str | None = None
    ) -> ClassifierOutput:
        """Images [B, H, W, 3] -> logits [B, K], features [B, 2048], maps stem, group1..4; else as WideResNet.

        The stem's map is the one after max-pooling, of a quarter of the images' side, as is group1's.
        """
        check_images(images, self.folded, train)
        mode = Mode(train, mask, axis_name)
        x = nn.relu(ConvNorm(64, 7, 2, self.dtype, self.folded, name="stem")(images, mode))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        return _behind_stem(self, x, mode, Bottleneck, ((64, 3), (128, 4), (256, 6), (512, 3)))
