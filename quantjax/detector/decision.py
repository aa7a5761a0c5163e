"""The decision rule: outlier unless score <= threshold, and beside it the classifier's class and softmax confidence.

A score that is NaN is no inlier's. Source: Taghikhah et al. (AAAI 2024), "Log-Likelihood Based Threshold"; the score is
minus their log-likelihood, so the threshold on it is minus theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.detector.held_out import p_values, thresholds
from quantjax.types import Array


class Prediction(NamedTuple):
    """Decisions about N images, or rows of features."""

    outlier: np.ndarray
    """[N] bool"""
    label: np.ndarray | None
    """[N] int32, the classifier's class, for outliers too; None where no logits are at hand."""
    confidence: np.ndarray | None
    """[N] float32, its softmax probability; None as label."""
    score: np.ndarray
    """[N] float32, higher = more outlying, NaN = outlying."""
    p_value: np.ndarray | None = None
    """[N] float64 in (0, 1], small = outlying: (1 + held-out inliers at least as outlying) / (n + 1), see
    metrics.conformal. None where the detector keeps none of them: it was saved by an earlier version or its threshold
    set by hand; `calibrate` keeps them."""


class Predictor(NamedTuple):
    """Both functions take N rows, and report=None to be called with (done, total).

    Rows are what the detector takes: images uint8 [N, H, W, 3], or features [N, D], see `features.FeatureDetector`.
    """

    predict: Callable[..., Prediction]
    """rows -> Prediction"""
    score: Callable[..., np.ndarray]
    """rows -> [N], higher = more outlying"""


def is_outlier(score: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Bool, of the shape of `score`: True unless score <= threshold, one or one for each; hence True for NaN."""
    return ~(score <= np.float32(threshold))


def judge(score: Array, logits: Array | None) -> tuple[Array, ...]:
    """(score [B] float32, class [B] int32, its softmax probability [B]); the score alone where there are no logits."""
    score = score.astype(jnp.float32)
    if logits is None:
        return (score,)
    probabilities = jax.nn.softmax(logits, axis=-1)
    return score, jnp.argmax(logits, axis=-1).astype(jnp.int32), jnp.max(probabilities, axis=-1)


def make_predictor(run: Callable[..., Any], take: Callable[[Any], Any], decides: Any) -> Predictor:
    """A predictor from run(rows, report=...) -> what `judge` returns; take(rows) checks them and hands them on.

    `decides` has threshold, class_thresholds, class_names and held_out, as detectors have them.
    """

    def predict(rows: Any, report: Callable[[int, int], None] | None = None) -> Prediction:
        score, *judged = run(take(rows), report=report)
        label, confidence = judged or (None, None)
        bound = decides.threshold if decides.class_thresholds is None else thresholds(decides, label)
        return Prediction(is_outlier(score, bound), label, confidence, score, p_values(decides, score, label))

    return Predictor(predict, lambda rows, report=None: run(take(rows), report=report)[0])


def images_of(size: int) -> Callable[[Any], Any]:
    """`take` of make_predictor for images; raises ValueError unless they are uint8 [N, size, size, 3]."""
    return partial(_checked_images, size)


def _checked_images(size: int, images: Any) -> Any:
    shape, dtype = tuple(np.shape(images)), getattr(images, "dtype", type(images).__name__)
    if dtype != np.uint8 or len(shape) != 4 or shape[1:] != (size, size, 3):
        raise ValueError(
            f"images must be uint8 [N, {size}, {size}, 3], got {dtype} {list(shape)}; "
            "quantjax.data.images.fit resizes one image"
        )
    return images
