"""A saved detector of images, judged on sets that it was not fitted to: nothing is fitted here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.images.config import INLIER, label_and_path
from experiments.images.outcome import about, rates
from experiments.progress import OpenProgress
from quantjax import data, detector
from quantjax.data.sources import open_source
from quantjax.methods import Fitted
from quantjax.report import MethodScores


class Set(NamedTuple):
    """N images, ready to be scored."""

    images: Any  # uint8 [N, S, S, 3], or rows that are decoded as they are asked for
    labels: np.ndarray  # int32 [N], NO_LABEL where there are none
    class_names: tuple[str, ...]
    seconds: float


class Judged(NamedTuple):
    """What a detector makes of a set."""

    scores: np.ndarray  # [N], higher = more outlying; NaN counts as infinite
    kept: float  # share at or below the threshold, percent
    accuracy: float | None  # percent, None without labels of the detector's classes
    seconds: float
    nan: int


class Result(NamedTuple):
    """What is written and drawn."""

    results: dict[str, Any]
    scores: dict[str, MethodScores]
    warnings: list[str]


def judge_sets(
    fitted: detector.Detector,
    inlier: str,
    outliers: Sequence[str],
    *,
    data_dir: Path | None,
    held_out: bool,
    batch_size: int,
    progress: OpenProgress,
) -> Result:
    """Score the inlier set and every outlier set, given by name or [NAME=]path, and say what the threshold keeps.

    held_out takes the 20 % of a set of one's own that a run with it tests on. Raises as `open_source` and `data.load`
    do, and ValueError when a set is named twice or an outlier set holds inliers alone.
    """
    names = _names(inlier, outliers)
    sets = {
        label: _opened(fitted, label, path, data_dir, held_out and label == INLIER, progress)
        for label, path in names.items()
    }
    for label, one in sets.items():
        if label != INLIER and data.same_source(sets[INLIER].images, one.images):
            raise ValueError(f"--outliers {label} holds images of --inlier {inlier} only: name another set")
    run = detector.predictor(fitted, batch_size=batch_size)
    begun = time.perf_counter()
    run.predict(sets[INLIER].images[:batch_size])
    compiling = time.perf_counter() - begun
    judged = {label: _judged(run.predict, fitted, label, one, progress) for label, one in sets.items()}
    known, found = judged.pop(INLIER), judged
    rows = [_row(fitted, label, known, one, (sets[INLIER], sets[label]), compiling) for label, one in found.items()]
    stored = dict(fitted.calibration)
    calibration = {"source": "inliers of its own", "n": 0, "promised_tpr": None} | stored
    results = {
        "rows": rows,
        "outliers": list(found),
        "accuracy": known.accuracy,
        "calibration": calibration
        | {
            "threshold": fitted.threshold,
            "achieved_tpr": known.kept,
            "achieved_on": f"{len(known.scores):,} images of {inlier}",
            "achieved_when_set": stored.get("achieved_tpr"),
        },
        "methods": {fitted.score: about(fitted.score, Fitted(dict(fitted.settings), fitted.params))},
    }
    scores = {fitted.score: MethodScores(known.scores, {k: v.scores for k, v in found.items()}, fitted.threshold)}
    counts = {INLIER: known.nan} | {label: one.nan for label, one in found.items()}
    warnings = [
        f"warning: the score of {count:,} images of {label} is NaN, which counts as the most outlying"
        for label, count in counts.items()
        if count
    ]
    return Result(results, scores if found else {}, warnings)


def _names(inlier: str, outliers: Sequence[str]) -> dict[str, str]:
    """What every set is called -> its name or path; the inliers come first."""
    names = {INLIER: label_and_path(inlier)[1]}
    for given in outliers:
        label, path = label_and_path(given)
        if path == names[INLIER]:
            raise ValueError(f"--outliers {label} is the inlier set itself: name another set")
        if label in names or not label:
            raise ValueError(f"--outliers must call each set by a name of its own, got {label!r}: give NAME=/path")
        names[label] = path
    return names


def _opened(
    fitted: detector.Detector, label: str, path: str, data_dir: Path | None, divide: bool, progress: OpenProgress
) -> Set:
    begun = time.perf_counter()
    source = open_source(path, data_dir, "test", divide=divide)
    size, short_side = fitted.image_size, fitted.preprocessing.short_side
    images: Any = data.streamed(source, size, short_side, 0.0)
    if images is not None:
        labels = images.source.labels
    else:
        with progress(f"read {label}") as report:
            images, labels = data.load(source, size, report, short_side)
    return Set(images, labels, tuple(getattr(source, "class_names", ())), time.perf_counter() - begun)


def _judged(
    predict: Callable[..., detector.Prediction],
    fitted: detector.Detector,
    label: str,
    one: Set,
    progress: OpenProgress,
) -> Judged:
    begun = time.perf_counter()
    with progress(f"judge {label}") as report:
        found = predict(one.images, report=report)
    assert found.label is not None
    nan = np.isnan(found.score)
    return Judged(
        scores=np.where(nan, np.float32(np.inf), found.score),
        kept=100.0 * float(np.mean(~found.outlier)),
        accuracy=accuracy(one, fitted.class_names, found.label),
        seconds=time.perf_counter() - begun,
        nan=int(nan.sum()),
    )


def accuracy(one: Set, class_names: Sequence[str], predicted: np.ndarray) -> float | None:
    """Percent of `predicted` [N] that are the labels, by the names of the classes where the set has any.

    None where the set has no labels, or others than the detector's classes.
    """
    names = one.class_names or tuple(map(str, range(len(class_names))))
    if (one.labels < 0).any() or one.labels.max() >= len(names):
        return None
    if one.class_names and not set(names) <= set(class_names):
        return None
    known = list(class_names) if one.class_names else list(names)
    places = np.array([known.index(name) for name in names])
    return 100.0 * float(np.mean(places[one.labels] == predicted))


def _row(
    fitted: detector.Detector, label: str, known: Judged, found: Judged, sets: tuple[Set, Set], compiling: float
) -> dict[str, Any]:
    seconds = {
        "load_seconds": sum(one.seconds for one in sets),
        "compile_seconds": compiling,
        "extract_seconds": 0.0,  # one pass does all
        "fit_seconds": 0.0,
        "score_seconds": known.seconds + found.seconds,
    }
    total = sum(seconds.values())
    images = len(known.scores) + len(found.scores)
    return (
        {"method": fitted.score, "outlier": label}
        | rates(known.scores, found.scores)
        | {"outliers_accepted": found.kept}
        | seconds
        | {"total_seconds": total, "images_per_second": images / total}
    )
