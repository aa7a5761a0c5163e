"""Detectors: fit and calibrate one, save and load it, score and predict with it, export it as a program."""

from quantjax.detector.decision import Prediction, Predictor
from quantjax.detector.exported import Exported
from quantjax.detector.features import FeatureDetector
from quantjax.detector.fit import calibrate, fit, in_percent
from quantjax.detector.fitted import Detector
from quantjax.detector.kinds import check, export, load, load_exported, predict, predictor, save, score
from quantjax.detector.scene_export import ExportedScenes
from quantjax.detector.segmentation import ScenePrediction, ScenePredictor, SegmentationDetector

__all__ = [
    "Detector",
    "Exported",
    "ExportedScenes",
    "FeatureDetector",
    "Prediction",
    "Predictor",
    "ScenePrediction",
    "ScenePredictor",
    "SegmentationDetector",
    "calibrate",
    "check",
    "export",
    "fit",
    "in_percent",
    "load",
    "load_exported",
    "predict",
    "predictor",
    "save",
    "score",
]
