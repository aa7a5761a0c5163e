"""The run's score maps and what they are worth, with progress, examples for the report and percent for its tables."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.hosts import is_first
from experiments.progress import OpenProgress
from experiments.scenes.config import Settings
from experiments.scenes.objectives import scales
from quantjax import segmentation
from quantjax.metrics.components import ANOMALY_TRACK, OBSTACLE_TRACK
from quantjax.report import Example
from quantjax.segmentation import PREDICTION, SCORES, Estimator, SceneRates, Score, Scorer, Segmentor
from quantjax.segmentation.evaluation import Run
from quantjax.types import PyTree

SPILL = "score_maps"
OBSTACLES = ("smiyc_ot", "fs_laf")  # sets of small objects, whose components count from fewer pixels on
SHARES = ("ap", "fpr95", "auroc", "component_f1", "siou", "ppv")
SHOWN, DRAWN = 6, ("id", "ood", "lr")  # scenes of each set, and their maps, in the report


class Evaluated(NamedTuple):
    """What the networks do on one evaluation set."""

    rows: list[dict[str, Any]]
    """One per method, rates in percent."""
    scenes: list[Example]
    """A few of them, with their score maps."""


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


def mean_iou(run: Run, scenes: Any, classes: int, progress: OpenProgress) -> float:
    """mIoU in percent on inlier scenes, see segmentation.mean_iou."""
    with progress("segment inlier scenes") as report:
        return 100.0 * segmentation.mean_iou(run, scenes, classes, report)


def evaluate(
    config: Settings,
    name: str,
    run: Run,
    scenes: Any,
    progress: OpenProgress,
    *,
    folder: Path,
    variant: str,
    names: Sequence[str],
) -> Evaluated:
    """Every method of `names` on the set `name`, see segmentation.evaluate; score maps wait in the run's `folder`."""
    shown, examples = {round(i) for i in np.linspace(0, len(scenes) - 1, SHOWN)}, []

    def look(index: int, row: Any, maps: Mapping[str, np.ndarray]) -> None:
        if index in shown:
            drawn = {method: maps[method] for method in names if method in DRAWN or config.untrained}
            classes = None if config.untrained else maps[PREDICTION]
            examples.append(Example(row["name"], row["image"], row["label"], drawn, classes))

    minimum = OBSTACLE_TRACK if name in OBSTACLES else ANOMALY_TRACK
    with spill_folder(folder) if is_first() else nullcontext() as spill, progress(f"score {name}") as report:
        found = segmentation.evaluate(
            run, scenes, names, spill, minimum=minimum, exact=config.exact, report=report, look=look
        )
    if spill is None:
        return Evaluated([], [])
    speed = {"score_seconds": found.seconds, "images_per_second": len(scenes) / found.seconds}
    rows = [
        {"variant": variant, "method": method, "dataset": name, **in_percent(found.rates[method]), **speed}
        for method in names
    ]
    return Evaluated(rows, examples)


def in_percent(rates: SceneRates) -> dict[str, Any]:
    """The rates as results.json holds them."""
    shares = {key: getattr(rates, key) for key in SHARES}
    return {
        **{key: None if share is None else 100.0 * share for key, share in shares.items()},
        "threshold": rates.threshold,
        "pixels": rates.pixels,
    }


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
    if is_first():
        shutil.rmtree(folder / SPILL, ignore_errors=True)
