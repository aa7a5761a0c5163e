"""What score maps of a set of scenes are worth: its pixels pooled, connected components, mIoU of the known classes.

Scenes are a sequence of rows.SceneRow: labels 0 inlier, 1 anomaly, 255 ignored; for mIoU 0..K-1. `run` is a Scorer with
its weights bound: image uint8 [H, W, 3] -> {score: [H, W], "prediction": [H, W]}, as make_scorer makes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quantjax import metrics
from quantjax.atomic import naming
from quantjax.metrics.components import ANOMALY_TRACK, MinimumSizes
from quantjax.rows import SceneRow
from quantjax.segmentation.scoring import PREDICTION

EXACT_PIXELS = 60_000_000  # above that, pixels are streamed: sorting takes several bytes a pixel
TRACK_PIXELS = 1280 * 720  # the scenes for which the benchmark chose its sizes; on smaller ones they shrink alike

Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
Maps = Callable[[], Iterator[np.ndarray]]
Report = Callable[[int, int], None]  # (scenes done, scenes in all)
Look = Callable[[int, SceneRow, Mapping[str, np.ndarray]], None]  # (index, scene, its maps)


class SceneRates(NamedTuple):
    """What one score finds in one set; the outlier is the positive class."""

    ap: float
    """Average precision of all labelled pixels, 0..1."""
    fpr95: float
    """Inlier pixels rejected while 95 % of the outlier pixels are found, 0..1."""
    auroc: float
    """0..1"""
    component_f1: float | None
    """Of components at the threshold, mean over the benchmark's overlap levels, 0..1; None where none is large enough
    to be counted."""
    siou: float | None
    """Mean over labelled components, 0..1; None as component_f1."""
    ppv: float | None
    """Mean over predicted components, 0..1; None as component_f1."""
    threshold: float
    """That of the best pixel F1."""
    pixels: str
    """"exact", or "streamed" where the pixels were counted in bins."""


class Evaluated(NamedTuple):
    """What the networks do on one set."""

    rates: dict[str, SceneRates]
    """By the name of the score."""
    seconds: float
    """Of scoring all scenes, compilation and reading left out."""


def evaluate(
    run: Run,
    scenes: Sequence[SceneRow],
    names: Sequence[str],
    folder: Path | None,
    *,
    minimum: MinimumSizes = ANOMALY_TRACK,
    exact: bool | None = None,
    report: Report | None = None,
    look: Look | None = None,
) -> Evaluated:
    """Score every scene, pool the pixels of each score in `names`, then count components at its best threshold.

    Maps wait in the existing `folder` for the threshold that only all of them decide; None only scores, for a process
    beside the one that counts, and gives no rates. `minimum` are the least sizes of
    components, in pixels, of a benchmark; see minimum_sizes. exact sorts all pixels instead of counting them in bins,
    by default up to 60 million. After each scene come look(index, scene, maps) and report(done, total).
    Raises ValueError when a label does not fit its image or the set shows no anomaly.
    """
    labels, seconds = [], 0.0
    run(scenes[0]["image"])  # compiles what depends on the image size
    for i in range(len(scenes)):
        row = scenes[i]
        begun = time.perf_counter()
        maps = run(row["image"])
        seconds += time.perf_counter() - begun
        if folder is None:
            continue
        for name in names:
            file = folder / f"{name}-{i}.npy"
            with naming(file):
                np.save(file, maps[name])
        labels.append(row["label"])
        if look:
            look(i, row, maps)
        if report:
            report(i + 1, len(scenes))

    if folder is None:
        return Evaluated({}, seconds)

    def maps_of(name: str) -> Maps:
        return lambda: (np.load(folder / f"{name}-{i}.npy") for i in range(len(labels)))

    return Evaluated({name: scene_rates(maps_of(name), labels, minimum, exact) for name in names}, seconds)


def scene_rates(
    maps: Maps, labels: Sequence[np.ndarray], minimum: MinimumSizes = ANOMALY_TRACK, exact: bool | None = None
) -> SceneRates:
    """Rates of the maps [H, W] of one score, which `maps` yields anew at each call, one for each of the labels [H, W].

    minimum, exact and errors as in `evaluate`.
    """
    if exact is None:
        exact = sum(label.size for label in labels) <= EXACT_PIXELS
    found = _pixels(maps, labels, exact)
    counts = metrics.components.empty()
    for values, label in zip(maps(), labels, strict=True):
        sizes = minimum_sizes(minimum, label.size)
        counts = metrics.components.add(counts, values, label, found["best_f1_threshold"], sizes)
    parts = metrics.components.result(counts) if len(counts.siou) else dict.fromkeys(("f1", "siou", "ppv"))
    return SceneRates(
        ap=found["ap"],
        fpr95=found["fpr95"],
        auroc=found["auroc"],
        component_f1=parts["f1"],
        siou=parts["siou"],
        ppv=parts["ppv"],
        threshold=found["best_f1_threshold"],
        pixels="exact" if exact else "streamed",
    )


def _pixels(maps: Maps, labels: Sequence[np.ndarray], exact: bool) -> dict[str, float]:
    if exact:
        return metrics.pixel_metrics(
            np.concatenate([m.ravel() for m in maps()]), np.concatenate([label.ravel() for label in labels])
        )
    counts = metrics.pixels.empty()
    for values, label in zip(maps(), labels, strict=True):
        counts = metrics.pixels.add(counts, values, label)
    return metrics.pixels.result(counts)


def minimum_sizes(known: MinimumSizes, pixels: int) -> MinimumSizes:
    """A benchmark's smallest components for a scene of so many pixels: in proportion where its own are larger."""
    share = min(1.0, pixels / TRACK_PIXELS)
    return MinimumSizes(*(max(round(share * size), 1) for size in known))


def mean_iou(run: Run, scenes: Sequence[SceneRow], num_classes: int, report: Report | None = None) -> float:
    """mIoU in 0..1 of the predictions on scenes with labels 0..K-1: one confusion matrix over all, see metrics."""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for i in range(len(scenes)):
        row = scenes[i]
        confusion += metrics.confusion_matrix(run(row["image"])[PREDICTION], row["label"], num_classes)
        if report:
            report(i + 1, len(scenes))
    return metrics.mean_iou(confusion)
