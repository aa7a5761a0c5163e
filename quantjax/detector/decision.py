"""The decision rule: outlier iff score > threshold, else the classifier's class and its softmax confidence.

Source: Taghikhah et al. (AAAI 2024), "Log-Likelihood Based Threshold"; the score is minus their log-likelihood, so the
threshold on it is minus theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Prediction(NamedTuple):
    """Decisions about N images."""

    outlier: np.ndarray  # [N] bool
    label: np.ndarray  # [N] int32, the classifier's class, for outliers too
    confidence: np.ndarray  # [N] float32, its softmax probability
    score: np.ndarray  # [N] float32, higher = more outlying


class Predictor(NamedTuple):
    """Both functions take images uint8 [N, H, W, 3], and report=None to be called with (done, total)."""

    predict: Callable[..., Prediction]
    score: Callable[..., np.ndarray]  # -> [N]


def make_predictor(run: Callable[..., Any], threshold: float, size: int) -> Predictor:
    """A predictor from run(images, report=...) -> (score [N], label [N], confidence [N]) on size x size images.

    Its functions raise ValueError when images are not uint8 [N, size, size, 3].
    """

    def predict(images: np.ndarray, report: Callable[[int, int], None] | None = None) -> Prediction:
        _check_images(images, size)
        score, label, confidence = run(images, report=report)
        return Prediction(score > np.float32(threshold), label, confidence, score)

    return Predictor(predict, lambda images, report=None: predict(images, report).score)


def _check_images(images: Any, size: int) -> None:
    shape, dtype = tuple(np.shape(images)), getattr(images, "dtype", type(images).__name__)
    if dtype != np.uint8 or len(shape) != 4 or shape[1:] != (size, size, 3):
        raise ValueError(
            f"images must be uint8 [N, {size}, {size}, 3], got {dtype} {list(shape)}; "
            "quantjax.data.images.fit resizes one image"
        )
