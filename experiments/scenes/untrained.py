"""The variants that train nothing: a method on the patches of a frozen backbone, fitted to a few inlier scenes."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.hosts import is_first
from experiments.progress import OpenProgress
from experiments.scenes import calibration, evaluation, storage
from experiments.scenes.config import Settings
from experiments.scenes.sets import Sets
from quantjax import detector
from quantjax.detector import PatchDetector
from quantjax.extractors import FEATURE_BACKBONES
from quantjax.types import PyTree

# variant -> (method, settings that differ from its defaults): each patch counts, as there are few scenes
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "patches": ("knn", {"k": 5, "step": 1}),
    "residual": ("pca_residual", {"share": 0.8}),
    "gaussian": ("mahalanobis_pp", {}),
    "flow": ("quantod_pp", {}),
}


class Untrained(NamedTuple):
    """What the run found."""

    rows: list[dict[str, Any]]
    """One per evaluation set, rates in percent."""
    scenes: dict[str, Any]
    """Examples for the report, by set."""
    calibration: dict[str, Any]
    """The threshold and where it comes from, rates in percent."""
    parameters: dict[str, int]
    """Pretrained ones, and the numbers that the method keeps."""
    seconds: float
    """Of the fit."""


def carry_out(config: Settings, sets: Sets, folder: Path, progress: OpenProgress) -> Untrained:
    """Fit, evaluate, calibrate; the detector is left in the run's folder."""
    begun = time.perf_counter()
    fitted = fit(config, sets.train, progress)
    seconds = time.perf_counter() - begun
    run = detector.scene_maps(fitted, batch_size=config.window_batch)
    evaluated = {
        name: evaluation.evaluate(
            config, name, run, scenes, progress, folder=folder, variant=config.variant, names=(fitted.score,)
        )
        for name, scenes in sets.evaluation.items()
    }
    fitted = calibration.calibrated(fitted, sets.test, config.window_batch, progress)
    if is_first():
        detector.save(fitted, folder / "detector")
    return Untrained(
        rows=[row | {"fit_seconds": seconds} for one in evaluated.values() for row in one.rows],
        scenes={name: one.scenes for name, one in evaluated.items()},
        calibration={**fitted.calibration, "threshold": fitted.threshold},
        parameters=parameters(fitted),
        seconds=seconds,
    )


def fit(config: Settings, train: Any, progress: OpenProgress) -> PatchDetector:
    """The variant's method on the patches of --reference-scenes scenes, evenly spread over the training scenes."""
    name, own = METHODS[config.variant]
    variables, overrides = weights(config)
    with progress(f"fit {name} to patches") as report:
        return detector.fit_patches(
            name,
            config.backbone,
            spread(train, config.reference_scenes),
            variables=variables,
            overrides=overrides,
            preprocessing=storage.read_preprocessing(config),
            maps=config.maps,
            scales=config.scales,
            settings=own,
            labelled=config.per_class,
            image_height=config.image_height,
            window=config.window,
            stride=config.stride,
            precision=config.precision,
            batch_size=config.window_batch,
            report=report,
        )


def spread(source: Any, count: int) -> list[Any]:
    """At most `count` rows of a source, evenly spread."""
    places = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
    return [source[int(place)] for place in places]


def weights(config: Settings) -> tuple[PyTree, dict[str, Any]]:
    """(variables, overrides) of the backbone: published, those of --segmentor, or random ones of a scratch backbone."""
    if config.segmentor is not None:
        return storage.load_backbone(config.segmentor, config.backbone)
    pretrained, overrides = storage.read_pretrained(config)
    if pretrained is not None:
        return pretrained, overrides
    known = FEATURE_BACKBONES[config.backbone]
    side = 4 * known.stride
    start = partial(jax.jit(known.build(**overrides).init), jax.random.key(config.seed))
    return start(np.zeros((1, side, side, 3), np.float32)), overrides


def parameters(fitted: PatchDetector) -> dict[str, int]:
    """Numbers in the backbone's arrays and in what the method keeps."""
    parts = {"backbone": _count(fitted.variables), "patches": _count(fitted.params)}
    return parts | {"total": sum(parts.values())}


def _count(tree: PyTree) -> int:
    return int(sum(np.size(leaf) for leaf in jax.tree.leaves(tree)))
