"""A fitted detector as one artefact: backbone, preprocessing, score and threshold; save, load, score, predict.

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

from quantjax.checks import check_choice
from quantjax.detector import artefact, exported
from quantjax.detector.decision import Prediction, Predictor, make_predictor
from quantjax.detector.methods import METHODS, View, evaluate
from quantjax.extractors import BACKBONES, fold, standardise
from quantjax.inference import batched
from quantjax.types import Array, ClassifierOutput, Preprocessing, PyTree

KIND = "quantjax detector"
# what convolutions compute in, and how products round their factors; scores are float32 always
PRECISIONS = {
    "float32": (jnp.float32, "highest"),
    "tensorfloat32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "highest"),
}


class Detector(NamedTuple):
    """Everything that decides about an image of size x size pixels."""

    backbone: str  # name in extractors.BACKBONES
    variables: PyTree  # {"params", "batch_stats"} of the backbone
    preprocessing: Preprocessing
    image_size: int  # pixels, H = W
    class_names: tuple[str, ...]  # [K]
    score: str  # name in methods.METHODS
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


def score(detector: Detector, images: np.ndarray, **options: Any) -> np.ndarray:
    """Scores [N], higher = more outlying, of images uint8 [N, H, W, 3]; compiles anew at every call, see predictor."""
    return predictor(detector, **options).score(images)


def predict(detector: Detector, images: np.ndarray, **options: Any) -> Prediction:
    """Decisions about images uint8 [N, H, W, 3]; compiles anew at every call, see predictor."""
    return predictor(detector, **options).predict(images)


def pipeline(detector: Detector) -> tuple[PyTree, Callable[[PyTree, Array], tuple[Array, Array, Array]]]:
    """(weights, run) with run(weights, images uint8 [B, H, W, 3]) -> (score [B], label [B], confidence [B])."""
    dtype, products = PRECISIONS[detector.precision]
    module = BACKBONES[detector.backbone].build(len(detector.class_names), dtype=dtype)
    folded, variables = fold(module, detector.variables)
    std = tuple(float(value) for value in detector.preprocessing.std)

    def run(weights: PyTree, images: Array) -> tuple[Array, Array, Array]:
        backbone, params = weights
        inputs = standardise(images, detector.preprocessing)

        def classify(x: Array) -> ClassifierOutput:
            return ClassifierOutput(*folded.apply(backbone, x))

        output = classify(inputs)
        value = evaluate(detector.score, detector.settings, params, View(output, inputs, classify, std))
        probabilities = jax.nn.softmax(output.logits, axis=-1)
        label = jnp.argmax(output.logits, axis=-1).astype(jnp.int32)
        return value.astype(jnp.float32), label, jnp.max(probabilities, axis=-1)

    def precisely(weights: PyTree, images: Array) -> tuple[Array, Array, Array]:
        with jax.default_matmul_precision(products):
            return run(weights, images)

    return (variables, detector.params), precisely


def save(detector: Detector, folder: str | Path) -> None:
    """Write detector.json and arrays.safetensors into `folder`, which is replaced whole or not at all.

    Raises ValueError when the detector does not hold together, or `folder` holds something else than a detector.
    """
    check(detector)
    content = {
        "kind": KIND,
        "backbone": {
            "name": detector.backbone,
            "num_classes": len(detector.class_names),
            "precision": detector.precision,
        },
        "preprocessing": detector.preprocessing._asdict(),
        "image_size": detector.image_size,
        "class_names": list(detector.class_names),
        "score": {"name": detector.score, "settings": dict(detector.settings)},
        "threshold": float(detector.threshold),
        "calibration": dict(detector.calibration),
    }
    artefact.save(folder, content, {"backbone": detector.variables, "score": detector.params})


def load(folder: str | Path) -> Detector:
    """Read what save wrote. Files are data only and never run code.

    Raises FileNotFoundError when there is no detector in `folder`, ValueError when its files are damaged, do not belong
    together, or come from a newer format.
    """
    content, arrays = artefact.load(folder, KIND)
    try:
        name, method = content["backbone"]["name"], content["score"]["name"]
        check_choice("backbone", name, BACKBONES)
        check_choice("score", method, METHODS)
        classes, size = tuple(map(str, content["class_names"])), int(content["image_size"])
        _check_numbers(content["score"]["settings"])
        expected = template(name, classes, size, method, content["score"]["settings"])
        trees = artefact.restore(arrays, expected)
        detector = Detector(
            backbone=name,
            variables=trees["backbone"],
            preprocessing=Preprocessing(*(tuple(map(float, content["preprocessing"][k])) for k in ("mean", "std"))),
            image_size=size,
            class_names=classes,
            score=method,
            settings=content["score"]["settings"],
            params=trees["score"],
            threshold=float(content["threshold"]),
            calibration=dict(content["calibration"]),
            precision=content["backbone"]["precision"],
        )
        check(detector)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{folder} holds no valid detector: {reason}; write it again with detector.save") from error
    return detector


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
        "score": METHODS[method].template(settings, dimension, classes),
    }


@lru_cache(maxsize=8)
def _backbone_template(backbone: str, classes: int, image_size: int) -> PyTree:
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return jax.eval_shape(BACKBONES[backbone].build(classes).init, jax.random.key(0), image)


def check(detector: Detector) -> None:
    """Raise ValueError unless names are known, numbers are finite and every array has its place and shape."""
    check_choice("backbone", detector.backbone, BACKBONES)
    check_choice("score", detector.score, METHODS)
    check_choice("precision", detector.precision, PRECISIONS)
    if not detector.class_names or detector.image_size < 1:
        raise ValueError(
            f"a detector needs class names and an image size, got {detector.class_names} and {detector.image_size}"
        )
    if not np.isfinite(detector.threshold):
        raise ValueError(f"threshold must be finite, got {detector.threshold}; calibrate it on held-out inliers")
    mean, std = (np.asarray(values, float) for values in detector.preprocessing)
    if mean.shape != (3,) or std.shape != (3,) or not np.isfinite([mean, std]).all() or (std <= 0.0).any():
        raise ValueError(f"preprocessing must hold three means and three positive stds, got {detector.preprocessing}")
    expected = template(detector.backbone, detector.class_names, detector.image_size, detector.score, detector.settings)
    artefact.check_trees({"backbone": detector.variables, "score": detector.params}, expected)


def _check_numbers(settings: Mapping[str, Any]) -> None:
    """Sizes from a file must be such that no one can fill the memory with them."""
    for key, value in settings.items():
        number = isinstance(value, int | float) and abs(value) <= 1e5
        if not (number or isinstance(value, str) or (key == "permutations" and isinstance(value, list))):
            raise ValueError(f"setting {key} of the score must be a text or a number up to 1e5, got {value!r:.40}")
