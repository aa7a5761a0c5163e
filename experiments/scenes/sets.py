"""The scenes and objects of a run: inlier scenes to train and test on, objects to paste, evaluation sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.progress import Progress
from experiments.scenes.config import MIX, Settings
from quantjax import data
from quantjax.data import scenes
from quantjax.data.content import digest
from quantjax.data.loader import check_rows
from quantjax.data.mix import PastedScenes
from quantjax.data.objects import BUNDLED, open_objects
from quantjax.data.resident import Budget, keep_in_memory

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
    content: Mapping[str, str] = {}
    """What stands in a run's identity for the images, labels and masks of all of them"""


def open_sets(config: Settings) -> Sets:
    """Open every set of the run; their files are hashed, not decoded.

    Raises FileNotFoundError and ValueError as the readers do.
    """
    train = _scenes(config, config.inlier, "train")
    test = _scenes(config, config.inlier, "test" if config.inlier != "cityscapes" else "val")
    objects = {split: open_objects(config.objects, config.data_dir, split) for split in _parts_of_objects(config)}
    published = {name: _scenes(config, name, "test") for name in config.evaluation_sets if not name.endswith(MIX)}
    content = {
        "inlier_content": digest(train, test),
        "objects_content": digest(*objects.values()),
        "evaluation_content": digest(*published.values()),
    }
    budget = Budget(RESIDENT_MB, processes=1 + config.workers)
    kept_train, kept_test, pasted = (
        keep_in_memory(source, budget) for source in (train, test, objects.get("train", ()))
    )
    evaluation = {
        name: published[name]
        if name in published
        else PastedScenes(kept_test, objects["test"], PASTE_SEED, share=config.object_share)
        for name in config.evaluation_sets
    }
    return Sets(kept_train, kept_test, pasted, evaluation, tuple(train.class_names), content)


def check_sets(config: Settings, sets: Sets) -> None:
    """Read every row of the sets that lie in files: wrong data is an error before training.

    A mix for evaluation meets every object and scene that it will show; training leaves a scene alone that an object
    does not fit into. Raises FileNotFoundError and ValueError as the readers do, and ValueError for an empty set.
    """
    objects = {} if config.untrained else {"objects": sets.objects}
    opened = {"training scenes": sets.train, "test scenes": sets.test, **objects, **sets.evaluation}
    for name, source in opened.items():
        if not len(source):
            raise ValueError(f"{name} must hold at least one row, got none; check --data-dir")
    rendered = ({"training scenes", "test scenes"} if config.inlier == scenes.BUNDLED else set()) | (
        {"objects"} if config.objects == BUNDLED else set()
    )
    for name, source in opened.items():
        if name not in rendered:
            with Progress(f"check {name}") as report:
                check_rows(source, report)


def _parts_of_objects(config: Settings) -> tuple[str, ...]:
    """The splits that the run reads: unseen objects only where they are pasted, others only for training."""
    unseen = ("test",) if any(name.endswith(MIX) for name in config.evaluation_sets) else ()
    return unseen if config.untrained else ("train", *unseen)


def _scenes(config: Settings, name: str, split: str) -> Any:
    return scenes.open_scenes(name, config.data_dir, split, config.image_height)


def fingerprint(config: Settings, sets: Sets) -> str:
    """Of names, number and a sample of the training scenes: a resumed run must have the same."""
    rows = [sets.train[round(i)] for i in np.linspace(0, len(sets.train) - 1, FINGERPRINTED)]
    arrays = [row[key] for row in rows for key in ("image", "label")]
    return data.fingerprint(np.asarray([config.inlier, str(len(sets.train)), str(len(sets.objects))]), *arrays)
