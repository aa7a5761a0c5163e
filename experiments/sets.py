"""The images of a run: inliers to train, hold out and test on, and the outlier sets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.config import Settings
from experiments.features import Progress
from quantjax.checks import check_labels
from quantjax.data import batches
from quantjax.data.sources import open_source

HELD_OUT_IMAGES = 5000  # of CIFAR's 50,000; a smaller training set holds out the reference's share
HELD_OUT_SHARE = 0.2


class Sets(NamedTuple):
    """N training, M test images of H x W pixels."""

    train_images: np.ndarray  # [N, H, W, 3] uint8
    train_labels: np.ndarray  # [N] int32
    test_images: np.ndarray  # [M, H, W, 3] uint8
    test_labels: np.ndarray  # [M] int32
    outliers: dict[str, np.ndarray]  # name -> [., H, W, 3] uint8
    num_classes: int
    load_seconds: dict[str, float]  # "inlier" (test split) and each outlier set


def load_sets(config: Settings, progress: Progress) -> Sets:
    """Read every image set of the run as uint8 arrays.

    Raises ValueError when an outlier set is the inlier set, is empty, or labels are missing; FileNotFoundError names
    the paths looked at and where the set is published.
    """
    size = config.image_size

    def read(name: str, split: str) -> tuple[np.ndarray, np.ndarray, float]:
        start = time.perf_counter()
        source = open_source(path_of(name), config.data_dir, split=split)
        with progress(f"read {label_of(name)}") as report:
            images, labels = batches.load(source, size=size, report=report)
        return images, labels, time.perf_counter() - start

    train_images, train_labels, _ = read(config.inlier, "train")
    test_images, test_labels, seconds = read(config.inlier, "test")
    num_classes = int(train_labels.max()) + 1 if len(train_labels) else 0
    if num_classes < 2:
        raise ValueError(
            f"--inlier {config.inlier} must have at least two labelled classes; give class folders or an .npz"
        )
    check_labels("labels of the inlier test split", test_labels, num_classes)

    outliers, load_seconds = {}, {"inlier": seconds}
    for name in config.outliers:
        label = label_of(name)
        if path_of(name) == path_of(config.inlier):
            raise ValueError(f"--outliers {label} is the inlier set itself: name another set")
        if label in outliers:
            raise ValueError(f"--outliers must name each set once, {label} stands there twice")
        outliers[label], _, load_seconds[label] = read(name, "test")
        if batches.same_source(test_images, outliers[label]):
            raise ValueError(f"--outliers {label} holds images of --inlier {config.inlier} only: name another set")
    if not outliers:
        raise ValueError("--outliers must name at least one set, got none")
    return Sets(train_images, train_labels, test_images, test_labels, outliers, num_classes, load_seconds)


def held_out(config: Settings, rows: int, *, trained_here: bool) -> int:
    """How many of the last training rows stay out of both stages.

    A classifier trained here keeps 5,000 (reference: 20 %) to calibrate on. Foreign weights saw all training images, so
    nothing is gained by it; the reference still fits its flow to the first 80 %.
    """
    if config.preset == "reference":
        return round(rows * HELD_OUT_SHARE)
    if not trained_here:
        return 0
    return min(HELD_OUT_IMAGES, round(rows * HELD_OUT_SHARE))


def label_of(name: str) -> str:
    """The short name of `name` or `label=/path`."""
    return name.split("=", 1)[0]


def path_of(name: str) -> str:
    """What `open_source` opens for `name` or `label=/path`."""
    return str(Path(name.split("=", 1)[1]).expanduser()) if "=" in name else name
