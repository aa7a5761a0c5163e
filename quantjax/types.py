"""Named tuples that cross rooms, and the letters that every shape is written in.

B batch · H W image · C channels · D features · K classes · N rows of a data set · V views · E epochs · S steps
h w token or decoder grid · M mixture components · P pixels
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any

ANY = -1  # a length that a template of shapes leaves open


class ClassifierOutput(NamedTuple):
    """What every classifier backbone returns."""

    logits: Array  # [B, K] float32
    features: Array  # [B, D] float32, the input of the last linear layer
    intermediates: Mapping[str, Array]  # named maps [B, h, w, C], coarse to fine as the backbone defines them


class FeatureMaps(NamedTuple):
    """What every backbone of a segmentor returns; any function images -> FeatureMaps can stand in for one."""

    maps: Mapping[str, Array]  # named maps [B, h, w, C], in order from shallow to deep; a decoder reads four
    summary: Array  # [B, D] float32, one vector per image (class token, or the mean of the last map)


class Preprocessing(NamedTuple):
    """Per-channel standardisation of images in [0, 1]; it belongs to the weights."""

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


class Batch(NamedTuple):
    """Rows of a data set as a training step receives them."""

    inputs: Array  # [B, ...]
    labels: Array | None  # [B] int32, None where a method needs no labels
    mask: Array  # [B] bool, False for padded rows
