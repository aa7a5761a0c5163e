"""Gaussian scores of features: one mean per class, one covariance for all; higher = more outlying.

With S = L L^T the tied covariance, z = L^-1 (f - c) and m_k = L^-1 (mu_k - c), the distances of all classes are

    (f - mu_k)^T S^-1 (f - mu_k) = ||z - m_k||^2,

one product with L^-1 for all classes. c is the mean of all features.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_finite, check_interval, check_labels, check_same_length, check_shape
from quantjax.gaussian import squared_distances
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

_ROWS_AT_ONCE = 8192  # bounds the float64 copies of the fit


class TiedGaussian(NamedTuple):
    """Class means and one covariance, kept as the maps that scoring needs; float32."""

    centre: Array
    """[D] mean of all features"""
    whitening: Array
    """[D, D] L^-1, lower triangular"""
    means: Array
    """[K, D] whitened class means L^-1 (mu_k - centre)"""
    counts: Array
    """[K] training rows per class"""
    log_det_covariance: Array
    """[] log |S|"""


def fit_tied_gaussian(
    features: ArrayLike, labels: ArrayLike, num_classes: int, *, regularisation: float = 1e-6
) -> TiedGaussian:
    """Fit class means and S = C + regularisation diag(v) on training features; C is the covariance within classes.

    C = (1/N) sum_n (f_n - mu_yn)(f_n - mu_yn)^T and v its diagonal, so the units of a feature decide nothing; features
    that do not vary have the median v of the others. features [N, D], labels [N] integers in 0..K-1. It runs on the
    host in float64, a block of rows at a time: the smallest variances decide the distance, float32 would lose them.
    Raises ValueError on wrong shapes, features that are not finite, labels outside the classes, a class without rows,
    or a singular covariance. Source: Lee et al. (NeurIPS 2018), section 2.1.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    _check_training_rows(features, labels, num_classes)
    check_interval("regularisation", regularisation, 0.0, float("inf"), closed="left")
    counts = np.bincount(labels, minlength=num_classes)
    if (counts == 0).any():
        empty = ", ".join(map(str, np.flatnonzero(counts == 0)))
        raise ValueError(
            f"labels must have at least one row of each of the {num_classes} classes, got none of class {empty}; "
            "fit on more rows or lower num_classes"
        )
    means = _class_means(features, labels, num_classes, counts)
    covariance = _covariance(features, labels, means)
    covariance += regularisation * np.diag(_scale(np.diag(covariance), _sizes(features)))
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"the tied covariance of {len(features)} rows in {features.shape[1]} dimensions is singular at "
            f"regularisation {regularisation}; raise it"
        ) from None
    whitening = np.linalg.solve(factor, np.eye(len(factor)))
    centre = counts @ means / len(features)
    return TiedGaussian(
        centre=jnp.asarray(centre, jnp.float32),
        whitening=jnp.asarray(whitening, jnp.float32),
        means=jnp.asarray((means - centre) @ whitening.T, jnp.float32),
        counts=jnp.asarray(counts, jnp.int32),
        log_det_covariance=jnp.asarray(2.0 * np.sum(np.log(np.diag(factor))), jnp.float32),
    )


def fit_background(features: ArrayLike, *, regularisation: float = 1e-6) -> TiedGaussian:
    """Fit one Gaussian to all features [N, D] whatever their class: the background of relative_mahalanobis.

    Raises ValueError as fit_tied_gaussian does.
    """
    features = np.asarray(features)
    return fit_tied_gaussian(features, np.zeros(len(features), np.int32), 1, regularisation=regularisation)


def mahalanobis(gaussian: TiedGaussian, features: Array) -> Array:
    """Return half the squared Mahalanobis distance to the nearest class mean; features [B, D] -> [B], >= 0.

    NaN, as in all scores here, for a row that is not finite or whose squares are not. It is min_k (1/2)(f - mu_k)^T
    S^-1 (f - mu_k). Raises ValueError when features are not [B, D] of the fit's D.
    Source: Lee et al. (NeurIPS 2018), section 2.2, halved.
    """
    return nan_unless_sound(jnp.min(_half_distances(gaussian, features), axis=1), features)


def gem(gaussian: TiedGaussian, features: Array) -> Array:
    """Return -logsumexp_k of -(1/2)(f - mu_k)^T S^-1 (f - mu_k), in nats; features [B, D] -> [B].

    Classes weigh the same and the Gaussians' common constant is left out, as in the paper.
    Raises ValueError when features are not [B, D] of the fit's D. Source: Morteza and Li (AAAI 2022), GEM score.
    """
    return nan_unless_sound(-jax.nn.logsumexp(-_half_distances(gaussian, features), axis=1), features)


def relative_mahalanobis(gaussian: TiedGaussian, background: TiedGaussian, features: Array) -> Array:
    """Return mahalanobis under the classes minus that under the background; features [B, D] -> [B].

    Raises ValueError when the background has several classes or features are not [B, D] of the fits' D.
    Source: Ren et al. (2021), "A simple fix to Mahalanobis distance", halved.
    """
    if background.means.shape[0] != 1:
        raise ValueError(f"background must have one class, got {background.means.shape[0]}; use fit_background")
    return mahalanobis(gaussian, features) - mahalanobis(background, features)


def _half_distances(gaussian: TiedGaussian, features: Array) -> Array:
    """[B, D] -> [B, K]."""
    check_shape("features", features, f"[B, {gaussian.centre.shape[0]}]")
    centred = jnp.asarray(features, jnp.float32) - gaussian.centre[None, :]
    whitened = jnp.matmul(centred, gaussian.whitening.T, precision=jax.lax.Precision.HIGHEST)
    return 0.5 * squared_distances(whitened, gaussian.means)


def _check_training_rows(features: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    check_shape("features", features, "[N, D]")
    check_shape("labels", labels, "[N]")
    check_same_length(features=features, labels=labels)
    if len(features) == 0:
        raise ValueError("features must have at least one row, got none")
    check_finite("features", features)
    check_labels("labels", labels, num_classes)


def _blocks(features: np.ndarray, labels: np.ndarray):
    for start in range(0, len(features), _ROWS_AT_ONCE):
        stop = start + _ROWS_AT_ONCE
        yield features[start:stop].astype(np.float64), labels[start:stop]


def _class_means(features: np.ndarray, labels: np.ndarray, num_classes: int, counts: np.ndarray) -> np.ndarray:
    """[K, D] float64; sums of rows as one product with the one-hot labels per block."""
    total = np.zeros((num_classes, features.shape[1]))
    for block, own in _blocks(features, labels):
        total += (own[:, None] == np.arange(num_classes)).T.astype(np.float64) @ block
    return total / counts[:, None]


def _covariance(features: np.ndarray, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
    """[D, D] float64, within classes, divided by N; rows are centred before they are multiplied."""
    total = np.zeros((features.shape[1], features.shape[1]))
    for block, own in _blocks(features, labels):
        block = block - means[own]
        total += block.T @ block
    return total / len(features)


def _sizes(features: np.ndarray) -> np.ndarray:
    """The largest absolute value of each feature, [D] float64."""
    return np.maximum(np.abs(features.max(axis=0).astype(np.float64)), np.abs(features.min(axis=0).astype(np.float64)))


def _scale(variances: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Variances [D]; of features that vary by no more than float32 rounds values of their size [D], the median's."""
    varies = variances > (1e-6 * sizes) ** 2
    return np.where(varies, variances, np.median(variances[varies]) if varies.any() else 1.0)
