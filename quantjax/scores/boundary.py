"""Scores from where features lie about the head's weights and decision boundaries; higher = more outlying."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_shape
from quantjax.scores.head import LinearHead
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array


class Boundaries(NamedTuple):
    """What fdbd reads; float32."""

    centre: Array
    """[D] mean of the training features"""
    nearness: Array
    """[K, K] one over the distance of two classes' weights; 0 on the diagonal and where weights are equal"""


class Collapse(NamedTuple):
    """What nci reads; float32."""

    centre: Array
    """[D] mean of the training features"""
    logits: Array
    """[K] of the head at the centre"""


def fit_fdbd(head: LinearHead, features: ArrayLike) -> Boundaries:
    """Mean of training features [N, D], and distances of the head's weights.

    Raises ValueError on a wrong shape, no rows or rows that are not finite. Source: as fdbd.
    """
    weight = np.asarray(head.weight, np.float64).T
    squares = (weight**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2.0 * weight @ weight.T, 0.0))
    apart = distances > 1e-7 * np.sqrt(squares.max(initial=0.0))  # under it the differences above keep no digit
    np.fill_diagonal(apart, False)
    nearness = np.where(apart, 1.0 / np.where(apart, distances, 1.0), 0.0)
    return Boundaries(_centre(head, features), jnp.asarray(nearness, jnp.float32))


def fdbd(fitted: Boundaries, features: Array, logits: Array) -> Array:
    """Return minus the mean distance to the decision boundaries, over the distance to the training mean; [B], <= 0.

    With z the largest logit, of class c: -1/(K-1) sum_{k != c} (z - F_k) / ||w_c - w_k|| / ||f - mean||; features
    [B, D], logits [B, K]. Raises ValueError for other shapes. Source: Liu and Qin (ICML 2024).
    """
    features, logits = _rows(fitted.centre, fitted.nearness.shape[0], features, logits)
    behind = jnp.max(logits, axis=1, keepdims=True) - logits
    others = max(1, logits.shape[1] - 1)
    distance = jnp.sum(behind * fitted.nearness[jnp.argmax(logits, axis=1)], axis=1) / others
    away = jnp.linalg.norm(features - fitted.centre[None, :], axis=1)
    return nan_unless_sound(-distance / jnp.maximum(away, 1e-8), features, logits)


def fit_nci(head: LinearHead, features: ArrayLike) -> Collapse:
    """Mean of training features [N, D], and the head's logits there. Raises ValueError as fit_fdbd."""
    centre = _centre(head, features)
    logits = np.asarray(centre, np.float64) @ np.asarray(head.weight, np.float64) + np.asarray(head.bias, np.float64)
    return Collapse(centre, jnp.asarray(logits, jnp.float32))


def nci(fitted: Collapse, features: Array, logits: Array, alpha: float = 0.0) -> Array:
    """Return -(f - mean) . w_c / ||f - mean|| - alpha ||f||_1 with w_c the predicted class's weights; [B].

    Their product is what the logit gained over the one at the mean; features [B, D], logits [B, K]. Raises ValueError
    for other shapes. Source: Liu and Qin (CVPR 2025).
    """
    features, logits = _rows(fitted.centre, fitted.logits.shape[0], features, logits)
    away = jnp.linalg.norm(features - fitted.centre[None, :], axis=1)
    gained = jnp.max(logits, axis=1) - fitted.logits[jnp.argmax(logits, axis=1)]
    score = -gained / jnp.maximum(away, 1e-8) - alpha * jnp.sum(jnp.abs(features), axis=1)
    return nan_unless_sound(score, features, logits)


def _centre(head: LinearHead, features: ArrayLike) -> Array:
    features = np.asarray(features)
    check_shape("features", features, f"[N, {head.weight.shape[0]}]")
    if not len(features):
        raise ValueError("features must have at least one row, got none")
    check_finite("features", features)
    return jnp.asarray(features.mean(axis=0, dtype=np.float64), jnp.float32)


def _rows(centre: Array, classes: int, features: Array, logits: Array) -> tuple[Array, Array]:
    check_shape("features", features, f"[B, {centre.shape[0]}]")
    check_shape("logits", logits, f"[B, {classes}]")
    return jnp.asarray(features, jnp.float32), jnp.asarray(logits, jnp.float32)
