"""Conformal p-values: how often an inlier is at least as outlying as this one (Vovk, Gammerman and Shafer 2005).

    p = (1 + number of held-out inliers whose score is at least this one) / (n + 1)

For a further inlier that is exchangeable with the n held-out ones, P(p <= alpha) <= alpha at every alpha: a small p
says that an inlier like this is rare. `calibrate` cuts where p is 1 - tpr: a score passes its threshold iff
p > 1 - tpr. Small is outlying here, against the scores; a NaN score counts as the most outlying. Within classes the
same holds class by class (Mondrian conformal prediction, chapter 4.5 there).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_interval, check_labels, check_same_length, check_shape
from quantjax.metrics.rates import Calibration, calibrate, checked_scores, inliers_needed


def p_values(held_out: ArrayLike, scores: ArrayLike, *, ties: ArrayLike | None = None) -> np.ndarray:
    """Conformal p-values [N], in (0, 1], of outlier scores [N] among those of held-out inliers [n].

    ties [N], uniform draws in [0, 1), make them smoothed ones: an inlier and those that tie with it are placed at
    random, (number above + ties (1 + number equal)) / (n + 1), in [0, 1), and p is exactly uniform for inliers.
    Raises ValueError on a wrong rank, no held-out scores or NaN among them, and for ties outside [0, 1).
    """
    ordered, given = np.sort(checked_scores("held_out", held_out)), np.asarray(scores, np.float64)
    check_shape("scores", given, "[N]")
    reached = len(ordered) - np.searchsorted(ordered, given, side="left")
    if ties is None:
        return (1.0 + reached) / (len(ordered) + 1.0)
    drawn = np.asarray(ties, np.float64)
    check_same_length(scores=given, ties=drawn)
    if not ((drawn >= 0.0) & (drawn < 1.0)).all():
        raise ValueError("ties must lie in [0, 1): give uniform draws, numpy's Generator.random")
    above = len(ordered) - np.searchsorted(ordered, given, side="right")
    return (above + drawn * (1.0 + reached - above)) / (len(ordered) + 1.0)


def p_values_per_class(
    held_out: ArrayLike, held_out_labels: ArrayLike, scores: ArrayLike, labels: ArrayLike, own: Sequence[bool]
) -> np.ndarray:
    """As p_values, each row [N] among the held-out rows [n] of its own label where own[label], else among all.

    Labels are integers in 0..K-1, of the class that a classifier predicts, say; own has K entries. Raises ValueError as
    p_values does, on labels of another length or kind, and when a class with own has no held-out rows.
    """
    held, given = np.asarray(held_out), np.asarray(scores)
    held_labels, row_labels = np.asarray(held_out_labels), np.asarray(labels)
    check_same_length(held_out=held, held_out_labels=held_labels)
    check_same_length(scores=given, labels=row_labels)
    check_labels("held_out_labels", held_labels, len(own))
    check_labels("labels", row_labels, len(own))
    found = p_values(held, given)
    for label in np.flatnonzero(own):
        rows = row_labels == label
        found[rows] = p_values(held[held_labels == label], given[rows])
    return found


def calibrate_per_class(
    scores: ArrayLike, labels: ArrayLike, num_classes: int, *, source: str, tpr: float = 0.95
) -> tuple[Calibration | None, ...]:
    """What `calibrate` makes of the held-out inliers [N] of each class by itself; None where they are too few.

    labels [N] are integers in 0..num_classes-1. Inliers with such a label then lie at or below their own threshold with
    probability tpr at least, in every class and not only on average over them. Of a class with fewer than
    `inliers_needed` rows nothing is promised: use the threshold of all. Raises ValueError as calibrate does, and for
    other labels.
    """
    check_interval("tpr", tpr, 0.0, 1.0, closed="right")
    values, row_labels = checked_scores("scores", scores), np.asarray(labels)
    check_same_length(scores=values, labels=row_labels)
    check_labels("labels", row_labels, num_classes)
    needed = inliers_needed(tpr) if tpr < 1.0 else len(values) + 1
    groups = (values[row_labels == label] for label in range(num_classes))
    return tuple(calibrate(group, source=source, tpr=tpr) if len(group) >= needed else None for group in groups)
