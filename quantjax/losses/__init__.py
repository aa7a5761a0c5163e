"""Training objectives on arrays: likelihood losses of flows, losses of classifiers, and losses per pixel of segmentors.

Every loss is one value per row or pixel and the caller averages; the exceptions are statistics of the whole batch
(the quantile, and the terms of `baselines` that are means over the inlier or the outlier pixels).
"""

from quantjax.losses.baselines import pebal_loss, rba_loss
from quantjax.losses.exposure import (
    energy_above,
    energy_below,
    logistic_separation,
    logit_norm,
    squared_hinge,
    uniform_cross_entropy,
    weighted_energy,
)
from quantjax.losses.likelihood import (
    DrawMasks,
    LogLikelihood,
    cross_entropy,
    likelihood_objective,
    mean_nll,
    min_nll,
    quantile_nll,
    quantile_rows,
)
from quantjax.losses.pixels import likelihood_ratio_loss, pixel_cross_entropy, valid

__all__ = [
    "DrawMasks",
    "LogLikelihood",
    "cross_entropy",
    "energy_above",
    "energy_below",
    "likelihood_objective",
    "likelihood_ratio_loss",
    "logistic_separation",
    "logit_norm",
    "mean_nll",
    "min_nll",
    "pebal_loss",
    "pixel_cross_entropy",
    "quantile_nll",
    "quantile_rows",
    "rba_loss",
    "squared_hinge",
    "uniform_cross_entropy",
    "valid",
    "weighted_energy",
]
