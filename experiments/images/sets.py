"""The images of a run: inliers to train, hold out and test on, and the outlier sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import hosts
from experiments.images.config import HELD_OUT, INLIER, TRAINING, QuantOD, Settings, label_and_path
from experiments.progress import OpenProgress
from quantjax import data, methods
from quantjax.bundled import images as bundled
from quantjax.checks import check_labels
from quantjax.data.class_order import by_number
from quantjax.data.content import digest
from quantjax.data.openood import CUT_ALREADY, Lists, find_lists
from quantjax.data.readers import FileSource
from quantjax.data.sources import KNOWN, open_source
from quantjax.data.streamed import megabytes

HELD_OUT_IMAGES = 5000  # of CIFAR's 50,000; a smaller training set holds out the reference's share
HELD_OUT_SHARE = 0.2
AUXILIARY = "auxiliary"  # in a split's place: training images where the set has any


class Labelled(NamedTuple):
    """Images with their classes."""

    images: Any  # [., H, W, 3] uint8
    labels: np.ndarray  # [.] int32


class Sets(NamedTuple):
    """N training, M test images of H x W pixels, K classes; images too many for memory are data.StreamedImages."""

    train_images: Any  # [N, H, W, 3] uint8
    train_labels: np.ndarray  # [N] int32
    test_images: Any  # [M, H, W, 3] uint8
    test_labels: np.ndarray  # [M] int32
    outliers: dict[str, Any]  # name -> [., H, W, 3] uint8
    class_names: tuple[str, ...]  # [K]
    load_seconds: dict[str, float]  # INLIER (test split) and each outlier set
    auxiliary: Any = None  # [., H, W, 3] uint8, outliers to train with
    validation_images: Any = None  # [V, H, W, 3] uint8, inliers of a benchmark to calibrate on
    shifted: Mapping[str, Labelled] = {}  # name -> inliers of another look, of the full spectrum


class Opened(NamedTuple):
    """A source that is open, its images not decoded yet."""

    source: Any
    seconds: float


class _Loaded(NamedTuple):
    images: Any
    labels: np.ndarray
    class_names: tuple[str, ...]
    seconds: float


def open_sources(config: Settings) -> dict[tuple[str, str], Opened]:
    """Every set of the run by (name, split); raises ValueError and FileNotFoundError as `open_source` does."""
    lists = lists_of(config)
    if lists is not None:
        found = {key: _timed(partial(lists.open, *key, config.data_dir)) for key in lists.files}
    else:
        found = _named_sources(config)
    if config.auxiliary is not None:
        found[config.auxiliary, AUXILIARY] = _timed(
            partial(_open_auxiliary, path_of(config.auxiliary), config.data_dir)
        )
    return found


def _named_sources(config: Settings) -> dict[tuple[str, str], Opened]:
    """The inlier and the outlier sets that the flags name."""

    def opened(name: str, split: str) -> Opened:
        return _timed(partial(open_source, path_of(name), config.data_dir, split, divide=name == config.inlier))

    found = {(config.inlier, split): opened(config.inlier, split) for split in ("train", "test")}
    _check_classes(config.inlier, *(_names(one.source) for one in found.values()))
    missing = [(name, "test") for name in dict.fromkeys(config.outlier_sets) if (name, "test") not in found]
    return found | {key: opened(*key) for key in missing}


def _open_auxiliary(name: str, data_dir: Path | None) -> Any:
    try:
        return open_source(name, data_dir, "train")
    except ValueError:  # a set without splits
        return open_source(name, data_dir, "test")


def _timed(open_it: Callable[[], Any]) -> Opened:
    start = time.perf_counter()
    return Opened(open_it(), time.perf_counter() - start)


def lists_of(config: Settings) -> Lists | None:
    """The lists of the benchmark that --protocol openood runs; None of another protocol."""
    if config.protocol != "openood":
        return None
    assert config.image_lists is not None  # config.resolve saw to it
    return find_lists(config.image_lists, full_spectrum=config.full_spectrum)


def _names(source: Any) -> tuple[str, ...]:
    return tuple(getattr(source, "class_names", ()))


def absent(config: QuantOD) -> dict[str, str]:
    """Which outlier sets that the flags name are not there, and what is said of each."""
    found = {}
    for name in config.outliers or ():
        try:
            open_source(path_of(name), config.data_dir, "test")
        except FileNotFoundError as error:
            found[label_of(name)] = str(error)
    return found


def content(config: Settings, sources: Mapping[tuple[str, str], Opened]) -> dict[str, str]:
    """What stands for all images and labels in a run's identity: digests of the inlier and of the outlier sets.

    Outliers to train with have one of their own, where there are any.
    """
    inliers = [sources[config.inlier, split].source for split in ("train", "test")]
    outliers = [sources[name, "test"].source for name in config.outlier_sets]
    found = {"inlier_content": digest(*inliers), "outliers_content": digest(*outliers)}
    if config.auxiliary is not None:
        found["auxiliary_content"] = digest(sources[config.auxiliary, AUXILIARY].source)
    lists = lists_of(config)
    if lists is not None:
        others = [(config.inlier, "val"), *((name, "test") for name in lists.shifted)]
        found["lists_content"] = digest(*(sources[key].source for key in others))
    return found


def load_sets(
    config: Settings, progress: OpenProgress, sources: Mapping[tuple[str, str], Opened] | None = None
) -> Sets:
    """Read every image set of the run, opened before or here, as uint8 arrays.

    Raises ValueError when an outlier set is the inlier set or trained with, is empty, or labels are missing or do not
    match between the splits; FileNotFoundError names the paths looked at and where the set is published.
    """
    sources = open_sources(config) if sources is None else sources

    def read(name: str, split: str) -> _Loaded:
        source, opening = sources[name, split]
        short_side = None if config.protocol == "openood" and name in CUT_ALREADY else config.short_side
        start = time.perf_counter() - opening
        images = data.streamed(source, config.image_size, short_side, config.resident_mb)
        if images is not None:
            labels = source.labels
            hosts.check_same("the images", {"fingerprint": images.fingerprint}, hosts.REMEDY)
            print(f"{label_of(name)}: {len(images):,} images, decoded by every pass over them", flush=True)
        else:
            with progress(f"read {label_of(name)}") as report:
                images, labels = hosts.load(
                    partial(data.load, size=config.image_size, short_side=short_side, report=report), source
                )
        names = _names(source)
        if config.class_order == "numbers" and isinstance(source, FileSource) and names:
            labels, names = by_number(labels, names)
        return _Loaded(images, labels, names, time.perf_counter() - start)

    train, test = read(config.inlier, "train"), read(config.inlier, "test")
    class_names = _class_names(config.inlier, train)
    train_images, train_labels = _mixed(config, train)
    check_labels("labels of the inlier training split", train_labels, len(class_names))
    test_labels = _same_classes(test, train.class_names)
    check_labels("labels of the inlier test split", test_labels, len(class_names))
    outliers: dict[str, Any] = {}
    load_seconds = {INLIER: test.seconds}
    for name in config.outlier_sets:
        label = label_of(name)
        _check_outlier_name(config, name, outliers)
        loaded = read(name, "test")
        outliers[label], load_seconds[label] = loaded.images, loaded.seconds
        if data.same_source(test.images, loaded.images):
            raise ValueError(f"--outliers {label} holds images of --inlier {config.inlier} only: name another set")
    auxiliary = None
    if config.auxiliary is not None:
        auxiliary = read(config.auxiliary, AUXILIARY).images
        _check_auxiliary(config, auxiliary, {f"--inlier {config.inlier}": train_images} | _flagged(outliers))
    sets = Sets(train_images, train_labels, test.images, test_labels, outliers, class_names, load_seconds, auxiliary)
    lists = lists_of(config)
    if lists is None:
        return sets
    validation = read(config.inlier, "val")
    others = {"validation": validation} | {name: read(name, "test") for name in lists.shifted}
    for name, one in others.items():
        check_labels(f"labels of the {name} list", one.labels, len(class_names))
    shifted = {name: Labelled(others[name].images, others[name].labels) for name in lists.shifted}
    return sets._replace(validation_images=validation.images, shifted=shifted)


def _class_names(inlier: str, train: _Loaded) -> tuple[str, ...]:
    count = int(train.labels.max()) + 1
    if count < 2:
        raise ValueError(f"--inlier {inlier} must have at least two labelled classes; give class folders or an .npz")
    return train.class_names or tuple(str(k) for k in range(count))


def _mixed(config: Settings, train: _Loaded) -> tuple[Any, np.ndarray]:
    """Training rows in file order, or shuffled once, by a fixed seed, where a set may be listed class by class.

    The last rows are held out: they must hold every class.
    """
    if config.protocol != "openood" and (config.inlier in KNOWN or config.inlier in bundled.SETS):
        return train.images, train.labels
    order = np.random.default_rng(0).permutation(len(train.labels))
    return data.rows_of(train.images, order), train.labels[order]


def _same_classes(test: _Loaded, names: tuple[str, ...]) -> np.ndarray:
    """Test labels counted as the training split counts them: class folders are numbered within their split."""
    if test.class_names == names or not names or not test.class_names:
        return test.labels
    return np.asarray([names.index(name) for name in test.class_names], np.int32)[test.labels]


def _check_classes(inlier: str, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    unknown = sorted(set(test) - set(train)) if train else []
    if unknown:
        raise ValueError(
            f"the test split of --inlier {inlier} has classes that its training split has not: {', '.join(unknown)}"
        )


def _flagged(outliers: Mapping[str, Any]) -> dict[str, Any]:
    return {f"--outliers {name}": images for name, images in outliers.items()}


def _check_auxiliary(config: Settings, images: Any, others: Mapping[str, Any]) -> None:
    """Raise ValueError where one of two sets holds nothing but images of the other."""
    for name, other in others.items():
        if data.same_source(other, images) or data.same_source(images, other):
            raise ValueError(
                f"--auxiliary {config.auxiliary} and {name} hold the same images: name another set to train with"
            )


def _check_outlier_name(config: Settings, name: str, seen: dict[str, Any]) -> None:
    label = label_of(name)
    if path_of(name) == path_of(config.inlier):
        raise ValueError(f"--outliers {label} is the inlier set itself: name another set")
    if label in seen:
        raise ValueError(f"--outliers must name each set once, {label} stands there twice")
    if label in (INLIER, HELD_OUT, TRAINING) or not label:
        raise ValueError(f"--outliers may not call a set {label!r}: choose another name before the =")


def held_out(config: Settings, rows: int, *, trained_here: bool) -> int:
    """How many of the last training rows stay out of both stages.

    A classifier trained here keeps 5,000 (reference: 20 %) to calibrate on. Foreign weights saw all training images, so
    nothing is gained by it; the reference still fits its flow to the first 80 %. A benchmark has a list for it.
    """
    if config.protocol == "openood":
        return 0
    if config.preset == "reference":
        return round(rows * HELD_OUT_SHARE)
    if not trained_here:
        return 0
    return min(HELD_OUT_IMAGES, round(rows * HELD_OUT_SHARE))


def check_fits(config: Settings, sets: Sets) -> None:
    """Raise ValueError where stage 1 would train on images that are not held in memory."""
    trained_on = {f"--inlier {config.inlier}": sets.train_images, f"--auxiliary {config.auxiliary}": sets.auxiliary}
    for name, images in trained_on.items():
        if isinstance(images, data.StreamedImages):
            raise ValueError(
                f"{name} takes {megabytes(images.shape):,.0f} MB in memory, more than "
                f"--resident-mb {config.resident_mb:g}, and stage 1 trains on images in memory: give --weights of a "
                "trained classifier, or raise --resident-mb"
            )


def check_every_class(sets: Sets, fit_rows: slice) -> None:
    """Raise ValueError unless the rows that train hold every class."""
    present = np.bincount(sets.train_labels[fit_rows], minlength=len(sets.class_names)) > 0
    if not present.all():
        missing = ", ".join(name for name, there in zip(sets.class_names, present, strict=True) if not there)
        raise ValueError(f"the training rows hold no image of class {missing}; add images of it, or remove the class")


def check_enough(names: Sequence[str], labels: np.ndarray, num_classes: int) -> None:
    """Raise ValueError unless training images of those labels suffice for every method of --scores."""
    counts = np.bincount(labels, minlength=num_classes).tolist()
    for name in names:
        try:
            methods.check_rows(methods.get(name), len(labels), counts)
        except ValueError as error:
            raise ValueError(f"{error} (--scores {','.join(n for n in names if n != name) or 'of others'})") from None


def label_of(name: str) -> str:
    """The short name of `name` or `label=/path`."""
    return label_and_path(name)[0]


def path_of(name: str) -> str:
    """What `open_source` opens for `name` or `label=/path`."""
    return label_and_path(name)[1]
