"""Outlier scores: pure functions on arrays, one score per row, higher = more outlying.

Papers of this field print scores as confidences; each function here returns the negative of its paper's formula.
Scores of a row do not depend on the other rows of the batch. The `fit_*` functions look at concrete arrays, once.
"""

from quantjax.scores.density import (
    TiedGaussian,
    fit_background,
    fit_tied_gaussian,
    gem,
    mahalanobis,
    relative_mahalanobis,
)
from quantjax.scores.logits import energy, max_logit, msp
from quantjax.scores.neighbours import Neighbours, fit_neighbours, knn
from quantjax.scores.perturbed import odin, perturb, perturbed

__all__ = [
    "Neighbours",
    "TiedGaussian",
    "energy",
    "fit_background",
    "fit_neighbours",
    "fit_tied_gaussian",
    "gem",
    "knn",
    "mahalanobis",
    "max_logit",
    "msp",
    "odin",
    "perturb",
    "perturbed",
    "relative_mahalanobis",
]
