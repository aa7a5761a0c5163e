"""Standardisation of images; which one belongs to the weights, not to the method."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.extractors.positions import cubic_weights
from quantjax.types import Array, Preprocessing

NONE = Preprocessing()
# the CIFAR statistics of Liu et al. (Energy-based OOD detection, NeurIPS 2020), also Hendrycks et al.'s
ENERGY_OOD = Preprocessing((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255))
# CIFAR-10's mean, and the mean deviation within an image, as widely used scripts standardise with them; DICE's networks
CIFAR = Preprocessing((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Radford et al., ICML 2021
CLIP = Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def standardise(images: Array, preprocessing: Preprocessing) -> Array:
    """(images - mean) / std per channel, float32, for images [B, H, W, C] that are uint8 (0..255) or floats in [0, 1].

    They are resized to `preprocessing.side` before, where that is another size than theirs (`resize_square`). Images
    are red, green, blue; the result has its channels in the order of `preprocessing`. Raises ValueError when the
    number of channels is not that of `preprocessing`, TypeError for other integers.
    """
    if images.ndim != 4 or images.shape[-1] != len(preprocessing.mean):
        raise ValueError(f"images must have shape [B, H, W, {len(preprocessing.mean)}], got {list(images.shape)}")
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be uint8 in 0..255 or floats in 0..1, got {images.dtype}")
    full = 255.0 if images.dtype == jnp.uint8 else 1.0  # before resizing, which makes them floats
    if preprocessing.side and images.shape[1:3] != (preprocessing.side,) * 2:
        images = resize_square(images, preprocessing.side)
    if preprocessing.order == "bgr":
        images = images[..., ::-1]
    mean, std = (np.asarray(v, np.float64).reshape(1, 1, 1, -1) for v in (preprocessing.mean, preprocessing.std))
    return images.astype(jnp.float32) * jnp.float32(1.0 / (full * std)) - jnp.float32(mean / std)


def resize_square(images: Array, side: int) -> Array:
    """Resize images [B, H, W, C] of `standardise` to [B, side, side, C] float32 in the same range, cubic, antialiased.

    Keys' kernel with a = -1/2, columns before rows; results are held in the range and, of uint8, rounded after either,
    as Pillow does it for square images: equal to its BICUBIC but for single grey levels, where its fixed point rounds
    otherwise. Of other images Pillow 13 takes the rows first where they are many.
    """
    return resize_images(images, (side, side))


def resize_images(images: Array, size: tuple[int, int]) -> Array:
    """Resize images [B, H, W, C] to [B, *size, C] as resize_square does, whose sides may differ."""
    whole = images.dtype == jnp.uint8
    x = images.astype(jnp.float32)
    for axis in (2, 1):
        weights = jnp.asarray(cubic_weights(x.shape[axis], size[axis - 1], "antialiased"))
        x = jnp.moveaxis(jnp.tensordot(x, weights, (axis, 1), precision=jax.lax.Precision.HIGHEST), -1, axis)
        x = jnp.clip(jnp.floor(x + 0.5) if whole else x, 0.0, 255.0 if whole else 1.0)
    return x


def stated(preprocessing: Preprocessing) -> dict[str, Any]:
    """Its fields for a file: those that are not None."""
    return {name: value for name, value in preprocessing._asdict().items() if value is not None}
