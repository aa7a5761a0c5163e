"""Component metrics: is each unknown object found, and is each found object unknown, whatever its size in pixels.

Chan et al., "SegmentMeIfYouCan" (NeurIPS Datasets and Benchmarks 2021), section 4. Labels are 1 anomaly, 0 inlier,
255 ignored; components are 8-connected. With S(i) the predicted components that touch the labelled component i:

    sIoU(i) = |i & S(i)| / |(i | S(i)) minus the pixels of other labelled components|
    PPV(q)  = share of the pixels of the predicted component q that lie on labelled components
    F1(t)   = 2 TP / (2 TP + FN + FP), TP and FN the labelled components with sIoU >= t and < t, FP those with PPV < t
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_shape
from quantjax.rows import IGNORED

LEVELS = np.linspace(0.25, 0.75, 11)


class MinimumSizes(NamedTuple):
    """Components of fewer pixels are dropped (predicted) or ignored (labelled)."""

    predicted: int
    """Pixels"""
    labelled: int
    """Pixels"""


ANOMALY_TRACK = MinimumSizes(500, 100)
OBSTACLE_TRACK = MinimumSizes(50, 10)


class ComponentCounts(NamedTuple):
    """One number per component of the images added so far."""

    siou: np.ndarray
    """[G] float64, of labelled components, 0..1"""
    ppv: np.ndarray
    """[Q] float64, of predicted components, 0..1"""


def empty() -> ComponentCounts:
    """Return counts of no images."""
    return ComponentCounts(np.zeros(0), np.zeros(0))


def add(
    counts: ComponentCounts,
    score: ArrayLike,
    label: ArrayLike,
    threshold: float,
    minimum: tuple[int, int] = ANOMALY_TRACK,
) -> ComponentCounts:
    """Return counts with one image added: score [H, W], label [H, W]; a pixel is called an anomaly iff > threshold.

    `minimum` is MinimumSizes, or a pair of numbers in its order. The benchmark takes the threshold of the best pixel F1
    on the same set. Raises ValueError for shapes that differ, NaN scores at labelled pixels, a NaN threshold and other
    labels than 0, 1, 255.
    """
    score, label, minimum = np.asarray(score), np.asarray(label), MinimumSizes(*minimum)
    check_shape("score", score, "[H, W]")
    check_shape("label", label, f"[{score.shape[0]}, {score.shape[1]}]")
    known = np.isin(label, (0, 1, IGNORED))
    if not known.all():
        raise ValueError(f"label must be 0, 1 or {IGNORED} (ignored), got also {np.unique(label[~known])[:5].tolist()}")
    counted = label != IGNORED
    if np.isnan(threshold) or np.isnan(score[counted]).any():
        raise ValueError("score and threshold must not be NaN at labelled pixels; see the network")
    predicted = _kept(_components((score > threshold) & counted), minimum.predicted)
    labelled = _components(label == 1)
    large = _kept(labelled, minimum.labelled)
    inside = counted & ((labelled == 0) | (large > 0))
    siou, ppv = _overlaps(large[inside], predicted[inside])
    return ComponentCounts(np.concatenate([counts.siou, siou]), np.concatenate([counts.ppv, ppv]))


def result(counts: ComponentCounts) -> dict[str, float]:
    """Return the mean siou of labelled components, mean ppv of predicted ones (0 where there is none), and the mean of
    F1(t) over t = 0.25, 0.30 .. 0.75, all in 0..1 over the components of all images.

    Raises ValueError when no labelled component was added.
    """  # fmt: skip
    if not len(counts.siou):
        raise ValueError(
            "counts must hold at least one labelled component, got none: all images were without anomaly, or their "
            "anomalies were smaller than the minimum size"
        )
    hits = np.sum(counts.siou[:, None] >= LEVELS, axis=0)
    wrong = np.sum(counts.ppv[:, None] < LEVELS, axis=0)
    f1 = 2 * hits / (hits + len(counts.siou) + wrong)  # TP + FN = all labelled components
    ppv = counts.ppv.mean() if len(counts.ppv) else 0.0
    return {"siou": float(counts.siou.mean()), "ppv": float(ppv), "f1": float(f1.mean())}


def _components(mask: np.ndarray) -> np.ndarray:
    """Number the 8-connected components of mask [H, W] from 1; 0 elsewhere."""
    from scipy import ndimage

    return ndimage.label(mask, structure=np.ones((3, 3)))[0]


def _kept(components: np.ndarray, minimum: int) -> np.ndarray:
    """Components of at least `minimum` pixels, numbered anew from 1."""
    large = np.bincount(components.ravel()) >= minimum
    large[0] = False
    return (np.cumsum(large) * large)[components]


def _overlaps(labelled: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sIoU of the labelled and PPV of the predicted components, from component numbers [P], 0 for none."""
    shape = labelled.max(initial=0) + 1, predicted.max(initial=0) + 1
    common = np.bincount(labelled * shape[1] + predicted, minlength=shape[0] * shape[1]).reshape(shape)
    own = common[1:, 1:]  # [G, Q] pixels of labelled component g on predicted component q
    touches = own > 0
    sizes = common.sum(axis=0)[1:]
    free = sizes - (own.sum(axis=0) - own)  # [G, Q] pixels of q that lie on no other labelled component than g
    hits = own.sum(axis=1)
    union = np.sum(touches * free, axis=1) + common[1:].sum(axis=1) - hits
    present = sizes > 0  # the others lie wholly on labelled components too small to count
    return hits / union, own.sum(axis=0)[present] / sizes[present]
