"""Thresholds of a detector, set on inliers alone (Taghikhah et al., AAAI 2024, "Log-Likelihood Based Threshold")."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from quantjax import metrics
from quantjax.checks import check_interval, check_shape
from quantjax.data.arrays import half_split
from quantjax.detector.decision import Prediction
from quantjax.detector.dispatch import predictor, type_name
from quantjax.detector.held_out import keep
from quantjax.detector.patches import PatchDetector
from quantjax.detector.scenes import SceneDetector
from quantjax.rows import IGNORED

SCENES, PIXELS = 200, 20_000  # at most so many scenes, and drawn pixels of each: a bound on time and memory
SEED = 0  # of the halves, of the pixels drawn and of the scenes drawn anew
REDRAWN = 1000  # times
KEPT = 0.95  # share of inliers, when nothing else is asked for

Report = Callable[[int, int], None]  # (rows or scenes done, in all)


def calibrate(
    detector: Any,
    inliers: Any,
    true_positive_rate: float | None = None,
    *,
    false_alarm_rate: float | None = None,
    per_class: bool = False,
    source: str | None = None,
    report: Report | None = None,
    **options: Any,
) -> Any:
    """`detector` with a threshold that keeps at least that share of inliers like these, which it was not fitted to.

    The share is true_positive_rate, 0.95 when nothing is said; or, the same number seen from the other side, say the
    false_alarm_rate = 1 - true_positive_rate, the share of inliers taken for outliers. The threshold is the conformal
    one of `metrics.calibrate`: 95 % takes 19 inliers or more, fewer promise what they can, with a warning. The interval
    that stays with the detector is the one given there; of scenes it comes from drawing those that judge the threshold
    anew, None for a single one.

    inliers are what it predicts on: images, or rows of features or logits; of scenes a sequence of images uint8
    [H, W, 3], or of {"image", "label"} whose pixels labelled 255 (uint8 [H, W]) do not count. There the share is one of
    pixels, at most 20,000 drawn from each of at most 200 scenes, evenly spread: half of the scenes set the threshold,
    the other half tells what it keeps; a single scene is judged by itself.

    per_class=True gives each class that the classifier predicts a threshold of its own, under which the share lies of
    the inliers predicted as that class (Mondrian conformal prediction, Vovk et al. 2005). A class with fewer inliers
    than that takes falls back on the threshold of all; a warning counts these. `calibration` goes on speaking of the
    threshold of all, and of each class under "per_class": n and interval, None where it fell back. Rows of features
    need logits beside them then.

    The scores of the inliers stay with detectors of images and of features, for p-values and for tests of drift
    (detector.drift, detector.watch); with those of scenes they do not.

    `source` says in words where the inliers come from ("held-out inliers", "inlier scenes") and stays with the
    detector. Options are those of `predictor`; report(done, total) is called now and then. Raises TypeError when this
    is no detector, ValueError for inliers of another shape, for none, and when the score of one is NaN; when both rates
    are given; and for per_class where no class is predicted.
    """
    tpr = _share_kept(true_positive_rate, false_alarm_rate)
    type_name(detector)
    if isinstance(detector, SceneDetector | PatchDetector):
        if per_class:
            raise ValueError("per_class must be False for a detector of scenes, which has one threshold; leave it out")
        score = predictor(detector._replace(threshold=0.0), **options).score
        record = _of_scenes(score, inliers, tpr, source or "inlier scenes", report)
        return detector._replace(threshold=record.threshold, calibration=in_percent(record))
    bare = detector._replace(threshold=0.0, class_thresholds=None, held_out=None)
    judged = predictor(bare, **options).predict(inliers, report=report)
    record = metrics.calibrate(judged.score, source=source or "held-out inliers", tpr=tpr)
    one_for_all = detector._replace(
        threshold=record.threshold,
        calibration=in_percent(record),
        class_thresholds=None,
        held_out=keep(judged.score),
    )
    return _with_classes(one_for_all, judged, tpr) if per_class else one_for_all


def _share_kept(true_positive_rate: float | None, false_alarm_rate: float | None) -> float:
    if false_alarm_rate is None:
        tpr = KEPT if true_positive_rate is None else true_positive_rate
        check_interval("true_positive_rate", tpr, 0.0, 1.0, closed="right")
        return tpr
    if true_positive_rate is not None:
        raise ValueError(
            f"give true_positive_rate or false_alarm_rate, its complement; got {true_positive_rate} and "
            f"{false_alarm_rate}"
        )
    check_interval("false_alarm_rate", false_alarm_rate, 0.0, 1.0, closed="left")
    return round(1.0 - false_alarm_rate, 12)  # 0.93, not 0.9299999999999999, for 0.07


def _with_classes(detector: Any, judged: Prediction, tpr: float) -> Any:
    """`detector` with a threshold for each class predicted of its held-out inliers."""
    if judged.label is None:
        raise ValueError(
            'per_class needs the class predicted for each inlier: give {"features": ..., "logits": ...} instead of '
            "features alone, to a detector that has class names"
        )
    names, source = detector.class_names, detector.calibration["source"]
    own = metrics.calibrate_per_class(judged.score, judged.label, len(names), source=source, tpr=tpr)
    if None in own:
        warnings.warn(
            f"{own.count(None)} of {len(own)} classes have too few held-out inliers to promise {100 * tpr:g} % and "
            "fall back on the threshold of all",
            stacklevel=3,
        )
    counts = np.bincount(judged.label, minlength=len(own)).tolist()
    intervals = [None if one is None else in_percent(one)["interval"] for one in own]
    about = [{"n": n, "interval": interval} for n, interval in zip(counts, intervals, strict=True)]
    return detector._replace(
        calibration=detector.calibration | {"per_class": about},
        class_thresholds=tuple(None if one is None else one.threshold for one in own),
        held_out=keep(judged.score, judged.label),
    )


def in_percent(record: metrics.Calibration) -> dict[str, Any]:
    """A calibration as detectors keep it: rates in percent, the threshold apart."""
    values = {key: value for key, value in record._asdict().items() if key != "threshold"}
    values |= {key: 100.0 * values[key] for key in ("promised_tpr", "achieved_tpr")}
    return values | {"interval": None if record.interval is None else [100.0 * share for share in record.interval]}


def _of_scenes(score: Callable[..., Any], scenes: Any, tpr: float, source: str, report: Report | None) -> Any:
    shown = np.unique(np.linspace(0, len(scenes) - 1, min(len(scenes), SCENES)).round().astype(int))
    if not len(shown):
        raise ValueError("inliers must hold at least one scene, got none")
    drawn, counted = [], "pixels"
    for done, index in enumerate(map(int, shown)):
        scene = scenes[index]
        if isinstance(scene, Mapping):
            counted = "labelled pixels"
        drawn.append(_drawn(score, scene, index))
        if report:
            report(done + 1, len(shown))
    half, other = half_split(len(shown), SEED) if len(shown) > 1 else ([0], [0])
    record = metrics.calibrate(
        np.concatenate([drawn[i] for i in half]),
        source=f"{counted} of {len(half)} {source}, at most {PIXELS:,} of each",
        tpr=tpr,
        check_scores=np.concatenate([drawn[i] for i in other]),
    )
    return record._replace(interval=_over_scenes([drawn[i] for i in other], record.threshold))


def _over_scenes(drawn: Sequence[np.ndarray], threshold: float) -> tuple[float, float] | None:
    """An interval for the share of pixels kept, from scenes drawn anew: pixels of one scene are no separate draws."""
    if len(drawn) < 2:
        return None
    kept, counts = np.array([[np.sum(scores <= threshold), len(scores)] for scores in drawn]).T
    again = np.random.default_rng(SEED).integers(len(drawn), size=(REDRAWN, len(drawn)))
    low, high = np.quantile(kept[again].sum(1) / np.maximum(counts[again].sum(1), 1), [0.025, 0.975])
    return float(low), float(high)


def _drawn(score: Callable[..., Any], scene: Any, index: int) -> np.ndarray:
    """Scores of at most PIXELS of a scene's labelled pixels."""
    values = score(scene["image"] if isinstance(scene, Mapping) else scene)
    if isinstance(scene, Mapping):
        check_shape("label", scene["label"], f"[{values.shape[0]}, {values.shape[1]}]")
        values = values[scene["label"] != IGNORED]
    values = values.ravel()
    if len(values) <= PIXELS:
        return values
    return np.random.default_rng([SEED, index]).choice(values, PIXELS, replace=False)
