"""Fit a detector to inliers in one call; `calibrate` sets its threshold.

detector.calibrate(detector.fit("knn", features=train), held_out)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quantjax import methods
from quantjax.checks import check_finite, check_same_length, check_shape
from quantjax.detector import features as feature_rows
from quantjax.detector import images as image_rows
from quantjax.detector.decision import images_of
from quantjax.detector.features import FeatureDetector
from quantjax.detector.images import Detector
from quantjax.detector.network import Network, sizes
from quantjax.extractors import BACKBONES, NONE
from quantjax.inference import batched
from quantjax.types import Preprocessing, PyTree

Report = Callable[[int, int], None]  # (images done, images in all)


def fit(
    method: str,
    network: str | Callable[..., Any] | None = None,
    images: np.ndarray | None = None,
    labels: Any = None,
    *,
    features: Any = None,
    logits: Any = None,
    variables: PyTree = None,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    precision: str = "float32",
    settings: methods.Settings | None = None,
    batch_size: int = 128,
    devices: Sequence[Any] | None = None,
    report: Report | None = None,
) -> Detector | FeatureDetector:
    """Fit the method of that name to inliers: images seen by a frozen network, or rows computed elsewhere.

    Images: `network` is a name in extractors.BACKBONES with its `variables`, or any function network(variables, x) ->
    (logits [B, K], features [B, D]), network(x) where variables is None; x are images in [0, 1], standardised by
    `preprocessing` (default: what weights of that name expect, none for a function). images are uint8 [N, H, W, 3].
    Rows: features [N, D], logits [N, K], or both, and no network.

    labels [N] are integers in 0..K-1, for methods that learn from them. class_names [K] name the network's classes;
    default: their numbers. settings replace the method's defaults. batch_size images are sent through the network at a
    time, on `devices` (default: all local ones), after which report(done, total) is called.

    The threshold is not set yet: `calibrate` does it. Raises ValueError for an unknown method or setting, for rows of
    another shape, that are not finite or too few, and when something that the method needs is missing.
    """
    chosen = methods.get(method)
    given = methods.complete_settings(chosen, settings)
    if labels is not None:
        labels = np.asarray(labels)
        check_shape("labels", labels, "[N]")
    _check_needed(chosen, network, images, labels, features, logits)
    if network is None:
        return _fit_rows(chosen, given, labels, features, logits, class_names)
    detector = _unfitted(method, network, images, labels, variables, preprocessing, class_names, precision)
    rows = methods.TrainingRows(None, labels, len(detector.class_names))
    if chosen.learns_from:
        weights, run = image_rows.extraction(detector)
        extract = batched(run, batch_size=batch_size, shared=1, devices=devices)
        all_logits, all_features, *layers = extract(weights, images, report=report)
        check_finite("features of the images", all_features, "check the weights and their preprocessing")
        rows = rows._replace(features=all_features, logits=all_logits, layers=layers[0] if layers else None)
    settings, params = chosen.fit(rows, given)
    detector = detector._replace(settings=settings, params=params)
    image_rows.check(detector._replace(threshold=0.0))
    return detector


def _check_needed(method: methods.Method, network: Any, images: Any, labels: Any, features: Any, logits: Any) -> None:
    if network is None:
        given = {"features": features, "labels": labels, "logits": logits}
        if methods.needs_network(method) or "layers" in method.reads:
            raise ValueError(f"method {method.name} reads {', '.join(method.reads)}: give a network and images")
        if images is not None:
            raise ValueError("images need a network that sees them; give network=, or features= without images")
    else:
        given = {"images": images, "labels": labels}
        if images is None or features is not None or logits is not None:
            raise ValueError("a network is fitted on images: give images= and neither features= nor logits=")
    for name in (*method.reads, *method.learns_from):
        if name in given and given[name] is None:
            raise ValueError(f"method {method.name} needs {name}: give {name}=")
    check_same_length(**{name: rows for name, rows in given.items() if rows is not None})


def _fit_rows(
    method: methods.Method, settings: methods.Settings, labels: Any, features: Any, logits: Any, names: Any
) -> FeatureDetector:
    arrays = {"features": features, "logits": logits}
    arrays = {name: None if rows is None else np.asarray(rows, np.float32) for name, rows in arrays.items()}
    for name, rows in arrays.items():
        if rows is not None:
            check_shape(name, rows, "[N, .]")
            check_finite(name, rows)
    classes = 0 if arrays["logits"] is None else arrays["logits"].shape[1]
    if not classes and labels is not None:
        classes = int(labels.max()) + 1
    names = _names(names, classes)
    training = methods.TrainingRows(arrays["features"], labels, len(names), arrays["logits"])
    settings, params = method.fit(training, settings)
    dimension = arrays["features"].shape[1] if "features" in method.reads else 0
    detector = FeatureDetector(dimension, names, method.name, settings, params, math.nan, {})
    feature_rows.check(detector._replace(threshold=0.0))
    return detector


def _unfitted(
    method: str, network: Any, images: Any, labels: Any, variables: Any, preprocessing: Any, names: Any, precision: str
) -> Detector:
    shape = np.shape(images)
    if len(shape) != 4 or not len(images):
        raise ValueError(f"images must be uint8 [N, H, W, 3] with at least one row, got shape {list(shape)}")
    images_of(shape[1])(images)
    if isinstance(network, str):
        preset = BACKBONES[network].preprocessing if network in BACKBONES else NONE
        classes = 0 if labels is None else int(labels.max()) + 1
    else:
        network, variables = _with_variables(network, variables)
        preset, classes = NONE, sizes(network, variables, shape[1]).classes
    names, preset = _names(names, classes), preprocessing or preset
    detector = Detector(network, variables, preset, shape[1], names, method, {}, (), math.nan, {}, precision)
    image_rows.check(detector._replace(score="msp", threshold=0.0))  # all but what is to be fitted
    return detector


def _with_variables(network: Callable[..., Any], variables: PyTree) -> tuple[Network, PyTree]:
    if variables is not None:
        return network, variables
    return lambda nothing, images: network(images), ()


def _names(names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes))) if names is None else tuple(map(str, names))
