"""A fitted detector of images: network, preprocessing, score and threshold; how it is kept, scores and decides.

A detector is plain data beside pure functions. Of one whose network is a registered name, reading the files executes
nothing that they say; a network of one's own is stored as a program, see `network`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import methods, trees
from quantjax.checks import check_choice
from quantjax.detector import exported, held_out, network
from quantjax.detector.common import PRECISIONS, check_common, from_content, score_from_content, to_content
from quantjax.detector.decision import Predictor, images_of, judge, make_predictor
from quantjax.detector.held_out import ClassThresholds, HeldOut
from quantjax.extractors import BACKBONES, fold, layer_statistics, standardise
from quantjax.inference import bucketed
from quantjax.parallel import replicate
from quantjax.types import Array, ClassifierOutput, Preprocessing, PyTree

OWN = "own network"  # stands in detector.json where others have the name of a backbone


class Detector(NamedTuple):
    """Everything that decides about an image of size x size pixels."""

    backbone: str | network.Network
    """Name in extractors.BACKBONES, or any function (variables, standardised images) -> (logits, features)."""
    variables: PyTree
    """{"params", "batch_stats"} of a named backbone; whatever the function takes."""
    preprocessing: Preprocessing
    """Of the images in [0, 1]."""
    image_size: int
    """Pixels, H = W, of the images; the network sees `preprocessing.side`, where that is given."""
    class_names: tuple[str, ...]
    """[K]"""
    score: str
    """Name of a registered method."""
    settings: Mapping[str, Any]
    """Of the score."""
    params: PyTree
    """What the method fitted."""
    threshold: float
    """On the score; outlier unless score <= threshold. NaN until it is calibrated."""
    calibration: Mapping[str, Any]
    """source, n, and in percent promised_tpr, achieved_tpr and interval; per_class, see `calibrate`."""
    precision: str = "float32"
    """Of the network, a key of PRECISIONS: the one that the threshold was set in."""
    class_thresholds: ClassThresholds | None = None
    """[K], the threshold of each predicted class, None for one that falls back on `threshold`; None: one for all."""
    held_out: HeldOut | None = None
    """Inliers that the thresholds were set on; None where they are not kept."""


def predictor(detector: Detector, *, batch_size: int = 256, devices: Sequence[Any] | None = None) -> Predictor:
    """Fold the backbone, send it to the devices, and make functions that compile at their first call.

    Few images run in small batches, see inference.bucketed. Raises ValueError when the detector does not hold together
    (see check), and from its functions when images are not uint8 [N, H, W, 3] of the detector's size.
    """
    check(detector)
    weights, run = pipeline(detector)
    mapped = bucketed(run, batch_size=batch_size, shared=1, devices=devices)
    return make_predictor(partial(mapped, replicate(weights, devices)), images_of(detector.image_size), detector)


def pipeline(detector: Detector) -> tuple[PyTree, Callable[[PyTree, Array], tuple[Array, ...]]]:
    """(weights, run) with run(weights, images uint8 [B, H, W, 3]) -> (score [B], label [B], confidence [B])."""
    variables, classify = classifier(detector)
    std, method = tuple(float(value) for value in detector.preprocessing.std), methods.get(detector.score)

    def run(weights: PyTree, images: Array) -> tuple[Array, ...]:
        network_weights, params = weights
        inputs = standardise(images, detector.preprocessing)
        output = classify(network_weights, inputs)
        layers = layer_statistics(output.intermediates) if "layers" in method.reads else None
        view = methods.View(output, inputs, partial(classify, network_weights), std, layers)
        return judge(method.score(detector.settings, params, view), view.output.logits)

    return (variables, detector.params), _precisely(run, detector.precision)


def extraction(detector: Detector) -> tuple[PyTree, Callable[[PyTree, Array], tuple[Any, ...]]]:
    """(variables, run) with run(variables, images uint8 [B, H, W, 3]) -> (logits [B, K], features [B, D]).

    For a method that learns from layers their statistics come third.
    """
    variables, classify = classifier(detector)
    layers = "layers" in methods.get(detector.score).learns_from

    def run(weights: PyTree, images: Array) -> tuple[Any, ...]:
        output = classify(weights, standardise(images, detector.preprocessing))
        found = output.logits, output.features
        return (*found, layer_statistics(output.intermediates)) if layers else found

    return variables, _precisely(run, detector.precision)


def classifier(detector: Detector) -> tuple[PyTree, Callable[[PyTree, Array], ClassifierOutput]]:
    """(variables, classify): classify(variables, standardised images) -> ClassifierOutput; named ones are folded."""
    if not isinstance(detector.backbone, str):
        return detector.variables, partial(network.output, detector.backbone)
    dtype = PRECISIONS[detector.precision][0]
    module = BACKBONES[detector.backbone].build(len(detector.class_names), dtype=dtype)
    folded, variables = fold(module, detector.variables)
    return variables, lambda weights, inputs: ClassifierOutput(*folded.apply(weights, inputs))


def _precisely(run: Callable[..., Any], precision: str) -> Callable[..., Any]:
    def precisely(weights: PyTree, images: Array) -> Any:
        with jax.default_matmul_precision(PRECISIONS[precision][1]):
            return run(weights, images)

    return precisely


def content(detector: Detector) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """(detector.json, arrays) of a detector that `check` accepts; ValueError for a network that fits in no file."""
    shared, backbone = to_content(detector), detector.variables
    if not isinstance(detector.backbone, str):
        shared["backbone"]["name"] = OWN
        method = methods.get(detector.score)
        gradient, maps = methods.needs_network(method), "layers" in method.reads
        with jax.default_matmul_precision(PRECISIONS[detector.precision][1]):
            backbone = network.to_arrays(detector.backbone, backbone, side_of(detector), gradient=gradient, maps=maps)
    return {
        **shared,
        "backbone": shared["backbone"] | {"num_classes": len(detector.class_names)},
        "image_size": detector.image_size,
        "score": {"name": detector.score, "settings": dict(detector.settings)},
        **held_out.to_content(detector),
    }, {"backbone": backbone, "score": detector.params}


def restore(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Detector:
    """Undo `content`; raises ValueError, TypeError, KeyError or AttributeError when it says something else."""
    shared, size = from_content(content), int(content["image_size"])
    seen = shared["preprocessing"].side or size
    name, settings = score_from_content(content)
    if shared["backbone"] == OWN:
        shared["backbone"], variables = network.from_arrays(arrays, "backbone")
        arrays = {key: array for key, array in arrays.items() if not key.startswith("backbone/")}
        dimension = network.sizes(shared["backbone"], variables, seen).dimension
        expected: PyTree = {"score": methods.get(name).template(settings, dimension, len(shared["class_names"]))}
        restored = {"backbone": variables, **trees.restore(arrays, expected)}
    else:
        check_choice("backbone", shared["backbone"], BACKBONES)
        expected = template(shared["backbone"], shared["class_names"], seen, name, settings)
        restored = trees.restore(arrays, expected)
    return Detector(
        variables=restored["backbone"],
        image_size=size,
        score=name,
        settings=settings,
        params=restored["score"],
        class_thresholds=held_out.from_content(content),
        **shared,
    )


def export(detector: Detector, folder: str | Path, **options: Any) -> None:
    """Write the detector as a program that JAX runs without these models: exported.save, read by exported.load."""
    check(detector)
    weights, run = pipeline(detector)
    exported.save(partial(run, weights), folder, detector, image_size=detector.image_size, **options)


def side_of(detector: Detector) -> int:
    """Pixels, H = W, of what the network sees."""
    return detector.preprocessing.side or detector.image_size


def template(
    backbone: str, class_names: Sequence[str], image_size: int, method: str, settings: Mapping[str, Any]
) -> PyTree:
    """{"backbone", "score"}: the shapes and dtypes that the arrays of a detector with a named backbone must have."""
    classes, dimension = len(class_names), BACKBONES[backbone].feature_dimension
    return {
        "backbone": _backbone_template(backbone, classes, image_size),
        "score": methods.get(method).template(settings, dimension, classes),
    }


@lru_cache(maxsize=8)
def _backbone_template(backbone: str, classes: int, image_size: int) -> PyTree:
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return jax.eval_shape(BACKBONES[backbone].build(classes).init, jax.random.key(0), image)


def check(detector: Detector) -> None:
    """Raise ValueError unless names are known, numbers are finite and every array has its place and shape."""
    method = methods.get(detector.score)
    methods.check_settings(method, detector.settings)
    check_common(detector)
    held_out.check(detector)
    if detector.image_size < 1:
        raise ValueError(f"a detector needs an image size of at least 1 pixel, got {detector.image_size}")
    arrays, classes = {"backbone": detector.variables, "score": detector.params}, len(detector.class_names)
    if isinstance(detector.backbone, str):
        check_choice("backbone", detector.backbone, BACKBONES)
        expected = template(
            detector.backbone, detector.class_names, side_of(detector), detector.score, detector.settings
        )
        trees.check(arrays, expected)
        return
    sizes = network.sizes(detector.backbone, detector.variables, side_of(detector))
    if sizes.classes != classes:
        raise ValueError(f"the network gives {sizes.classes} logits, but there are {classes} class names")
    if "maps" in method.reads:
        raise ValueError(f"method {method.name} reads maps, which only networks known by name return")
    if "layers" in method.reads and not sizes.maps:
        raise ValueError(
            f"method {method.name} reads layers: the network must return (logits, features, {{name: map}}), maps "
            "[B, h, w, C], got none"
        )
    expected = method.template(detector.settings, sizes.dimension, classes)
    trees.check({"score": detector.params}, {"score": expected})
