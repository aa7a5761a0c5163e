"""The temperature at which a classifier's probabilities are as sure as they should be."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_labels, check_same_length, check_shape

COLDEST, HOTTEST = 0.01, 100.0  # where every label is right, the likelihood has no best temperature: it rises to 0
STEPS = 60


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the T in 0.01..100 of least cross-entropy of logits / T [N, K] against labels [N].

    The cross-entropy is convex in 1/T; Newton's steps find it, halved intervals where those leave the bracket. It runs
    on the host in float64. Raises ValueError on wrong shapes, no rows, logits that are not finite or labels outside the
    classes. Source: Guo et al. (ICML 2017), section 4.2.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    check_shape("logits", logits, "[N, K]")
    check_shape("labels", labels, "[N]")
    check_same_length(logits=logits, labels=labels)
    if not len(logits):
        raise ValueError("logits must have at least one row, got none")
    check_finite("logits", logits)
    check_labels("labels", labels, logits.shape[1])
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    own = below[np.arange(len(below)), labels].mean()
    if own == 0.0:
        return COLDEST
    low, high, inverse = 1.0 / HOTTEST, 1.0 / COLDEST, 1.0
    for _ in range(STEPS):
        slope, curvature = _slope(below, own, inverse)
        low, high = (inverse, high) if slope <= 0.0 else (low, inverse)
        newton = inverse - slope / curvature if curvature > 0.0 else math.inf
        following = newton if low < newton < high else math.sqrt(low * high)
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following
    return 1.0 / inverse


def _slope(below: np.ndarray, own: float, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean cross-entropy by 1/T; below = logits minus their row's largest."""
    weights = np.exp(inverse * below)
    weights /= weights.sum(axis=1, keepdims=True)
    mean = np.einsum("nk,nk->n", weights, below)
    return float(mean.mean() - own), float((np.einsum("nk,nk,nk->n", weights, below, below) - mean**2).mean())
