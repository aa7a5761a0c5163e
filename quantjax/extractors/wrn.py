"""Wide residual networks for 32 x 32 images (Zagoruyko & Komodakis, BMVC 2016).

conv3x3(3 -> 16); three groups of n = (depth - 4) / 6 pre-activation blocks of 16, 32 and 64 times `width` channels with
strides 1, 2, 2; batch norm and ReLU; global average pooling; linear classifier.

One block, with r = relu(norm1(x)):   y = shortcut + conv2(dropout(relu(norm2(conv1(r)))))
where shortcut = conv1x1(r) if the number of channels changes, else x.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from quantjax.extractors.convolution import Conv, ConvNorm, Head, check_images
from quantjax.extractors.normalization import BatchNorm, Dropout, Mode
from quantjax.types import Array, ClassifierOutput

STEM = 16


class PreactivationBlock(nn.Module):
    """One residual block; `activated` says that the caller has applied norm1 to x already."""

    features: int
    stride: int = 1
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32
    folded: bool = False
    activated: bool = False

    @nn.compact
    def __call__(self, x: Array, mode: Mode) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        r = nn.relu(x if self.activated else BatchNorm(self.dtype, self.folded, name="norm1")(x, mode))
        y = ConvNorm(self.features, 3, self.stride, self.dtype, self.folded, name="conv1")(r, mode)
        y = Dropout(self.dropout_rate, name="dropout")(nn.relu(y), mode)
        y = Conv(self.features, dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] == self.features:
            return x + y
        return Conv(self.features, 1, self.stride, dtype=self.dtype, name="shortcut")(r) + y


class WideResNet(nn.Module):
    """WRN-depth-width: 40-2 has 2.24 M parameters, 328 M multiply-adds an image and D = 128 features.

    `dtype` is what convolutions compute in; parameters, statistics, features and logits stay float32. `folded` is the
    form for inference, made by `inference.fold`. Raises ValueError when depth is not 6 n + 4.
    """

    num_classes: int
    depth: int = 40
    width: int = 2
    dropout_rate: float = 0.3
    dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, mask: Array | None = None, axis_name: str | None = None
    ) -> ClassifierOutput:
        """Standardised images [B, H, W, 3] -> logits [B, K], features [B, 64 width], maps stem, group1, group2, group3.

        With train=True the rows of mask [B] that are False enter no statistic, statistics are those of all devices
        along axis_name, `batch_stats` must be mutable and the `dropout` stream needs one key, the same on all devices.
        """
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"depth must be 10, 16, 22, ... (6 n + 4), got {self.depth}")
        check_images(images, self.folded, train)
        mode = Mode(train, mask, axis_name)
        # where the first block changes the channels, its norm1 alone reads the stem: it directly follows a convolution
        activated = self.width != 1
        stem = ConvNorm(STEM, 3, 1, self.dtype, self.folded, name="stem") if activated else None
        x = stem(images, mode) if stem else Conv(STEM, dtype=self.dtype, name="stem")(images)
        maps = {"stem": x}
        for group in (1, 2, 3):
            for i in range((self.depth - 4) // 6):
                stride = 2 if group > 1 and i == 0 else 1
                x = PreactivationBlock(
                    STEM * self.width * 2 ** (group - 1), stride, self.dropout_rate, self.dtype, self.folded,
                    activated and group == 1 and i == 0, name=f"group{group}_{i}",
                )(x, mode)  # fmt: skip
            maps[f"group{group}"] = x
        x = nn.relu(BatchNorm(self.dtype, self.folded, name="norm")(x, mode))
        logits, features = Head(self.num_classes, name="head")(x)
        return ClassifierOutput(logits, features, maps)
