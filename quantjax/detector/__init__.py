"""A fitted detector as one artefact: build it, save and load it, score and predict with it, export it as a program."""

from quantjax.detector.decision import Prediction, Predictor
from quantjax.detector.exported import Exported
from quantjax.detector.exported import load as load_exported
from quantjax.detector.fitted import Detector, export
from quantjax.detector.kinds import check, load, predict, predictor, save, score
from quantjax.detector.segmentation import ScenePrediction, ScenePredictor, SegmentationDetector

__all__ = [
    "Detector",
    "Exported",
    "Prediction",
    "Predictor",
    "ScenePrediction",
    "ScenePredictor",
    "SegmentationDetector",
    "check",
    "export",
    "load",
    "load_exported",
    "predict",
    "predictor",
    "save",
    "score",
]
