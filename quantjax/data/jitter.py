"""Random flip and colour jitter of scenes, in JAX, so that they run inside the compiled training step.

Split into the draws and their pure application: draws of a whole (global) batch come from one key, so any slice of the
batch with the same slice of the draws gives the same pixels. The semantics are those of albumentations' ColorJitter
(Buslaev et al. 2020) after a horizontal flip, in float instead of uint8: four adjustments in a random order per image,
each clipped to [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from quantjax.checks import check_shape
from quantjax.types import Array

Planes = tuple[Array, Array, Array]  # red, green, blue, each [B, H, W]
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class Draws(NamedTuple):
    """What was drawn for each image; factor 1 and hue 0 change nothing."""

    flip: Array
    """[B] bool"""
    factors: Array
    """[B, 3] float32: brightness, contrast, saturation"""
    hue: Array
    """[B] float32, in turns of the colour circle"""
    order: Array
    """[B, 4] int32, a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE"""


def draw(
    key: Array,
    batch: int,
    *,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.5,
    probability: float = 0.5,
    flip: float = 0.5,
) -> Draws:
    """Draws for `batch` images; the defaults are UEM's (Nayal, Shoeb and Guney 2024, released code).

    Factors are uniform over 1 +- brightness, contrast and saturation, the hue over +- hue; with 1 - probability an
    image keeps its colours.
    """
    flips, colours, factors, hues, orders = jax.random.split(key, 5)
    jittered = jax.random.bernoulli(colours, probability, (batch,))
    spread = jnp.asarray([brightness, contrast, saturation], jnp.float32)
    drawn = 1 + spread[None] * jax.random.uniform(factors, (batch, 3), jnp.float32, -1, 1)
    turned = jax.random.uniform(hues, (batch,), jnp.float32, -hue, hue)
    places = jnp.broadcast_to(jnp.arange(4, dtype=jnp.int32), (batch, 4))
    return Draws(
        flip=jax.random.bernoulli(flips, flip, (batch,)),
        factors=jnp.where(jittered[:, None], drawn, 1.0),
        hue=jnp.where(jittered, turned, 0.0),
        order=jax.random.permutation(orders, places, axis=1, independent=True),
    )


def apply(images: Array, labels: Array, draws: Draws) -> tuple[Array, Array]:
    """Flip both, jitter the images: uint8 [B, H, W, 3] and [B, H, W] -> float32 in [0, 1] and labels as they were.

    Float images are taken as being in [0, 1] already.
    """
    check_shape("images", images, "[B, H, W, 3]")
    check_shape("labels", labels, "[B, H, W]")
    check_shape("draws.flip", draws.flip, f"[{images.shape[0]}]")
    scaled = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
    mirrored = jnp.where(draws.flip[:, None, None, None], scaled[:, :, ::-1], scaled)
    return adjust(mirrored, draws), jnp.where(draws.flip[:, None, None], labels[:, :, ::-1], labels)


def adjust(images: Array, draws: Draws) -> Array:
    """The four adjustments of images [B, H, W, 3] in [0, 1], each image in its own order.

    The expensive one, hue, is computed once: three rounds of the others come before it and three after, in which those
    that belong on the other side of it have factor 1, which changes nothing.
    """
    planes: Planes = (images[..., 0], images[..., 1], images[..., 2])
    hue_at = jnp.argmax(draws.order == HUE, axis=1)
    for k in range(3):
        planes = _blend(planes, *_round(draws, k, k < hue_at))
    planes = turn_hue(planes, draws.hue)
    planes = jax.lax.optimization_barrier(planes)  # else XLA's CPU compiler computes it again for each mean below
    for k in range(1, 4):
        planes = _blend(planes, *_round(draws, k, k > hue_at))
    return jnp.stack(planes, axis=-1)


def _round(draws: Draws, k: int, active: Array) -> tuple[Array, Array]:
    """Kind and factor [B] of the k-th adjustment of each image; factor 1 where it is not `active`."""
    kind = draws.order[:, k]
    factor = jnp.take_along_axis(draws.factors, jnp.minimum(kind, SATURATION)[:, None], axis=1)[:, 0]
    return kind, jnp.where(active, factor, 1.0)


def _blend(planes: Planes, kind: Array, factor: Array) -> Planes:
    """factor * image + (1 - factor) * towards: black (brightness), the mean grey (contrast) or the grey image."""
    grey = sum(weight * plane for weight, plane in zip(GREY, planes, strict=True))
    mean = jnp.mean(grey, axis=(1, 2), keepdims=True)
    kind, factor = kind[:, None, None], factor[:, None, None]
    towards = jnp.where(kind == CONTRAST, mean, jnp.where(kind == SATURATION, grey, 0.0))
    red, green, blue = (jnp.clip(factor * plane + (1 - factor) * towards, 0, 1) for plane in planes)
    return red, green, blue


def turn_hue(planes: Planes, turns: Array) -> Planes:
    """Turn the hue of red, green, blue [B, H, W] in [0, 1] by `turns` [B] of the HSV circle; value, saturation stay.

    With V = max, C = max - min and the hue h in sixths, a channel is V - C * clip(min(k, 4 - k), 0, 1) where
    k = (n + h) mod 6 and n = 5, 3, 1 for red, green, blue.
    """
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    ahead = jnp.where(value == red, green - blue, jnp.where(value == green, blue - red, red - green))
    sector = jnp.where(value == red, 0.0, jnp.where(value == green, 2.0, 4.0))
    hue = sector + ahead / safe + 6 * turns[:, None, None]

    def channel(n: int) -> Array:
        k = n + hue
        k = k - 6 * jnp.floor(k / 6)  # jnp.mod costs ten times as much on a CPU
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return channel(5), channel(3), channel(1)
