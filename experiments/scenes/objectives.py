"""The settings as the numbers that the library's two stages take."""

from __future__ import annotations

from typing import Any

from experiments.scenes.config import Settings
from quantjax.extractors import SCRATCH
from quantjax.scores import Standardisation
from quantjax.segmentation import Scales
from quantjax.types import PyTree

__all__ = ["of_estimator", "of_segmentor", "scales", "trains_backbone"]

CONTRAST_WEIGHT = 0.01  # beta of eq. 13
CLASS_WEIGHT = {"g-g": 0.5, "g-d": 0.0, "d-d": 0.0}  # alpha of eq. 13


def of_segmentor(config: Settings) -> dict[str, Any]:
    """What segmentor_objective takes beside the network."""
    return {"contrast_weight": CONTRAST_WEIGHT, "hue": config.hue}


def of_estimator(config: Settings, segmentor: PyTree) -> dict[str, Any]:
    """What estimator_objective takes beside the networks; of the variables `segmentor` the scales alone."""
    alpha = CLASS_WEIGHT[config.variant]
    return {
        "class_weight": alpha,
        # the paper multiplies the contrast loss by alpha as well; the released code does not
        "contrast_weight": CONTRAST_WEIGHT * (alpha if config.preset == "paper" else 1.0),
        "hue": config.hue,
        "freeze_statistics": config.freeze_statistics,
        "scales": scales(config, segmentor),
    }


def trains_backbone(config: Settings) -> bool:
    """Whether stage 1 fits the backbone too."""
    return config.backbone in SCRATCH


def scales(config: Settings, variables: PyTree) -> Scales:
    """Standardisations of F and of u: those stored with the segmentor where the values are raw log-densities.

    The estimator's densities live in a space of the same dimension and share the segmentor's scale; their mean
    cancels in u_1 - u_0.
    """
    if config.preset != "paper" or config.variant[0] == "d":
        return Scales()
    stored = Standardisation(*(variables["standardisation"][key] for key in Standardisation._fields))
    return Scales(stored, stored if config.variant[-1] == "g" else None)
