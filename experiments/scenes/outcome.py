"""What a run of `experiments.uem` concludes: counts, times, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import settings
from experiments.hosts import is_first
from experiments.progress import OpenProgress
from experiments.scenes import calibration
from experiments.scenes.config import Settings
from experiments.scenes.sets import Sets
from experiments.scenes.stages import Stage
from quantjax import detector
from quantjax.extractors import SCRATCH
from quantjax.report import Example, write_scenes
from quantjax.segmentation import Estimator, Segmentor
from quantjax.types import PyTree


def note(config: Settings) -> str:
    """What kind of run this is, in a sentence."""
    if config.untrained:
        return _untrained_note(config)
    stage1 = "a given segmentor" if config.segmentor else f"{config.steps:,} steps"
    what = (
        f"{config.backbone}, variant {config.variant.upper()}, preset {config.preset}: {stage1} for the segmentor, "
        f"{config.estimator_steps:,} for the unknown estimation module."
    )
    if config.inlier == "streets":
        return (
            "This is the bundled demonstration, on rendered street scenes and a small transformer trained from "
            f"scratch. {what} The paper's experiment is `python -m experiments.uem --inlier cityscapes --objects coco "
            "--evaluate road_anomaly,fs_laf --data-dir DATA --backbone-weights "
            "hf:facebook/dinov2-with-registers-base`."
        )
    if config.backbone in SCRATCH:
        return f"{what} The backbone was trained from scratch: far under what pretrained DINOv2 weights give."
    return what


def _untrained_note(config: Settings) -> str:
    maps = "the last quarter of its blocks" if config.maps is None else ", ".join(config.maps)
    what = (
        f"{config.backbone}, variant {config.variant}, nothing trained: patches of {config.reference_scenes} inlier "
        f"scenes, from {maps}."
    )
    if config.backbone not in SCRATCH:
        return what
    if config.segmentor is not None:
        return f"{what} The backbone is that of a segmentor trained on the inlier scenes."
    return f"{what} The backbone's weights are random: give published ones, or --segmentor of a finished run."


def sizes(sets: Sets) -> str:
    """The number of scenes and objects of every set."""
    evaluation = ", ".join(f"{name} {len(scenes):,}" for name, scenes in sets.evaluation.items()) or "none"
    return (
        f"inlier scenes: {len(sets.train):,} to train, {len(sets.test):,} to test, {len(sets.class_names)} classes; "
        f"objects to paste: {len(sets.objects):,}; evaluation: {evaluation}"
    )


def parameters(segmentor: PyTree, estimator: PyTree) -> dict[str, int]:
    """Trained and pretrained parameters of each part; statistics and mixtures are not counted."""

    def count(tree: PyTree) -> int:
        return int(sum(np.size(leaf) for leaf in jax.tree.leaves(tree)))

    parts = {
        "backbone": count(segmentor["backbone"]["params"]),
        "decoder": count(segmentor["decoder"]["params"]),
        "head": count(segmentor["head"]["params"]),
        "estimator": count(estimator["projector"]) + count(estimator["head"]["params"]),
    }
    return parts | {"total": sum(parts.values())}


def stages(first: Stage | None, second: Stage) -> dict[str, dict[str, float]]:
    """Seconds, share of the time spent waiting for crops, and share of a mixture's memory never written, per stage."""
    found = {}
    for name, stage in (("segmentor", first), ("estimator", second)):
        if stage is not None:
            found[name] = {"seconds": stage.seconds, "input_bound_percent": 100.0 * stage.input_bound}
            if stage.noise is not None:
                found[name]["memory_never_written_percent"] = 100.0 * stage.noise
    return found


def public(identity: Mapping[str, Any], config: Settings) -> dict[str, Any]:
    """The settings as results.json shows them: folders by name, files by name and content."""
    shown = dict(identity) | {"objects": Path(config.objects).name}
    if config.backbone_weights and not config.backbone_weights.startswith("hf:"):
        shown["backbone_weights"] = f"{Path(config.backbone_weights).name} {identity['backbone_weights']}"
    return shown


def doubted(config: Settings, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The warning that belongs to the detector of --detector, None when nothing speaks against it."""
    own = [row for row in rows if row["variant"] == config.variant]
    if config.untrained:
        names = dict.fromkeys(row["method"] for row in own)
        return next(filter(None, (_doubted(name, own) for name in names)), None)
    return _doubted(config.detector, own)


def _doubted(detector: str, own: Sequence[Mapping[str, Any]]) -> str | None:
    names = dict.fromkeys(row["method"] for row in own)
    return settings.doubted(
        detector,
        {name: float(np.mean([row["auroc"] for row in own if row["method"] == name])) / 100.0 for name in names},
    )


def save_detector(
    folder: Path,
    config: Settings,
    network: Segmentor,
    estimator: Estimator,
    variables: tuple[PyTree, PyTree],
    overrides: dict[str, Any],
    sets: Sets,
    progress: OpenProgress,
) -> dict[str, Any]:
    """Calibrate the detector of (segmentor, estimator) variables and leave it for `experiments.predict`.

    Returns the threshold and where it comes from, rates in percent.
    """
    fitted = calibration.build(config, network, estimator, variables, sets.class_names, overrides)
    fitted = calibration.calibrated(fitted, sets.test, config.window_batch, progress)
    if is_first():
        detector.save(fitted, folder)
    return {**fitted.calibration, "threshold": fitted.threshold}


def write(
    folder: Path,
    results: Mapping[str, Any],
    scenes: Mapping[str, Sequence[Example]],
    class_names: Sequence[str],
) -> None:
    """results.json, results.md and report.html."""
    write_scenes(folder, results, scenes=scenes, class_names=class_names)
