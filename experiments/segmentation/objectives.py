"""The objectives of the two stages, as the settings name them."""

from __future__ import annotations

from experiments.segmentation.config import SCRATCH, Settings
from quantjax import losses, segmentation
from quantjax.scores import Standardisation
from quantjax.segmentation import Estimator, Scales, Segmentor
from quantjax.train import ValueAndGrad
from quantjax.types import PyTree

IGNORED = losses.IGNORE
CONTRAST_WEIGHT = 0.01  # beta of eq. 13
CLASS_WEIGHT = {"g-g": 0.5, "g-d": 0.0, "d-d": 0.0}  # alpha of eq. 13


def segmentor_objective(config: Settings, network: Segmentor) -> ValueAndGrad:
    """Stage 1."""
    return segmentation.segmentor_objective(network, contrast_weight=CONTRAST_WEIGHT, hue=config.hue)


def estimator_objective(config: Settings, network: Segmentor, estimator: Estimator, segmentor: PyTree) -> ValueAndGrad:
    """Stage 2, beside the variables `segmentor`, of which it takes the scales alone."""
    alpha = CLASS_WEIGHT[config.variant]
    # The paper multiplies the contrast loss by alpha as well; the released code does not.
    contrast_weight = CONTRAST_WEIGHT * (alpha if config.preset == "paper" else 1.0)
    return segmentation.estimator_objective(
        network, estimator, class_weight=alpha, contrast_weight=contrast_weight, hue=config.hue,
        freeze_statistics=config.freeze_statistics, scales=scales(config, segmentor),
    )  # fmt: skip


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
