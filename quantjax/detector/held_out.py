"""Inliers that a detector was calibrated on, as it keeps them, and what follows from them: p-values, tests of drift.

Detectors of images and of features keep the scores of all of them, four bytes each, those of scenes none: neighbouring
pixels are no separate draws. Classes may have thresholds of their own; the class that the classifier predicts chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from quantjax import metrics
from quantjax.checks import check_labels, check_same_length, check_shape
from quantjax.metrics import DriftTest, Watch

PER_CLASS_FORMAT = 2  # of files with thresholds of classes: earlier versions would decide without them
REMEDY = "calibrate it on held-out inliers (detector.calibrate)"

ClassThresholds = tuple[float | None, ...]  # [K], None for a class that falls back on the common one


class HeldOut(NamedTuple):
    """Held-out inliers as their detector scored them."""

    scores: np.ndarray
    """[n] float32, ascending"""
    labels: np.ndarray | None = None
    """[n] int32, the class predicted for each; None where classes have no thresholds of their own"""


def keep(scores: np.ndarray, labels: np.ndarray | None = None) -> HeldOut:
    """The scores [n] of held-out inliers, and the classes [n] predicted for them, in the order that detectors keep."""
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores, np.float32)[order]
    return HeldOut(ordered, None if labels is None else np.asarray(labels, np.int32)[order])


def thresholds(detector: Any, labels: Any) -> np.ndarray:
    """The thresholds [N] float64 that rows with predicted classes labels [N] are compared with."""
    own = detector.class_thresholds or (None,) * len(detector.class_names)
    return np.array([detector.threshold if value is None else value for value in own])[np.asarray(labels)]


def p_values(detector: Any, scores: np.ndarray, labels: np.ndarray | None) -> np.ndarray | None:
    """Conformal p-values [N] of scores [N] with predicted classes [N]; None where the detector keeps no held-out ones.

    Of a class with a threshold of its own they count its own inliers: a row is an outlier iff its p-value is at most
    1 - the true positive rate that its threshold promises.
    """
    kept, own = detector.held_out, detector.class_thresholds
    if kept is None:
        return None
    if own is None or kept.labels is None or labels is None:  # `check` has seen to both where classes count
        return metrics.p_values(kept.scores, scores)
    return metrics.p_values_per_class(kept.scores, kept.labels, scores, labels, [value is not None for value in own])


def drift(detector: Any, scores: Any, *, test: str = "ks", significance: float = 0.01) -> DriftTest:
    """Whether a batch of scores [N] is distributed as those of the inliers the detector was calibrated on.

    See metrics.drift_test. Raises ValueError as that does, and when the detector keeps no such scores.
    """
    return metrics.drift_test(_kept(detector).scores, scores, test=test, significance=significance)


def watch(detector: Any, *, seed: int = 0) -> Watch:
    """The state before the first row of a stream; detector.observe(state, scores) goes on. See metrics.drift.

    Raises ValueError when the detector keeps no scores of held-out inliers.
    """
    return metrics.watch(_kept(detector).scores, seed=seed)


def _kept(detector: Any) -> HeldOut:
    kept = getattr(detector, "held_out", None)
    if not isinstance(kept, HeldOut):
        raise ValueError(
            f"this {type(detector).__name__} keeps no scores of held-out inliers (it was saved by an earlier version, "
            f"its threshold was set by hand, or it is one of scenes, which keep none); {REMEDY}"
        )
    return kept


def to_content(detector: Any) -> dict[str, Any]:
    """The part of detector.json and exported.json about thresholds of classes; empty where there are none."""
    if detector.class_thresholds is None:
        return {}
    return {"format": PER_CLASS_FORMAT, "class_thresholds": list(detector.class_thresholds)}


def from_content(content: Mapping[str, Any]) -> ClassThresholds | None:
    """Undo `to_content`; raises ValueError or TypeError for anything else."""
    values = content.get("class_thresholds")
    return None if values is None else tuple(None if value is None else float(value) for value in values)


def to_arrays(kept: HeldOut | None) -> dict[str, np.ndarray]:
    """The arrays of a file, by name; none where nothing is kept."""
    return {} if kept is None else {name: array for name, array in kept._asdict().items() if array is not None}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> HeldOut | None:
    """Undo `to_arrays`; raises ValueError for other names, ranks or dtypes."""
    if not arrays:
        return None
    known = {"scores": np.float32, "labels": np.int32}
    if set(arrays) - set(known) or "scores" not in arrays:
        raise ValueError(f"held-out inliers must have scores, and may have labels; got {', '.join(sorted(arrays))}")
    for name, array in arrays.items():
        check_shape(f"{name} of held-out inliers", array, "[n]")
        if array.dtype != known[name]:
            raise ValueError(f"{name} of held-out inliers must be {np.dtype(known[name])}, got {array.dtype}")
    return HeldOut(**arrays)


def check(detector: Any) -> None:
    """Raise ValueError unless thresholds of classes and held-out scores make sense together."""
    kept, own, classes = detector.held_out, detector.class_thresholds, len(detector.class_names)
    if own is not None:
        check_shape("class_thresholds", own, f"[{classes}]")
        if not classes or not all(value is None or np.isfinite(value) for value in own):
            raise ValueError(f"class_thresholds must be a finite number or None for each class, got {own!r:.80}")
    if kept is None:
        return
    check_shape("scores of held_out", kept.scores, "[n]")
    ascending = (kept.scores[1:] >= kept.scores[:-1]).all()  # not so beside a NaN
    if not len(kept.scores) or not ascending or np.isnan(kept.scores[0]):
        raise ValueError(f"held_out must have scores in ascending order, at least one and no NaN; {REMEDY}")
    if own is not None:
        _check_classes(kept, own)


def _check_classes(kept: HeldOut, own: Sequence[float | None]) -> None:
    if kept.labels is None:
        raise ValueError(f"held_out must have labels where classes have thresholds of their own, got None; {REMEDY}")
    check_same_length(**{"scores of held_out": kept.scores, "labels of held_out": kept.labels})
    check_labels("labels of held_out", kept.labels, len(own))
    empty = [k for k, value in enumerate(own) if value is not None and not (kept.labels == k).any()]
    if empty:
        raise ValueError(f"held_out must have rows of every class with a threshold of its own, got none of {empty}")
