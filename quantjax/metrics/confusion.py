"""How well a segmentor names the known classes: confusion matrix and mean intersection over union, in integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_interval, check_labels
from quantjax.rows import IGNORED


def confusion_matrix(predictions: ArrayLike, labels: ArrayLike, num_classes: int, ignore: int = IGNORED) -> np.ndarray:
    """Return int64 [K, K], entry (k, j) = pixels of class k predicted as j; pixels labelled `ignore` do not count.

    predictions and labels are integers of one shape, [H, W] say. Matrices of several images add up to that of the set.
    Raises ValueError for shapes that differ and for classes outside 0..K-1.
    """
    check_interval("num_classes", num_classes, 1, float("inf"))
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape:
        raise ValueError(
            f"labels must have the shape of predictions, {list(predictions.shape)}, got {list(labels.shape)}"
        )
    counted = labels != ignore
    named, true = predictions[counted], labels[counted]
    check_labels("predictions", named, num_classes)
    check_labels("labels", true, num_classes)
    pairs = true.astype(np.int64) * num_classes + named
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def intersection_over_union(confusion: ArrayLike) -> np.ndarray:
    """Return float64 [K] in 0..1 from a confusion matrix [K, K]; NaN for a class neither labelled nor predicted."""
    confusion = np.asarray(confusion)
    hits = np.diagonal(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(confusion: ArrayLike) -> float:
    """Return the mean of intersection_over_union over the classes that occur, in 0..1.

    One confusion matrix over the whole set, not a mean over images. Raises ValueError when no pixel was counted.
    """
    if not np.any(confusion):
        raise ValueError("confusion must count at least one pixel, got none; check the label files of the set")
    return float(np.nanmean(intersection_over_union(confusion)))
