"""The detector that a run leaves behind, with a threshold set on inlier scenes without pasted objects."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.images.outcome import CALIBRATION_SEED
from experiments.progress import OpenProgress
from experiments.scenes import networks
from experiments.scenes.config import Settings
from experiments.scenes.objectives import scales
from quantjax import data, detector, metrics
from quantjax.rows import IGNORED
from quantjax.segmentation import UNKNOWN_CLASSES, Estimator, Segmentor
from quantjax.types import PyTree

KEPT = 0.99  # share of labelled inlier pixels that the threshold leaves unmarked
SCENES, PIXELS = 200, 20_000  # at most so many scenes, and drawn pixels of each: a bound on time and memory


def build(
    config: Settings,
    network: Segmentor,
    estimator: Estimator,
    variables: tuple[PyTree, PyTree],
    class_names: tuple[str, ...],
    overrides: dict[str, Any],
) -> detector.SceneDetector:
    """The detector of (segmentor, estimator) variables by likelihood ratio; its threshold is still to be set."""
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
    )


def calibrated(
    fitted: detector.SceneDetector, scenes: Any, window_batch: int, progress: OpenProgress
) -> detector.SceneDetector:
    """The detector with the threshold that KEPT of the labelled pixels of half of the inlier scenes stay under.

    What it keeps is measured on the other half; a single scene is judged by itself. Rates are in percent.
    """
    shown = np.unique(np.linspace(0, len(scenes) - 1, min(len(scenes), SCENES)).round().astype(int))
    score = detector.predictor(fitted, batch_size=window_batch).score
    drawn = []
    with progress("calibrate on inlier scenes") as report:
        for done, i in enumerate(shown):
            row = scenes[int(i)]
            values = score(row["image"])[row["label"] != IGNORED]
            if len(values) > PIXELS:
                values = np.random.default_rng([CALIBRATION_SEED, int(i)]).choice(values, PIXELS, replace=False)
            drawn.append(values)
            report(done + 1, len(shown))
    half, other = data.half_split(len(shown), CALIBRATION_SEED) if len(shown) > 1 else ([0], [0])
    found = metrics.calibrate(
        np.concatenate([drawn[i] for i in half]),
        source=f"labelled pixels of {len(half)} inlier test scenes, at most {PIXELS:,} of each",
        tpr=KEPT,
        check_scores=np.concatenate([drawn[i] for i in other]),
    )
    return fitted._replace(threshold=found.threshold, calibration=detector.in_percent(found))
