"""A fitted detector as one artefact: build it, save and load it, score and predict with it, export it as a program."""

from quantjax.detector.decision import Prediction, Predictor
from quantjax.detector.exported import Exported
from quantjax.detector.exported import load as load_exported
from quantjax.detector.fitted import Detector, check, export, load, predict, predictor, save, score
from quantjax.detector.methods import METHODS, Method, View, evaluate, needs_images

__all__ = [
    "METHODS",
    "Detector",
    "Exported",
    "Method",
    "Prediction",
    "Predictor",
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
