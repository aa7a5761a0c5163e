"""Metrics over the labelled pixels of a whole data set, pooled: exact by sorting, or streamed in flat memory.

Labels are 1 anomaly, 0 inlier, 255 ignored; scores are float32, higher = more outlying, and used as they are: a sigmoid
would make the most anomalous pixels equal. The anomaly is the positive class, all values are fractions in 0..1:

    ap                  sum over distinct scores of (recall step) x precision, the step form
    fpr95               false positive rate at the highest threshold whose true positive rate is at least 0.95
    auroc               probability that an anomaly scores above an inlier, ties counted half
    best_f1             the largest F1 of all thresholds, reached by
    best_f1_threshold   where a pixel is called an anomaly iff its score > best_f1_threshold
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_interval
from quantjax.rows import IGNORED

TPR = 0.95
CHUNK = 1 << 20  # pixels at a time, which bounds the memory of temporary arrays
SIGN = np.uint32(1 << 31)


class PixelCounts(NamedTuple):
    """How many inlier and anomaly pixels fell into each bin of the score; a pixel is forgotten once counted."""

    histogram: np.ndarray
    """[2, 2^bits] int64: inliers, anomalies; bins in ascending order of the score"""


class _Steps(NamedTuple):
    """Thresholds in descending order, those alone that some anomaly reaches: no other adds to recall."""

    anomalies: np.ndarray  # [T] at this threshold
    inliers_above: np.ndarray  # [T] above this threshold
    inliers: np.ndarray  # [T] at this threshold
    num_inliers: int


def pixel_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Return ap, fpr95, auroc, best_f1, best_f1_threshold of scores [P] and labels [P], exact, ties included.

    Arrays of any one shape will do, [H, W] or [B, H, W]. Sorts in about as much memory again as the arrays take;
    where a data set is too large for that, `add` and `result` stream it.
    Raises ValueError for shapes that differ, other labels than 0, 1, 255, NaN at a labelled pixel, or a missing class.
    """
    scores, labels = _pixels(scores, labels)
    inliers, anomalies = scores[labels == 0], scores[labels == 1]
    _check_sides(len(inliers), len(anomalies))
    inliers.sort()
    values, counts = np.unique(anomalies, return_counts=True)
    values, counts = values[::-1], counts[::-1]
    right = np.searchsorted(inliers, values, side="right")
    left = np.searchsorted(inliers, values, side="left")
    steps = _Steps(counts, len(inliers) - right, right - left, len(inliers))
    results, best = _metrics(steps)
    return {**results, "best_f1_threshold": float(np.nextafter(values[best], np.float32(-np.inf)))}


def empty(bits: int = 22) -> PixelCounts:
    """Return counts of no pixels, in 2^bits bins: 64 MB at 22 bits, and all that streaming keeps.

    A bin holds the float32 scores that share their first `bits` bits, so its width is relative: at 22 bits, 2^-13 of
    the score's power of two. Raises ValueError for bits outside 10..24.
    """
    check_interval("bits", bits, 10, 24)
    return PixelCounts(np.zeros((2, 1 << bits), np.int64))


def add(counts: PixelCounts, scores: ArrayLike, labels: ArrayLike) -> PixelCounts:
    """Count the pixels of scores [P] and labels [P] (or any one shape); the given counts are updated and returned.

    The order and the grouping of the pixels change nothing, so each image may be added as it is scored.
    Raises ValueError as pixel_metrics does, save that a class may be missing here; `counts` is then unchanged.
    """
    scores, labels = _pixels(scores, labels)
    shift = np.uint32(33 - counts.histogram.shape[1].bit_length())
    for chunk in _chunks(len(scores)):
        for value, histogram in enumerate(counts.histogram):
            np.add.at(histogram, _keys(scores[chunk][labels[chunk] == value]) >> shift, 1)
    return counts


def result(counts: PixelCounts) -> dict[str, float]:
    """Return the metrics of the counted pixels, and for each but the threshold a bound on its error.

    ap, fpr95, auroc and best_f1 are exact for scores rounded to their bin. |value - exact value| <= ap_error and so on,
    whatever the order inside the bins: the bounds come from the best and the worst order. best_f1_threshold is the
    lower edge of a bin, so calling score > best_f1_threshold an anomaly gives best_f1 exactly.
    Raises ValueError when no inlier or no anomaly was counted.
    """
    inliers, anomalies = counts.histogram
    totals = int(inliers.sum()), int(anomalies.sum())
    _check_sides(*totals)
    bins = np.flatnonzero(anomalies)[::-1]
    below = np.cumsum(inliers)[bins]
    steps = _Steps(anomalies[bins], totals[0] - below, inliers[bins], totals[0])
    results, best = _metrics(steps)
    shift = 33 - len(inliers).bit_length()
    return {**results, "best_f1_threshold": _just_below(int(bins[best]) << shift), **_errors(steps, results)}


def _metrics(steps: _Steps) -> tuple[dict[str, float], int]:
    """The metrics by name, and the index of the threshold of the best F1; counts of a step are taken as ties."""
    reached, false = np.cumsum(steps.anomalies), steps.inliers_above + steps.inliers
    total = reached[-1]
    f1 = 2 * reached / (reached + false + total)
    above = steps.num_inliers - steps.inliers_above - 0.5 * steps.inliers
    results = {
        "ap": np.sum(steps.anomalies / total * (reached / (reached + false))),
        "fpr95": false[np.argmax(reached / total >= TPR)] / steps.num_inliers,
        "auroc": np.sum(steps.anomalies / total * (above / steps.num_inliers)),
        "best_f1": f1.max(),
    }
    return {name: float(value) for name, value in results.items()}, int(f1.argmax())


def _errors(steps: _Steps, results: dict[str, float]) -> dict[str, float]:
    """How far each metric may be from that of the scores themselves, by the best and worst order in each bin."""
    reached = np.cumsum(steps.anomalies)
    total, before = reached[-1], reached - steps.anomalies
    most = steps.inliers_above + steps.inliers
    # best: all anomalies of the bin tie, above its inliers; worst: each alone, below all its inliers, the j-th with
    # precision 1 - most / (c + j), c = before + most, and sum_j=1..p 1 / (c + j) <= log((c + p + 1/2) / (c + 1/2))
    high = np.sum(steps.anomalies / total * (reached / (reached + steps.inliers_above)))
    harmonic = np.log1p(steps.anomalies / (before + most + 0.5))
    low = np.sum(np.maximum(steps.anomalies - most * harmonic, 0.0)) / total
    at = np.argmax(reached / total >= TPR)
    f1 = np.max(2 * reached / (reached + steps.inliers_above + total))
    errors = {
        "ap_error": max(high - results["ap"], results["ap"] - low),
        "fpr95_error": steps.inliers[at] / steps.num_inliers,
        "auroc_error": 0.5 * np.sum(steps.anomalies / total * (steps.inliers / steps.num_inliers)),
        "best_f1_error": f1 - results["best_f1"],
    }
    return {name: float(value) for name, value in errors.items()}


def _keys(scores: np.ndarray) -> np.ndarray:
    """float32 [P] -> uint32 [P] in the same order, -0 as 0: the sign bit flipped, negative values inverted."""
    bits = (scores + np.float32(0.0)).view(np.uint32)
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def _just_below(key: int) -> float:
    """The largest score whose key is under `key`; minus infinity where there is none."""
    lowest = int(_keys(np.array([-np.inf], np.float32))[0])
    step = 2 if key == SIGN else 1  # no score has the key below that of 0: it would be -0, which is no less than 0
    last = np.array([max(key - step, lowest)], np.uint32)
    return float(np.where(last & SIGN, last ^ SIGN, ~last).astype(np.uint32).view(np.float32)[0])


def _pixels(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both flat, checked: shapes, label values, no NaN where a label counts."""
    scores, labels = np.asarray(scores, np.float32), np.asarray(labels)
    if scores.shape != labels.shape:
        raise ValueError(f"labels must have the shape of scores, {list(scores.shape)}, got {list(labels.shape)}")
    scores, labels = scores.ravel(), labels.ravel()
    for chunk in _chunks(len(labels)):
        known = np.isin(labels[chunk], (0, 1, IGNORED))
        if not known.all():
            raise ValueError(
                f"labels must be 0 (inlier), 1 (anomaly) or {IGNORED} (ignored), "
                f"got also {np.unique(labels[chunk][~known])[:5].tolist()}; map them first"
            )
        bad = np.isnan(scores[chunk]) & (labels[chunk] != IGNORED)
        if bad.any():
            raise ValueError(f"scores must not be NaN at labelled pixels, got NaN at {int(bad.sum())}; see the network")
    return scores, labels


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, length, CHUNK)]


def _check_sides(inliers: int, anomalies: int) -> None:
    if not inliers or not anomalies:
        raise ValueError(
            f"labels must hold both inlier (0) and anomaly (1) pixels, got {inliers} and {anomalies}; "
            "check the label files of the set"
        )
