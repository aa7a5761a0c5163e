"""Outlier scores: pure functions on arrays, one score per row, higher = more outlying.

Papers of this field print scores as confidences; each function here returns the negative of its paper's formula.
Scores of a row do not depend on the other rows of the batch. The `fit_*` functions look at concrete arrays, once.
"""

from quantjax.documented import show_fields
from quantjax.scores.boundary import Boundaries, Collapse, fdbd, fit_fdbd, fit_nci, nci
from quantjax.scores.gaussian import (
    Moments,
    TiedGaussian,
    background_moments,
    chosen_shrinkage,
    fit_background,
    fit_tied_gaussian,
    gem,
    mahalanobis,
    oas_shrinkage,
    relative_mahalanobis,
    tied_gaussian,
    tied_moments,
    typicality,
    whiten,
)
from quantjax.scores.head import LinearHead, head_logits, solve_head
from quantjax.scores.hopfield import fit_she, she
from quantjax.scores.kl_matching import fit_kl_matching, kl_matching
from quantjax.scores.logits import energy, entropy, gen, gradnorm, max_logit, msp, rba
from quantjax.scores.mixture import Mixture, fit_gaussian_mixture, gaussian_mixture
from quantjax.scores.neighbours import Neighbours, fit_neighbours, fit_nnguide, greedy_coreset, knn, nnguide
from quantjax.scores.normalise import normalise
from quantjax.scores.openmax import OpenMax, fit_openmax, openmax
from quantjax.scores.perturbed import odin, perturb, perturbed
from quantjax.scores.ratio import Standardisation, fit_standardisation, inlier, likelihood_ratio, unknown
from quantjax.scores.shaping import ash_b, ash_p, ash_s, dice, fit_dice, fit_react, react, scale
from quantjax.scores.subspace import Residual, fit_pca_residual, fit_residual, residual, vim
from quantjax.scores.temperature import fit_temperature

__all__ = [
    "Boundaries",
    "Collapse",
    "LinearHead",
    "Mixture",
    "Moments",
    "Neighbours",
    "OpenMax",
    "Residual",
    "Standardisation",
    "TiedGaussian",
    "ash_b",
    "ash_p",
    "ash_s",
    "background_moments",
    "chosen_shrinkage",
    "dice",
    "energy",
    "entropy",
    "fdbd",
    "fit_background",
    "fit_dice",
    "fit_fdbd",
    "fit_gaussian_mixture",
    "fit_kl_matching",
    "fit_nci",
    "fit_neighbours",
    "fit_nnguide",
    "fit_openmax",
    "fit_pca_residual",
    "fit_react",
    "fit_residual",
    "fit_she",
    "fit_standardisation",
    "fit_temperature",
    "fit_tied_gaussian",
    "gaussian_mixture",
    "gem",
    "gen",
    "gradnorm",
    "greedy_coreset",
    "head_logits",
    "inlier",
    "kl_matching",
    "knn",
    "likelihood_ratio",
    "mahalanobis",
    "max_logit",
    "msp",
    "nci",
    "nnguide",
    "normalise",
    "oas_shrinkage",
    "odin",
    "openmax",
    "perturb",
    "perturbed",
    "rba",
    "react",
    "relative_mahalanobis",
    "residual",
    "scale",
    "she",
    "solve_head",
    "tied_gaussian",
    "tied_moments",
    "typicality",
    "unknown",
    "vim",
    "whiten",
]

show_fields(__name__)
