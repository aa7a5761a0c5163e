"""How well a score tells inliers from outliers, exactly and with ties, in numpy float64.

Every function takes outlier scores, higher = more outlying, and returns fractions in 0..1. `positive` names the class
whose recall the true positive rate counts: "inlier" as Taghikhah et al. (AAAI 2024) report, "outlier" as most newer
benchmarks do. AUROC is the same for both; the false positive rate and the areas under precision and recall are not.

Programs differ in two more ways, so both values have a name here:

    AUPR    steps: `average_precision`, as scikit-learn's function of that name;
            trapezoids: `aupr_trapezoid`, as OpenOOD 1.5 (AUPR_IN, AUPR_OUT) and pytorch-ood (AUPR-IN, AUPR-OUT)
    FPR95   from every point of the ROC curve: `fpr_at_tpr`, as pytorch-ood (FPR95TPR, outlier positive);
            from the corners alone: `fpr_at_tpr(..., thinned=True)`, as OpenOOD 1.5 (FPR@95, outlier positive)
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_choice, check_interval, check_same_length, check_shape


class Roc(NamedTuple):
    """A ROC curve: (0, 0) first, then one point per distinct score, strictest decision first."""

    fpr: np.ndarray
    """[T] false positive rate, 0..1, not decreasing"""
    tpr: np.ndarray
    """[T] true positive rate, 0..1, not decreasing"""
    thresholds: np.ndarray
    """[T] outlier scores; positive when score <= t (positive inlier) or >= t (positive outlier)"""


class Calibration(NamedTuple):
    """A decision threshold on the outlier score and what it keeps: an input is an outlier iff score > threshold."""

    source: str
    """Which inliers the threshold was set on"""
    n: int
    """How many"""
    promised_tpr: float
    """Least fraction of further inliers at or below the threshold, 0..1, on average over draws of those n"""
    achieved_tpr: float
    """Fraction of the checked inliers at or below the threshold, 0..1"""
    threshold: float
    """Outlier score, so -threshold for a log-likelihood score is tau in nats"""
    interval: tuple[float, float] | None = None
    """Between these shares, 0..1, of further inliers lie at or below the threshold, with probability 95 %"""


def roc_curve(scores_in: ArrayLike, scores_out: ArrayLike, positive: str = "inlier") -> Roc:
    """Return every point of the ROC curve of scores_in [N] against scores_out [M]; no point is thinned out.

    Raises ValueError on a wrong rank, an empty side, NaN scores or an unknown `positive`.
    """
    true_positives, false_positives, values = _cumulative_counts(scores_in, scores_out, positive)
    sign = 1.0 if positive == "outlier" else -1.0
    return Roc(
        fpr=np.concatenate([[0.0], false_positives / false_positives[-1]]),
        tpr=np.concatenate([[0.0], true_positives / true_positives[-1]]),
        thresholds=sign * np.concatenate([[np.inf], values]),
    )


def fpr_at_tpr(
    scores_in: ArrayLike, scores_out: ArrayLike, tpr: float = 0.95, positive: str = "inlier", *, thinned: bool = False
) -> float:
    """Return the false positive rate at the first point of the ROC curve whose true positive rate is at least tpr.

    With positive="inlier": the fraction of outliers taken for inliers when at least tpr of the inliers are kept.
    thinned leaves out the points on a straight line between their neighbours, as scikit-learn's roc_curve does when
    nothing else is said and OpenOOD with it: never lower, and higher by the length of the line that passes tpr.
    Raises ValueError as roc_curve does, and for tpr outside (0, 1].
    """
    check_interval("tpr", tpr, 0.0, 1.0, closed="right")
    curve = roc_curve(scores_in, scores_out, positive)
    if thinned:
        curve = _corners(curve, len(np.asarray(scores_in)), len(np.asarray(scores_out)), positive)
    return float(curve.fpr[np.argmax(curve.tpr >= tpr)])


def auroc(scores_in: ArrayLike, scores_out: ArrayLike) -> float:
    """Return the probability that an outlier scores above an inlier, ties counted half: the area under the ROC curve.

    Raises ValueError as roc_curve does.
    """
    curve = roc_curve(scores_in, scores_out)
    return float(np.trapezoid(curve.tpr, curve.fpr))


def average_precision(scores_in: ArrayLike, scores_out: ArrayLike, positive: str = "inlier") -> float:
    """Return sum_t (recall_t - recall_(t-1)) precision_t over distinct thresholds, the step form of the AUPR.

    It depends on the ratio of the two sets as well as on the scores: chance level is the share of positives.
    Raises ValueError as roc_curve does.
    """
    recall, precision = _recall_and_precision(scores_in, scores_out, positive)
    return float(np.sum(np.diff(recall) * precision[1:]))


def aupr_trapezoid(scores_in: ArrayLike, scores_out: ArrayLike, positive: str = "inlier") -> float:
    """Return the area under straight lines between the points (recall_t, precision_t) and (0, 1).

    Where scores tie it flatters: ten tied scores, one of them positive, give 0.55, where `average_precision` and
    chance give 0.1 (Davis and Goadrich, ICML 2006). For tables beside those of OpenOOD and pytorch-ood.
    Raises ValueError as roc_curve does.
    """
    recall, precision = _recall_and_precision(scores_in, scores_out, positive)
    return float(np.trapezoid(precision, recall))


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the fraction of rows whose largest logit is at the label; logits [N, K], labels [N] integers.

    Raises ValueError on a wrong rank, lengths that differ, or no rows.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    check_shape("logits", logits, "[N, K]")
    check_shape("labels", labels, "[N]")
    check_same_length(logits=logits, labels=labels)
    if len(labels) == 0:
        raise ValueError("labels must have at least one row, got none")
    return float(np.mean(logits.argmax(axis=1) == labels))


def threshold_at_tpr(scores: ArrayLike, tpr: float = 0.95) -> float:
    """Return the smallest t such that at least the fraction tpr of inlier scores [N] is <= t; outlier iff score > t.

    On scores = -log-likelihood, -t is the largest tau that keeps at least tpr of the inliers at log-likelihood >= tau
    (Taghikhah et al., AAAI 2024, inference). t is one of the scores, so comparing in their own precision is exact.
    Raises ValueError on a wrong rank, no scores, NaN, or tpr outside (0, 1].
    """
    check_interval("tpr", tpr, 0.0, 1.0, closed="right")
    ordered = np.sort(checked_scores("scores", scores))
    kept = np.arange(1, len(ordered) + 1) / len(ordered)
    return float(ordered[np.argmax(kept >= tpr)])


def calibrate(
    scores: ArrayLike, *, source: str, tpr: float = 0.95, check_scores: ArrayLike | None = None
) -> Calibration:
    """Set the threshold on held-out inlier scores [N] and measure what it keeps.

    The threshold is the ceil((N + 1) tpr)-th smallest score: inliers of the same kind, drawn independently, then lie at
    or below it with probability tpr at least (split conformal prediction, Vovk et al. 2005; Lei et al., JASA 2018).
    N scores can promise N / (N + 1) at most, 19 of them 95 %; where tpr is more, the largest score is taken, that share
    is promised, and a warning says so. The share that a threshold of rank k keeps is Beta(k, N + 1 - k) distributed,
    which gives the interval.

    check_scores [M] are scores of other inliers on which achieved_tpr is measured, wanted where the calibrating rows
    must not judge themselves; None measures on scores. `source` says in words where the calibrating rows come from.
    Raises ValueError as threshold_at_tpr does.
    """
    check_interval("tpr", tpr, 0.0, 1.0, closed="right")
    ordered = np.sort(checked_scores("scores", scores))
    n, judged = len(ordered), ordered if check_scores is None else checked_scores("check_scores", check_scores)
    promised = min(tpr, n / (n + 1))
    if promised < tpr:
        enough = "no number of them promises that" if tpr == 1.0 else f"{100 * tpr:g} % needs {inliers_needed(tpr)}"
        warnings.warn(f"{n} held-out inliers promise {100 * promised:.1f} %: {enough}", stacklevel=2)
    rank = _conformal_rank(n, promised)
    threshold = float(ordered[rank - 1])
    kept = float(np.mean(judged <= threshold))
    return Calibration(source, n, float(promised), kept, threshold, _coverage(rank, n))


def inliers_needed(tpr: float) -> int:
    """The least number of held-out inliers that can promise to keep the share tpr, 0 < tpr < 1; 19 for 95 %."""
    return math.ceil(tpr / (1.0 - tpr) - 1e-9)


def _conformal_rank(n: int, tpr: float) -> int:
    return math.ceil((n + 1) * tpr * (1.0 - 1e-12))  # 100 * 0.07 is a little more than 7


def _coverage(rank: int, n: int) -> tuple[float, float]:
    """2.5 % and 97.5 % quantiles of the share of further inliers below the rank-th smallest of n."""
    from scipy.special import betaincinv

    low, high = betaincinv(rank, n + 1 - rank, [0.025, 0.975])
    return float(low), float(high)


def _cumulative_counts(
    scores_in: ArrayLike, scores_out: ArrayLike, positive: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many positives and negatives reach each distinct value, and the values, highest = most positive."""
    check_choice("positive", positive, ("inlier", "outlier"))
    inliers, outliers = checked_scores("scores_in", scores_in), checked_scores("scores_out", scores_out)
    if positive == "outlier":
        values, is_positive = (
            np.concatenate([outliers, inliers]),
            np.arange(len(outliers) + len(inliers)) < len(outliers),
        )
    else:
        values, is_positive = (
            -np.concatenate([inliers, outliers]),
            np.arange(len(inliers) + len(outliers)) < len(inliers),
        )
    order = np.argsort(-values, kind="stable")
    values, is_positive = values[order], is_positive[order]
    last_of_ties = np.flatnonzero(np.concatenate([values[1:] != values[:-1], [True]]))
    true_positives = np.cumsum(is_positive)[last_of_ties]
    return true_positives, last_of_ties + 1 - true_positives, values[last_of_ties]


def _recall_and_precision(scores_in: ArrayLike, scores_out: ArrayLike, positive: str) -> tuple[np.ndarray, np.ndarray]:
    """(0, 1) first, then one point per distinct score, strictest decision first."""
    true_positives, false_positives, _ = _cumulative_counts(scores_in, scores_out, positive)
    precision = true_positives / (true_positives + false_positives)
    return np.concatenate([[0.0], true_positives / true_positives[-1]]), np.concatenate([[1.0], precision])


def _corners(curve: Roc, inliers: int, outliers: int, positive: str) -> Roc:
    """The points where the curve turns, found in whole counts, the first and the last one, and its second point."""
    positives, negatives = (inliers, outliers) if positive == "inlier" else (outliers, inliers)
    counts = np.rint(np.stack([curve.tpr * positives, curve.fpr * negatives])).astype(np.int64)
    turns = np.any(np.diff(counts[:, 1:], n=2) != 0, axis=0)
    kept = np.concatenate([[True, True], turns, [True] * (counts.shape[1] > 2)])
    return Roc(*(values[kept] for values in curve))


def checked_scores(name: str, scores: ArrayLike) -> np.ndarray:
    """Scores [N] as float64; ValueError that names them on a wrong rank, none, or NaN."""
    array = np.asarray(scores, np.float64)
    check_shape(name, array, "[N]")
    if len(array) == 0:
        raise ValueError(f"{name} must have at least one score, got none")
    if np.isnan(array).any():
        raise ValueError(f"{name} must not be NaN, got NaN in {int(np.isnan(array).sum())} of {len(array)} rows")
    return array
