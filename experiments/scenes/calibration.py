"""The detector that a run leaves behind, with a threshold set on inlier scenes without pasted objects."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np

from experiments.progress import OpenProgress
from experiments.scenes import networks
from experiments.scenes.config import Settings
from experiments.scenes.objectives import scales
from quantjax import detector
from quantjax.segmentation import UNKNOWN_CLASSES, Estimator, Segmentor
from quantjax.types import PyTree

Fitted = TypeVar("Fitted", detector.SceneDetector, detector.PatchDetector)
KEPT = 0.99  # share of labelled inlier pixels that the threshold leaves unmarked


def build(
    config: Settings,
    network: Segmentor,
    estimator: Estimator,
    variables: tuple[PyTree, PyTree],
    class_names: tuple[str, ...],
    overrides: dict[str, Any],
) -> detector.SceneDetector:
    """The detector of (segmentor, estimator) variables by the score of --detector; its threshold is still to be set."""
    assert config.window is not None
    assert config.stride is not None
    inlier_scale, unknown_scale = scales(config, variables[0])
    segmentor = {name: part for name, part in variables[0].items() if name != "standardisation"}
    return detector.SceneDetector(
        backbone=config.backbone,
        overrides=overrides,
        channels=network.decoder.channels,
        token_hidden=network.decoder.token_hidden,
        projector=tuple(estimator.projector.widths),
        inlier_head=networks.mixture(config, config.variant[0], len(class_names)),
        unknown_head=networks.mixture(config, config.variant[-1], UNKNOWN_CLASSES, networks.ESTIMATOR_UPDATE),
        variables=jax.tree.map(np.asarray, {"segmentor": segmentor, "estimator": variables[1]}),
        preprocessing=network.preprocessing,
        class_names=class_names,
        window=config.window,
        stride=config.stride,
        threshold=0.0,
        calibration={},
        logits_scale=inlier_scale,
        unknown_scale=unknown_scale,
        precision=config.precision,
        image_height=config.image_height,
        score=config.detector,
    )


def calibrated(fitted: Fitted, scenes: Any, window_batch: int, progress: OpenProgress) -> Fitted:
    """The detector with the threshold that KEPT of the inlier scenes' labelled pixels stay under."""
    with progress("calibrate on inlier scenes") as report:
        return detector.calibrate(
            fitted, scenes, KEPT, source="inlier test scenes", report=report, batch_size=window_batch
        )
