"""Inner product with the stored pattern of the predicted class; higher = more outlying."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_labels, check_same_length, check_shape
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array


def fit_she(features: ArrayLike, labels: ArrayLike, logits: ArrayLike) -> Array:
    """Return the patterns [K, D]: mean features of each class's training rows that the logits classify rightly.

    Of a class without any, all of its rows. features [N, D], labels [N], logits [N, K]. Raises ValueError on wrong
    shapes, rows that are not finite, labels outside the classes or a class without rows. Source: as she.
    """
    features, labels, logits = np.asarray(features), np.asarray(labels), np.asarray(logits)
    check_shape("features", features, "[N, D]")
    check_shape("labels", labels, "[N]")
    check_shape("logits", logits, "[N, K]")
    check_same_length(features=features, labels=labels, logits=logits)
    check_finite("features", features)
    classes = logits.shape[1]
    check_labels("labels", labels, classes)
    if len(np.unique(labels)) < classes:
        empty = np.setdiff1d(np.arange(classes), labels)
        raise ValueError(f"labels must have rows of each of the {classes} classes, got none of class {empty[0]}")
    own = labels[:, None] == np.arange(classes)
    right = own & (logits.argmax(axis=1) == labels)[:, None]
    taken = np.where(right.any(axis=0), right, own).astype(np.float32)
    patterns = (taken / taken.sum(axis=0)).T @ features.astype(np.float32)
    return jnp.asarray(patterns, jnp.float32)


def she(patterns: Array, features: Array, logits: Array) -> Array:
    """Return minus the inner product of features and their predicted class's pattern; [B, D], [B, K] -> [B].

    Raises ValueError for other shapes than the fit's. Source: Zhang et al. (ICLR 2023).
    """
    check_shape("features", features, f"[B, {patterns.shape[1]}]")
    check_shape("logits", logits, f"[B, {patterns.shape[0]}]")
    features, logits = jnp.asarray(features, jnp.float32), jnp.asarray(logits, jnp.float32)
    own = patterns[jnp.argmax(logits, axis=1)]
    return nan_unless_sound(-jnp.sum(features * own, axis=1), features, logits)
