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

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class Draws(NamedTuple):
    """What was drawn for each image; factor 1 and hue 0 change nothing."""

    flip: Array  # [B] bool
    factors: Array  # [B, 3] float32: brightness, contrast, saturation
    hue: Array  # [B] float32, in turns of the colour circle
    order: Array  # [B, 4] int32, a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE


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
    hue_at = jnp.argmax(draws.order == HUE, axis=1)
    before = images
    for k in range(3):
        before = _blend(before, *_turn(draws, k, k < hue_at))
    after = jnp.clip(turn_hue(before, draws.hue), 0, 1)
    for k in range(1, 4):
        after = _blend(after, *_turn(draws, k, k > hue_at))
    return after


def _turn(draws: Draws, k: int, active: Array) -> tuple[Array, Array]:
    """Kind and factor [B] of the k-th adjustment of each image; factor 1 where it is not `active`."""
    kind = draws.order[:, k]
    factor = jnp.take_along_axis(draws.factors, jnp.minimum(kind, SATURATION)[:, None], axis=1)[:, 0]
    return kind, jnp.where(active, factor, 1.0)


def _blend(images: Array, kind: Array, factor: Array) -> Array:
    """factor * image + (1 - factor) * towards: black (brightness), the mean grey (contrast) or the grey image."""
    red, green, blue = (images[..., c] * GREY[c] for c in range(3))
    grey = red + green + blue
    mean = grey.mean((1, 2), keepdims=True)
    wide = kind[:, None, None]
    towards = jnp.where(wide == CONTRAST, mean, jnp.where(wide == SATURATION, grey, 0.0))[..., None]
    weight = factor[:, None, None, None]
    return jnp.clip(weight * images + (1 - weight) * towards, 0, 1)


def turn_hue(images: Array, turns: Array) -> Array:
    """Turn the hue of images [B, H, W, 3] in [0, 1] by `turns` [B] of the HSV colour circle; value and saturation stay.

    With V = max, C = max - min and the hue h in sixths, a channel is V - C * clip(min(k, 4 - k), 0, 1) where
    k = (n + h) mod 6 and n = 5, 3, 1 for red, green, blue.
    """
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * turns[:, None, None]

    def channel(n: int) -> Array:
        k = jnp.mod(n + hue, 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)
