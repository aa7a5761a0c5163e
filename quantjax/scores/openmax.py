"""OpenMax: logits discounted by how far they lie from their class's mean; higher = more outlying.

Distances d of a class's training rows to its mean have a Weibull tail, fitted to the largest: with their least value m
and a shift S, log((d - m + S) / S) = y is fitted by the law P(y) = 1 - exp(-exp((y - location) / scale)), which is the
Weibull law of d - m + S. S is 10,000, as in pytorch-ood; libmr 0.1.9, which OpenOOD calls, takes 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_interval, check_labels, check_same_length, check_shape
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

SHIFT = 10_000.0


class OpenMax(NamedTuple):
    """Mean logits of the classes and the tails about them; float32."""

    means: Array
    """[K, K]"""
    least: Array
    """[K] the least distance of the tail"""
    location: Array
    """[K] of y, see the module"""
    scale: Array
    """[K] of y, positive"""


def fit_openmax(logits: ArrayLike, labels: ArrayLike, tail: int = 20, shift: float = SHIFT) -> OpenMax:
    """Fit a mean and the `tail` largest distances to it, per class, to rightly classified rows.

    logits [N, K], labels [N]; the shift is that of the module. Where fewer than three rows of a class are rightly
    classified, all of its rows are taken. Raises ValueError on wrong shapes, logits that are not finite, labels outside
    the classes, a tail under 3, a shift that is not positive, or a class of whose tail all distances are equal.
    Source: Bendale and Boult (CVPR 2016), algorithm 1.
    """
    from scipy.stats import gumbel_l

    logits, labels = np.asarray(logits), np.asarray(labels)
    check_shape("logits", logits, "[N, K]")
    check_shape("labels", labels, "[N]")
    check_same_length(logits=logits, labels=labels)
    check_finite("logits", logits)
    check_labels("labels", labels, logits.shape[1])
    check_interval("tail", tail, 3, float("inf"))
    check_interval("shift", shift, 0.0, float("inf"), closed="neither")
    right = logits.argmax(axis=1) == labels
    fitted = []
    for k in range(logits.shape[1]):
        rows = logits[right & (labels == k)] if (right & (labels == k)).sum() > 2 else logits[labels == k]
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0) if len(rows) else np.zeros(logits.shape[1])
        distances = np.sort(np.linalg.norm(rows - mean, axis=1))[-tail:]
        if len(distances) < 3 or distances[-1] == distances[0]:
            raise ValueError(
                f"OpenMax needs at least three rows of different logits of each class, class {k} has {len(rows)}; "
                "fit on more rows"
            )
        location, scale = gumbel_l.fit(np.log1p((distances - distances[0]) / shift))
        fitted.append((mean, distances[0], location, scale))
    return OpenMax(*(jnp.asarray(np.stack(column), jnp.float32) for column in zip(*fitted, strict=True)))


def openmax(fitted: OpenMax, logits: Array, top: int = 10, shift: float = SHIFT) -> Array:
    """Return log p / (1 - p) of the unknown class's probability p, in nats; logits [B, K] -> [B].

    Of the `top` largest logits F, ranked 0, 1, .., rank r loses the share s = P(d) (top - r) / top, and the unknown
    class has sum F s. The paper's score is p itself, which saturates and ties what is sure. The shift is the fit's.
    Raises ValueError when logits are not [B, K] of the fit's K or top is less than 1. Source: Bendale and Boult (CVPR
    2016), algorithm 2.
    """
    classes = fitted.means.shape[0]
    check_shape("logits", logits, f"[B, {classes}]")
    check_interval("top", top, 1, float("inf"))
    top = min(top, classes)
    logits = jnp.asarray(logits, jnp.float32)
    values, places = jax.lax.top_k(logits, top)
    distances = jnp.stack([_distance(logits, fitted.means, places[:, r]) for r in range(top)], axis=1)
    y = jnp.log1p(jnp.maximum((distances - fitted.least[places]) / shift, -1.0 + 1e-6))
    inside = -jnp.expm1(-jnp.exp(jnp.minimum((y - fitted.location[places]) / fitted.scale[places], 80.0)))
    share = inside * ((top - jnp.arange(top, dtype=jnp.float32)) / top)[None, :]
    lost = values * share
    rows = jnp.arange(logits.shape[0], dtype=jnp.int32)[:, None]
    left = logits.at[rows, places].add(-lost)
    return nan_unless_sound(jnp.sum(lost, axis=1) - jax.nn.logsumexp(left, axis=1), logits)


def _distance(logits: Array, means: Array, places: Array) -> Array:
    """Of each row to the mean of its class of `places`, [B]."""
    return jnp.linalg.norm(logits - means[places], axis=1)
