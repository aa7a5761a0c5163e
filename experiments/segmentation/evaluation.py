"""Score maps over sliding windows, and what they are worth: pixel and component metrics, mIoU."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.features import Progress
from experiments.segmentation.config import Settings
from experiments.segmentation.objectives import scales
from quantjax import metrics, segmentation
from quantjax.report import Example
from quantjax.segmentation import PREDICTION, SCORES, Estimator, Score, Scorer, Segmentor
from quantjax.types import PyTree

SPILL = "score_maps"
EXACT_PIXELS = 60_000_000  # above that, pixels are streamed: sorting takes several bytes a pixel
OBSTACLES = ("smiyc_ot", "fs_laf")  # sets of small objects, whose components count from fewer pixels on
TRACK_PIXELS = 1280 * 720  # the scenes for which the benchmark chose its sizes; on smaller ones they shrink alike
SHOWN, DRAWN = 6, ("id", "ood", "lr")  # scenes of each set, and their maps, in the report


class Evaluated(NamedTuple):
    """What the networks do on one evaluation set."""

    rows: list[dict[str, Any]]  # one per method, rates in percent
    scenes: list[Example]  # a few of them, with their score maps


def make_scorer(
    config: Settings, network: Segmentor, estimator: Estimator, segmentor: PyTree, devices: Any = None
) -> Scorer:
    """run((segmentor variables, estimator variables), image uint8 [H, W, 3]) -> {method: [H, W], prediction}."""
    chosen: dict[str, Score] = {name: SCORES[name] for name in config.methods}
    return segmentation.make_scorer(
        network, estimator, chosen, scales=scales(config, segmentor), devices=devices, **sizes(config)
    )


def sizes(config: Settings) -> dict[str, Any]:
    """Windows as the settings name them."""
    return {"window": config.window, "stride": config.stride, "batch_size": config.window_batch}


def mean_iou(score: Callable[[Any], dict[str, np.ndarray]], scenes: Any, classes: int, progress: Progress) -> float:
    """mIoU in percent of the averaged logits' predictions on inlier scenes, one confusion matrix over all."""
    confusion = np.zeros((classes, classes), np.int64)
    with progress("segment inlier scenes") as report:
        for i in range(len(scenes)):
            row = scenes[i]
            confusion += metrics.confusion_matrix(score(row["image"])[PREDICTION], row["label"], classes)
            report(i + 1, len(scenes))
    return 100.0 * metrics.mean_iou(confusion)


def evaluate(
    config: Settings,
    name: str,
    score: Callable[[Any], dict[str, np.ndarray]],
    scenes: Any,
    progress: Progress,
    *,
    folder: Path,
    variant: str,
    names: Sequence[str],
) -> Evaluated:
    """Score every scene with every method of `names`, pool the pixels, then count components at the best threshold.

    Score maps wait on disk, in the run's `folder`, for the threshold that only all of them decide.
    Raises ValueError when a label does not fit its image or the set shows no anomaly.
    """
    shown = {round(i) for i in np.linspace(0, len(scenes) - 1, SHOWN)}
    pictures, labels, seconds = [], [], 0.0
    score(scenes[0]["image"])  # compiles what depends on the image size
    with spill_folder(folder) as spill, progress(f"score {name}") as report:
        for i in range(len(scenes)):
            row = scenes[i]
            begun = time.perf_counter()
            maps = score(row["image"])
            seconds += time.perf_counter() - begun
            for method in names:
                np.save(spill / f"{method}-{i}.npy", maps[method])
            labels.append(row["label"])
            if i in shown:
                drawn = {method: maps[method] for method in names if method in DRAWN}
                pictures.append(Example(row["name"], row["image"], row["label"], drawn, maps[PREDICTION]))
            report(i + 1, len(scenes))
        rates = {method: _rates(config, name, method, labels, spill) for method in names}
    speed = {"score_seconds": seconds, "images_per_second": len(scenes) / seconds}
    rows = [{"variant": variant, "method": method, "dataset": name, **rates[method], **speed} for method in names]
    return Evaluated(rows, pictures)


@contextmanager
def spill_folder(folder: Path) -> Iterator[Path]:
    """A place for score maps inside a run's folder, empty at first and gone afterwards."""
    clean(folder)
    (folder / SPILL).mkdir()
    try:
        yield folder / SPILL
    finally:
        clean(folder)


def clean(folder: Path) -> None:
    """Remove the score maps that a killed run left in its folder."""
    shutil.rmtree(folder / SPILL, ignore_errors=True)


def _rates(config: Settings, name: str, method: str, labels: list[np.ndarray], spill: Path) -> dict[str, Any]:
    def maps() -> Iterator[np.ndarray]:
        return (np.load(spill / f"{method}-{i}.npy") for i in range(len(labels)))

    total = sum(label.size for label in labels)
    exact = total <= EXACT_PIXELS if config.exact is None else config.exact
    if exact:
        found = metrics.pixel_metrics(
            np.concatenate([m.ravel() for m in maps()]), np.concatenate([label.ravel() for label in labels])
        )
    else:
        counts = metrics.pixels.empty()
        for values, label in zip(maps(), labels, strict=True):
            counts = metrics.pixels.add(counts, values, label)
        found = metrics.pixels.result(counts)
    components = metrics.components.empty()
    for values, label in zip(maps(), labels, strict=True):
        minimum = minimum_sizes(name, label.size)
        components = metrics.components.add(components, values, label, found["best_f1_threshold"], minimum)
    return {
        **{key: 100.0 * found[key] for key in ("ap", "fpr95", "auroc")},
        **_component_rates(components),
        "threshold": found["best_f1_threshold"],
        "pixels": "exact" if exact else "streamed",
    }


def _component_rates(counts: metrics.ComponentCounts) -> dict[str, float | None]:
    """In percent; None where no anomaly of the set is large enough to be counted."""
    found = metrics.components.result(counts) if len(counts.siou) else {}
    named = {"component_f1": "f1", "siou": "siou", "ppv": "ppv"}
    return {name: 100.0 * found[key] if found else None for name, key in named.items()}


def minimum_sizes(name: str, pixels: int) -> metrics.components.MinimumSizes:
    """The benchmark's smallest components, in proportion on scenes smaller than the benchmark's."""
    known = metrics.components.OBSTACLE_TRACK if name in OBSTACLES else metrics.components.ANOMALY_TRACK
    share = min(1.0, pixels / TRACK_PIXELS)
    return metrics.components.MinimumSizes(*(max(round(share * size), 1) for size in known))
