"""Densely connected networks with bottlenecks, DenseNet-BC, for 32 x 32 images (Huang et al., CVPR 2017).

conv3x3(3 -> 2 k); three groups, the paper's dense blocks, of n = (depth - 4) / 6 layers, each of which adds k maps to
all that it reads; between groups a transition that keeps the share `reduction` of the maps at half the size; batch norm
and ReLU; global average pooling; linear classifier. One layer, with k the growth:

    y = [x, conv3x3(relu(norm2(conv1x1(relu(norm1(x))))))],    conv1x1 to 4 k maps
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from quantjax.extractors.convolution import Conv, ConvNorm, Head, check_images
from quantjax.extractors.normalization import BatchNorm, Mode
from quantjax.types import Array, ClassifierOutput

BOTTLENECK = 4


class DenseLayer(nn.Module):
    """One layer of a dense block: what it reads, and `growth` more channels."""

    growth: int
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(self, x: Array, mode: Mode) -> Array:
        """[B, H, W, C] -> [B, H, W, C + growth]."""
        y = nn.relu(BatchNorm(self.dtype, self.folded, name="norm1")(x, mode))
        y = ConvNorm(BOTTLENECK * self.growth, 1, 1, self.dtype, self.folded, name="conv1")(y, mode)
        y = Conv(self.growth, dtype=self.dtype, name="conv2")(nn.relu(y))
        return jnp.concatenate([x, y], -1)


class Transition(nn.Module):
    """Batch norm, ReLU, 1x1 convolution and 2x2 averages, between two dense blocks."""

    features: int
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(self, x: Array, mode: Mode) -> Array:
        """[B, H, W, C] -> [B, floor(H / 2), floor(W / 2), features]."""
        y = nn.relu(BatchNorm(self.dtype, self.folded, name="norm1")(x, mode))
        # averages first, as they commute with a 1x1 convolution: a quarter of its work
        return Conv(self.features, 1, dtype=self.dtype, name="conv1")(nn.avg_pool(y, (2, 2), (2, 2)))


class DenseNet(nn.Module):
    """DenseNet-BC-depth-growth: 100-12 has 0.77 M parameters (10 classes) and D = 342 features.

    `dtype` and `folded` as in `wrn.WideResNet`; there is no dropout, which the paper uses on images that are not
    augmented alone. Raises ValueError when depth is not 6 n + 4.
    """

    num_classes: int
    depth: int = 100
    growth: int = 12
    reduction: float = 0.5
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, mask: Array | None = None, axis_name: str | None = None
    ) -> ClassifierOutput:
        """Standardised images [B, H, W, 3] -> logits [B, K], features [B, D], maps stem, group1..3; else as WideResNet.

        Map group<i> is what dense block i ends with, before the norm that follows it.
        """
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"depth must be 10, 16, 22, ... (6 n + 4), got {self.depth}")
        check_images(images, self.folded, train)
        mode = Mode(train, mask, axis_name)
        x = Conv(2 * self.growth, dtype=self.dtype, name="stem")(images)
        maps = {"stem": x}
        for group in (1, 2, 3):
            if group > 1:
                kept = int(x.shape[-1] * self.reduction)
                x = Transition(kept, self.dtype, self.folded, name=f"transition{group - 1}")(x, mode)
            for i in range((self.depth - 4) // 6):
                x = DenseLayer(self.growth, self.dtype, self.folded, name=f"group{group}_{i}")(x, mode)
            maps[f"group{group}"] = x
        x = nn.relu(BatchNorm(self.dtype, self.folded, name="norm")(x, mode))
        logits, features = Head(self.num_classes, name="head")(x)
        return ClassifierOutput(logits, features, maps)
