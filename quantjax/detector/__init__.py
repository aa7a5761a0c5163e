"""Detectors: fit and calibrate one, save, load and export it, predict with it, and watch for drift."""

from quantjax.detector.calibration import calibrate, in_percent
from quantjax.detector.decision import Prediction, Predictor
from quantjax.detector.dispatch import check, export, load, load_exported, predict, predictor, save, score
from quantjax.detector.doubts import better, doubts
from quantjax.detector.exported import Exported
from quantjax.detector.features import FeatureDetector
from quantjax.detector.fit import fit
from quantjax.detector.held_out import HeldOut, drift, keep, thresholds, watch
from quantjax.detector.images import Detector
from quantjax.detector.patches import PatchDetector, fit_patches, scene_maps
from quantjax.detector.scene_export import ExportedScenes
from quantjax.detector.scenes import SceneDetector, ScenePrediction, ScenePredictor
from quantjax.documented import show_fields
from quantjax.metrics import observe

__all__ = [
    "Detector",
    "Exported",
    "ExportedScenes",
    "FeatureDetector",
    "HeldOut",
    "PatchDetector",
    "Prediction",
    "Predictor",
    "SceneDetector",
    "ScenePrediction",
    "ScenePredictor",
    "better",
    "calibrate",
    "check",
    "doubts",
    "drift",
    "export",
    "fit",
    "fit_patches",
    "in_percent",
    "keep",
    "load",
    "load_exported",
    "observe",
    "predict",
    "predictor",
    "save",
    "scene_maps",
    "score",
    "thresholds",
    "watch",
]

show_fields(__name__)
