"""Random flip and shifted crop of image batches, split into the draws and their pure application.

The draws of a whole (global) batch come from one key, so any slice of the batch with the same slice of the draws gives
the same pixels: devices and batch sizes change no image.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from quantjax.checks import check_shape
from quantjax.types import Array

PADDING = 4


class Draws(NamedTuple):
    """What was drawn for each image."""

    flip: Array
    """[B] bool"""
    top: Array
    """[B] int32 in 0..2 padding, PADDING is no shift"""
    left: Array
    """[B] int32 in 0..2 padding"""


def draw(key: Array, batch: int, padding: int = PADDING) -> Draws:
    """Draws for `batch` images: flip with probability 1/2, crop corner uniform over the padded image."""
    flip_key, corner_key = jax.random.split(key)
    top, left = jax.random.randint(corner_key, (2, batch), 0, 2 * padding + 1, jnp.int32)
    return Draws(jax.random.bernoulli(flip_key, 0.5, (batch,)), top, left)


def flip_and_crop(images: Array, draws: Draws, padding: int = PADDING) -> Array:
    """Mirror, pad with zeros, crop back: [B, H, W, C] -> [B, H, W, C], same dtype.

    As torchvision's RandomHorizontalFlip followed by RandomCrop(H, padding=4), the augmentation of Zagoruyko and
    Komodakis 2016.
    """
    check_shape("images", images, "[B, H, W, C]")
    check_shape("draws.flip", draws.flip, f"[{images.shape[0]}]")
    mirrored = jnp.where(draws.flip[:, None, None, None], images[:, :, ::-1], images)
    padded = jnp.pad(mirrored, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def crop(image: Array, top: Array, left: Array) -> Array:
        return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), images.shape[1:])

    return jax.vmap(crop)(padded, draws.top, draws.left)
