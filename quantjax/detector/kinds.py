"""One way in for every kind of detector: of images (`fitted`), of `features`, of pixels of scenes (`segmentation`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quantjax.detector import artefact, exported, features, fitted, scene_content, scene_export, segmentation
from quantjax.detector.decision import Prediction
from quantjax.detector.exported import Exported
from quantjax.detector.features import FeatureDetector
from quantjax.detector.fitted import Detector
from quantjax.detector.scene_export import ExportedScenes
from quantjax.detector.segmentation import ScenePrediction, SegmentationDetector

AnyDetector = Detector | FeatureDetector | SegmentationDetector


class Kind(NamedTuple):
    """What one kind of detector brings along."""

    type: type
    check: Callable[[Any], None]  # raises ValueError
    predictor: Callable[..., Any]
    content: Callable[[Any], tuple[dict[str, Any], Any]]  # detector -> (JSON values, arrays)
    restore: Callable[..., Any]  # (JSON values, arrays by name) -> detector
    export: Callable[..., None]  # (detector, folder, platforms=...)


KINDS: dict[str, Kind] = {  # by the name in detector.json
    "quantjax detector": Kind(Detector, fitted.check, fitted.predictor, fitted.content, fitted.restore, fitted.export),
    "quantjax feature detector": Kind(
        FeatureDetector, features.check, features.predictor, features.content, features.restore, features.export
    ),
    "quantjax segmentation detector": Kind(
        SegmentationDetector,
        segmentation.check,
        segmentation.predictor,
        scene_content.content,
        scene_content.restore,
        scene_export.save,
    ),
}


def check(detector: AnyDetector) -> None:
    """Raise ValueError unless names are known, numbers are finite and every array has its place and shape."""
    KINDS[kind_of(detector)].check(detector)


def predictor(detector: AnyDetector, **options: Any) -> Any:
    """Functions that compile at their first call: a Predictor, or for scenes a ScenePredictor.

    Options are batch_size (images, rows, or windows of scenes) and devices. Raises ValueError when the detector does
    not hold together (see check), and from its functions for images of another type or shape than they take.
    """
    return KINDS[kind_of(detector)].predictor(detector, **options)


def predict(detector: AnyDetector, images: np.ndarray, **options: Any) -> Prediction | ScenePrediction:
    """Decisions about images uint8 [N, H, W, 3], rows, or a scene [H, W, 3]; compiles at every call, see predictor."""
    return predictor(detector, **options).predict(images)


def score(detector: AnyDetector, images: np.ndarray, **options: Any) -> np.ndarray:
    """Scores [N] or [H, W], higher = more outlying, of what `predict` takes; they need no threshold, see predictor."""
    return predictor(detector._replace(threshold=0.0), **options).score(images)


def save(detector: AnyDetector, folder: str | Path) -> None:
    """Write detector.json and arrays.safetensors into `folder`, which is replaced whole or not at all.

    Raises ValueError when the detector does not hold together, or `folder` holds something else than a detector.
    """
    name = kind_of(detector)
    KINDS[name].check(detector)
    content, trees = KINDS[name].content(detector)
    artefact.save(folder, {"kind": name, **content}, trees)


def load(folder: str | Path) -> AnyDetector:
    """Read what save wrote, of the kind that it is. Files are data and run no code, save for a network of one's own.

    That is stored as a program: load such a detector only from someone you trust.
    Raises FileNotFoundError when there is no detector in `folder`, ValueError when its files are damaged, do not belong
    together, or come from a newer format.
    """
    content, arrays = artefact.load(folder, *KINDS)
    kind = KINDS[content["kind"]]
    try:
        detector = kind.restore(content, arrays)
        kind.check(detector)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{folder} holds no valid detector: {reason}; write it again with detector.save") from error
    return detector


def export(detector: AnyDetector, folder: str | Path, **options: Any) -> None:
    """Write the detector as programs that JAX runs without this library's models, see exported and scene_export.

    Option: platforms. Raises ValueError when it does not hold together or cannot be a program.
    """
    KINDS[kind_of(detector)].export(detector, folder, **options)


def load_exported(folder: str | Path, **options: Any) -> Exported | ExportedScenes:
    """Read what `export` wrote, ready to run; options and errors as of exported.load and scene_export.load."""
    scenes = artefact.read_json(Path(folder) / exported.CONTENT).get("kind") == scene_export.KIND
    return (scene_export if scenes else exported).load(folder, **options)


def kind_of(detector: Any) -> str:
    """The detector's kind, a key of KINDS; raises TypeError for anything else."""
    for name, kind in KINDS.items():
        if isinstance(detector, kind.type):
            return name
    kinds = ", ".join(kind.type.__name__ for kind in KINDS.values())
    raise TypeError(f"a detector must be one of {kinds}; got {type(detector).__name__}")
