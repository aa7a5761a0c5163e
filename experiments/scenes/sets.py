"""The scenes and objects of a run: inlier scenes to train and test on, objects to paste, evaluation sets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments.progress import Progress
from experiments.scenes.config import MIX, Settings
from quantjax import data
from quantjax.data.mix import PastedScenes
from quantjax.data.objects import open_objects
from quantjax.data.resident import Budget, keep_in_memory
from quantjax.data.scenes import open_scenes

FINGERPRINTED = 8  # scenes
PASTE_SEED = 0  # fixed: an evaluation set is the same in every run
RESIDENT_MB = 2000.0  # of decoded rows that all sets and processes together keep in memory


class Sets(NamedTuple):
    """Random-access sources of the run; K classes."""

    train: Any
    test: Any
    objects: Any
    evaluation: dict[str, Any]  # set -> scenes with labels 0, 1, 255
    class_names: tuple[str, ...]


def open_sets(config: Settings) -> Sets:
    """Open every set of the run and read it as far as no training has to wait: wrong data is an error before that.

    Of the sets to train and test on one row is read, of those to evaluate on every one. Raises FileNotFoundError and
    ValueError as the readers do, and ValueError for an empty set.
    """
    budget = Budget(RESIDENT_MB, processes=1 + config.workers)
    train = keep_in_memory(_scenes(config, config.inlier, "train"), budget)
    test = keep_in_memory(_scenes(config, config.inlier, "test" if config.inlier != "cityscapes" else "val"), budget)
    objects = keep_in_memory(open_objects(config.objects, config.data_dir, "train"), budget)
    evaluation = {}
    for name in config.evaluate:
        if name.endswith(MIX):
            unseen = open_objects(config.objects, config.data_dir, "test")
            evaluation[name] = PastedScenes(test, unseen, PASTE_SEED, share=config.object_share)
        else:
            evaluation[name] = _scenes(config, name, "test")
    for name, source in {"training scenes": train, "test scenes": test, "objects": objects, **evaluation}.items():
        if not len(source):
            raise ValueError(f"{name} must hold at least one row, got none; check --data-dir")
        source[0]
    for name, source in evaluation.items():
        with Progress(f"check {name}") as report:
            for i in range(len(source)):
                source[i]
                report(i + 1, len(source))
    return Sets(train, test, objects, evaluation, tuple(train.class_names))


def _scenes(config: Settings, name: str, split: str) -> Any:
    return open_scenes(name, config.data_dir, split, config.image_height)


def fingerprint(config: Settings, sets: Sets) -> str:
    """Of names, number and a sample of the training scenes: a resumed run must have the same."""
    rows = [sets.train[round(i)] for i in np.linspace(0, len(sets.train) - 1, FINGERPRINTED)]
    arrays = [row[key] for row in rows for key in ("image", "label")]
    return data.fingerprint(np.asarray([config.inlier, str(len(sets.train)), str(len(sets.objects))]), *arrays)
