"""A fitted detector of images: backbone, preprocessing, score and threshold; how it is kept, scores and decides.

A detector is plain data beside pure functions; reading one from files executes nothing that the files say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import methods
from quantjax.checks import check_choice
from quantjax.detector import artefact, exported
from quantjax.detector.decision import Predictor, make_predictor
from quantjax.detector.facts import PRECISIONS, check_facts, from_content, score_from_content, to_content
from quantjax.extractors import BACKBONES, fold, standardise
from quantjax.inference import batched
from quantjax.types import Array, ClassifierOutput, Preprocessing, PyTree


class Detector(NamedTuple):
    """Everything that decides about an image of size x size pixels."""

    backbone: str  # name in extractors.BACKBONES
    variables: PyTree  # {"params", "batch_stats"} of the backbone
    preprocessing: Preprocessing
    image_size: int  # pixels, H = W
    class_names: tuple[str, ...]  # [K]
    score: str  # name of a registered method
    settings: Mapping[str, Any]  # of the score
    params: PyTree  # what the score fitted
    threshold: float  # on the score; outlier iff score > threshold
    calibration: Mapping[str, Any]  # source, n, promised_tpr, achieved_tpr
    precision: str = "float32"  # of the backbone, a key of PRECISIONS: the one that the threshold was set in


def predictor(detector: Detector, *, batch_size: int = 256, devices: Sequence[Any] | None = None) -> Predictor:
    """Fold the backbone and make functions that compile once, at their first call; see inference.batched.

    Raises ValueError when the detector does not hold together (see check), and from its functions when images are not
    uint8 [N, H, W, 3] of the detector's size.
    """
    check(detector)
    weights, run = pipeline(detector)
    mapped = batched(run, batch_size=batch_size, shared=1, devices=devices)
    return make_predictor(partial(mapped, weights), detector.threshold, detector.image_size)


def pipeline(detector: Detector) -> tuple[PyTree, Callable[[PyTree, Array], tuple[Array, Array, Array]]]:
    """(weights, run) with run(weights, images uint8 [B, H, W, 3]) -> (score [B], label [B], confidence [B])."""
    dtype, products = PRECISIONS[detector.precision]
    module = BACKBONES[detector.backbone].build(len(detector.class_names), dtype=dtype)
    folded, variables = fold(module, detector.variables)
    std, method = tuple(float(value) for value in detector.preprocessing.std), methods.get(detector.score)

    def run(weights: PyTree, images: Array) -> tuple[Array, Array, Array]:
        backbone, params = weights
        inputs = standardise(images, detector.preprocessing)

        def classify(x: Array) -> ClassifierOutput:
            return ClassifierOutput(*folded.apply(backbone, x))

        output = classify(inputs)
        value = method.score(detector.settings, params, methods.View(output, inputs, classify, std))
        probabilities = jax.nn.softmax(output.logits, axis=-1)
        label = jnp.argmax(output.logits, axis=-1).astype(jnp.int32)
        return value.astype(jnp.float32), label, jnp.max(probabilities, axis=-1)

    def precisely(weights: PyTree, images: Array) -> tuple[Array, Array, Array]:
        with jax.default_matmul_precision(products):
            return run(weights, images)

    return (variables, detector.params), precisely


def content(detector: Detector) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """(detector.json, arrays) of a detector that `check` accepts."""
    facts = to_content(detector)
    return {
        **facts,
        "backbone": facts["backbone"] | {"num_classes": len(detector.class_names)},
        "image_size": detector.image_size,
        "score": {"name": detector.score, "settings": dict(detector.settings)},
    }, {"backbone": detector.variables, "score": detector.params}


def restore(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Detector:
    """Undo `content`; raises ValueError, TypeError, KeyError or AttributeError when it says something else."""
    facts, size = from_content(content), int(content["image_size"])
    check_choice("backbone", facts["backbone"], BACKBONES)
    method, settings = score_from_content(content)
    expected = template(facts["backbone"], facts["class_names"], size, method, settings)
    trees = artefact.restore(arrays, expected)
    return Detector(
        variables=trees["backbone"],
        image_size=size,
        score=method,
        settings=settings,
        params=trees["score"],
        **facts,
    )


def export(detector: Detector, folder: str | Path, **options: Any) -> None:
    """Write the detector as a program that JAX runs without these models: exported.save, read by exported.load."""
    check(detector)
    weights, run = pipeline(detector)
    exported.save(
        partial(run, weights),
        folder,
        class_names=detector.class_names,
        image_size=detector.image_size,
        threshold=detector.threshold,
        extra={"score": detector.score, "calibration": dict(detector.calibration)},
        **options,
    )


def template(
    backbone: str, class_names: Sequence[str], image_size: int, method: str, settings: Mapping[str, Any]
) -> PyTree:
    """{"backbone", "score"}: the shapes and dtypes that a detector's arrays must have."""
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
    check_choice("backbone", detector.backbone, BACKBONES)
    methods.check_settings(methods.get(detector.score), detector.settings)
    check_facts(detector)
    if detector.image_size < 1:
        raise ValueError(f"a detector needs an image size of at least 1 pixel, got {detector.image_size}")
    expected = template(detector.backbone, detector.class_names, detector.image_size, detector.score, detector.settings)
    artefact.check_trees({"backbone": detector.variables, "score": detector.params}, expected)
