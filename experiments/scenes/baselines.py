"""Table 4: the segmentor's last layer fine-tuned on pasted objects with PEBAL's or RbA's loss, for comparison."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from experiments.progress import OpenProgress
from experiments.scenes import evaluation, stages
from experiments.scenes.config import Settings
from experiments.scenes.sets import Sets
from quantjax import segmentation
from quantjax.segmentation import FINE_TUNINGS, Scorer, Segmentor
from quantjax.types import Array, PyTree


def fine_tune(
    config: Settings,
    name: str,
    network: Segmentor,
    segmentor: PyTree,
    sets: Sets,
    key: Array,
    folder: Path,
    progress: OpenProgress,
) -> tuple[Segmentor, PyTree]:
    """The segmentor with its last layer trained for as many steps as stage 2, on the same crops."""
    train = partial(
        segmentation.fine_tune, network, segmentor, tuning=FINE_TUNINGS[name], num_classes=len(sets.class_names),
        key=key, hue=config.hue,
    )  # fmt: skip
    tuned, _ = stages.watched(
        config, name, config.estimator_steps, train, stages.crops(config, sets, sets.objects), folder, progress
    )
    return tuned


def make_scorer(config: Settings, name: str, network: Segmentor, num_classes: int) -> Scorer:
    """run((segmentor variables, ()), image uint8 [H, W, 3]) -> {name: [H, W] float32, prediction}."""
    chosen = {name: FINE_TUNINGS[name].score}
    return segmentation.make_scorer(network, None, chosen, num_classes=num_classes, **evaluation.sizes(config))
