"""One way in for every kind of detector: of `images`, of `features`, of pixels of scenes (`scenes`, `patches`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quantjax.detector import (
    artefact,
    exported,
    features,
    held_out,
    images,
    patches,
    scene_content,
    scene_export,
    scenes,
)
from quantjax.detector.decision import Prediction
from quantjax.detector.exported import Exported
from quantjax.detector.features import FeatureDetector
from quantjax.detector.images import Detector
from quantjax.detector.patches import PatchDetector
from quantjax.detector.scene_export import ExportedScenes
from quantjax.detector.scenes import SceneDetector, ScenePrediction

AnyDetector = Detector | FeatureDetector | SceneDetector | PatchDetector


class Operations(NamedTuple):
    """What one type of detector brings along."""

    type: type
    """The named tuple."""
    check: Callable[[Any], None]
    """Raises ValueError."""
    predictor: Callable[..., Any]
    """(detector, batch_size=, devices=) -> Predictor or ScenePredictor"""
    content: Callable[[Any], tuple[dict[str, Any], Any]]
    """detector -> (JSON values, arrays)"""
    restore: Callable[..., Any]
    """(JSON values, arrays by name) -> detector"""
    export: Callable[..., None]
    """(detector, folder, platforms=)"""


OPERATIONS: dict[str, Operations] = {  # by what detector.json calls the type
    "quantjax detector": Operations(
        Detector, images.check, images.predictor, images.content, images.restore, images.export
    ),
    "quantjax feature detector": Operations(
        FeatureDetector, features.check, features.predictor, features.content, features.restore, features.export
    ),
    "quantjax segmentation detector": Operations(
        SceneDetector,
        scenes.check,
        scenes.predictor,
        scene_content.content,
        scene_content.restore,
        scene_export.save,
    ),
    "quantjax patch detector": Operations(
        PatchDetector, patches.check, patches.predictor, patches.content, patches.restore, patches.export
    ),
}


def check(detector: AnyDetector) -> None:
    """Raise ValueError unless names are known, numbers are finite and every array has its place and shape."""
    OPERATIONS[type_name(detector)].check(detector)


def predictor(detector: AnyDetector, **options: Any) -> Any:
    """Functions that compile at their first call: a Predictor, or for scenes a ScenePredictor.

    Options are batch_size (images, rows, or windows of scenes) and devices. Raises ValueError when the detector does
    not hold together (see check), and from its functions for images of another type or shape than they take.
    """
    return OPERATIONS[type_name(detector)].predictor(detector, **options)


def predict(detector: AnyDetector, inputs: Any, **options: Any) -> Prediction | ScenePrediction:
    """Decisions about images uint8 [N, H, W, 3], rows, or a scene [H, W, 3]; compiles at every call, see predictor."""
    return predictor(detector, **options).predict(inputs)


def score(detector: AnyDetector, inputs: Any, **options: Any) -> np.ndarray:
    """Scores [N] or [H, W], higher = more outlying, of what `predict` takes; they need no threshold, see predictor."""
    return predictor(detector._replace(threshold=0.0), **options).score(inputs)


def save(detector: AnyDetector, folder: str | Path) -> None:
    """Write detector.json, arrays and held-out scores into `folder`, which is replaced whole or not at all.

    Raises ValueError when the detector does not hold together, or `folder` holds something else than a detector.
    """
    name = type_name(detector)
    OPERATIONS[name].check(detector)
    content, trees = OPERATIONS[name].content(detector)
    kept = getattr(detector, "held_out", None)  # those of scenes have none
    artefact.save(folder, {"kind": name, **content}, trees, held_out.to_arrays(kept))


def load(folder: str | Path) -> AnyDetector:
    """Read what save wrote, of the kind that it is. Files are data and run no code, save for a network of one's own.

    That is stored as a program: load such a detector only from someone you trust.
    Raises FileNotFoundError when there is no detector in `folder`, ValueError when its files are damaged, do not belong
    together, or come from a newer format.
    """
    content, arrays, kept = artefact.load(folder, *OPERATIONS)
    operations = OPERATIONS[content["kind"]]
    try:
        detector = operations.restore(content, arrays)
        if kept:
            detector = detector._replace(held_out=held_out.from_arrays(kept))
        operations.check(detector)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{folder} holds no valid detector: {reason}; write it again with detector.save") from error
    return detector


def export(detector: AnyDetector, folder: str | Path, **options: Any) -> None:
    """Write the detector as programs that JAX runs without this library's models, see exported and scene_export.

    Option: platforms. Raises ValueError when it does not hold together or cannot be a program.
    """
    OPERATIONS[type_name(detector)].export(detector, folder, **options)


def load_exported(folder: str | Path, **options: Any) -> Exported | ExportedScenes:
    """Read what `export` wrote, ready to run; options and errors as of exported.load and scene_export.load."""
    content = artefact.read_json(Path(folder) / exported.CONTENT)
    return (scene_export if content.get("kind") == scene_export.KIND else exported).load(folder, **options)


def type_name(detector: Any) -> str:
    """What detector.json calls the detector's type, a key of OPERATIONS; raises TypeError for anything else."""
    for name, operations in OPERATIONS.items():
        if isinstance(detector, operations.type):
            return name
    known = ", ".join(operations.type.__name__ for operations in OPERATIONS.values())
    raise TypeError(f"a detector must be one of {known}; got {type(detector).__name__}")
