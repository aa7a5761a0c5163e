"""A fitted detector as one artefact: build it, save and load it, score and predict with it, export it as a program."""

from quantjax.detector.decision import Prediction, Predictor
from quantjax.detector.exported import Exported
from quantjax.detector.exported import load as load_exported
from quantjax.detector.fitted import Detector, export
from quantjax.detector.kinds import check, load, predict, predictor, save, score
from quantjax.detector.methods import METHODS, Method, View, evaluate, needs_images
from quantjax.detector.segmentation import ScenePrediction, ScenePredictor, SegmentationDetector

__all__ = [
    "METHODS",
    "Detector",
    "Exported",
    "Method",
    "Prediction",
    "Predictor",
    "ScenePrediction",
    "ScenePredictor",
    "SegmentationDetector",
    "View",
    "check",
    "evaluate",
    "export",
    "load",
    "load_exported",
    "needs_images",
    "predict",
    "predictor",
    "save",
    "score",
]
