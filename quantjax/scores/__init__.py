"""Outlier scores: pure functions on arrays, one score per row, higher = more outlying.

Papers of this field print scores as confidences; each function here returns the negative of its paper's formula.
Scores of a row do not depend on the other rows of the batch. The `fit_*` functions look at concrete arrays, once.
"""

from quantjax.documented import show_fields
from quantjax.scores.gaussian import (
    TiedGaussian,
    fit_background,
    fit_tied_gaussian,
    gem,
    mahalanobis,
    relative_mahalanobis,
)
from quantjax.scores.logits import energy, entropy, max_logit, msp, rba
from quantjax.scores.neighbours import Neighbours, fit_neighbours, knn
from quantjax.scores.perturbed import odin, perturb, perturbed
from quantjax.scores.ratio import Standardisation, fit_standardisation, inlier, likelihood_ratio, unknown

__all__ = [
    "Neighbours",
    "Standardisation",
    "TiedGaussian",
    "energy",
    "entropy",
    "fit_background",
    "fit_neighbours",
    "fit_standardisation",
    "fit_tied_gaussian",
    "gem",
    "inlier",
    "knn",
    "likelihood_ratio",
    "mahalanobis",
    "max_logit",
    "msp",
    "odin",
    "perturb",
    "perturbed",
    "rba",
    "relative_mahalanobis",
    "unknown",
]

show_fields(__name__)
