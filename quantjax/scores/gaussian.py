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

from quantjax.checks import check_choice, check_finite, check_interval, check_labels, check_same_length, check_shape
from quantjax.gaussian import FEW_CENTRES, squared_distances
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

_ROWS_AT_ONCE = 1024  # of the fit's float64 copies: few enough for a cache; of many features more, see second_moments


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


class Moments(NamedTuple):
    """What a tied Gaussian is made of, on the host in float64."""

    counts: np.ndarray
    """[K] training rows per class"""
    means: np.ndarray
    """[K, D] of the classes"""
    covariance: np.ndarray
    """[D, D] within classes, divided by the number of rows"""
    sizes: np.ndarray
    """[D] the largest absolute value of each feature"""


def fit_tied_gaussian(
    features: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    regularisation: float = 1e-6,
    shrinkage: float | str = 0.0,
) -> TiedGaussian:
    """Fit class means and S = (1 - shrinkage) C + (shrinkage + regularisation) diag(v); C is that within classes.

    C = (1/N) sum_n (f_n - mu_yn)(f_n - mu_yn)^T and v its diagonal, so the units of a feature decide nothing; features
    that do not vary have the median v of the others. shrinkage lies in 0..1, or is "oas": see oas_shrinkage. features
    [N, D], labels [N] integers in 0..K-1. It runs on the host in float64, a block of rows at a time: the smallest
    variances decide the distance, float32 would lose them.
    Raises ValueError on wrong shapes, features that are not finite, labels outside the classes, a class without rows,
    or a singular covariance. Source: Lee et al. (NeurIPS 2018), section 2.1.
    """
    moments = tied_moments(features, labels, num_classes)
    return tied_gaussian(moments, regularisation=regularisation, shrinkage=shrinkage)


def fit_background(features: ArrayLike, *, regularisation: float = 1e-6) -> TiedGaussian:
    """Fit one Gaussian to all features [N, D] whatever their class: the background of relative_mahalanobis.

    Raises ValueError as fit_tied_gaussian does.
    """
    features = np.asarray(features)
    return fit_tied_gaussian(features, np.zeros(len(features), np.int32), 1, regularisation=regularisation)


def tied_moments(features: ArrayLike, labels: ArrayLike, num_classes: int) -> Moments:
    """The moments of features [N, D] of labels [N]; arguments and errors as fit_tied_gaussian."""
    features, labels = np.asarray(features), np.asarray(labels)
    _check_training_rows(features, labels, num_classes)
    counts = np.bincount(labels, minlength=num_classes)
    if (counts == 0).any():
        empty = ", ".join(map(str, np.flatnonzero(counts == 0)))
        raise ValueError(
            f"labels must have at least one row of each of the {num_classes} classes, got none of class {empty}; "
            "fit on more rows or lower num_classes"
        )
    means = _class_means(features, labels, counts)
    return Moments(counts, means, second_moments(features, means, labels) / len(features), _sizes(features))


def background_moments(moments: Moments) -> Moments:
    """Those of the same rows as one class: the covariance within classes plus that of their means."""
    shares = moments.counts / moments.counts.sum()
    centre = shares @ moments.means
    away = (moments.means - centre) * np.sqrt(shares)[:, None]
    counts = moments.counts.sum(keepdims=True)
    return Moments(counts, centre[None], moments.covariance + away.T @ away, moments.sizes)


def oas_shrinkage(moments: Moments) -> float:
    """The share in 0..1 of a diagonal target that makes the correlation matrix best: oracle approximating shrinkage.

    With R the D x D correlation matrix of N rows and a = mean R_ij^2: (a + 1) / ((N + 1)(a - 1/D)), at most 1.
    Source: Chen, Wiesel, Eldar and Hero (IEEE Trans. Signal Processing 2010), as scikit-learn has it.
    """
    variances = feature_variances(moments)
    squares = np.mean(moments.covariance**2 / variances[:, None] / variances)
    dimension = len(variances)
    level = np.mean(np.diag(moments.covariance) / variances) ** 2
    denominator = (moments.counts.sum() + 1.0) * (squares - level / dimension)
    return 1.0 if denominator <= 0.0 else float(min((squares + level) / denominator, 1.0))


def tied_gaussian(moments: Moments, *, regularisation: float = 1e-6, shrinkage: float | str = 0.0) -> TiedGaussian:
    """The Gaussian of those moments; arguments and errors as fit_tied_gaussian."""
    check_interval("regularisation", regularisation, 0.0, float("inf"), closed="left")
    share = chosen_shrinkage(moments, shrinkage)
    scale = np.diag(feature_variances(moments))
    covariance = (1.0 - share) * moments.covariance + (share + regularisation) * scale
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"the tied covariance of {moments.counts.sum()} rows in {len(scale)} dimensions is singular at "
            f"regularisation {regularisation}; raise it, or the shrinkage"
        ) from None
    whitening = np.linalg.solve(factor, np.eye(len(factor)))
    centre = moments.counts @ moments.means / moments.counts.sum()
    return TiedGaussian(
        centre=jnp.asarray(centre, jnp.float32),
        whitening=jnp.asarray(whitening, jnp.float32),
        means=jnp.asarray((moments.means - centre) @ whitening.T, jnp.float32),
        counts=jnp.asarray(moments.counts, jnp.int32),
        log_det_covariance=jnp.asarray(2.0 * np.sum(np.log(np.diag(factor))), jnp.float32),
    )


def chosen_shrinkage(moments: Moments, shrinkage: float | str) -> float:
    """A number of 0..1 as it is, for "oas" that of oas_shrinkage; raises ValueError for anything else."""
    if isinstance(shrinkage, str):
        check_choice("shrinkage", shrinkage, ("oas",))
        return oas_shrinkage(moments)
    check_interval("shrinkage", shrinkage, 0.0, 1.0)
    return float(shrinkage)


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

    It rounds by up to 1e-6 of mahalanobis, the larger of the two: of a row far out along directions in which the
    classes do not differ, where both are large and nearly equal, few digits of the difference are left.
    Raises ValueError when the background has several classes or features are not [B, D] of the fits' D.
    Source: Ren et al. (2021), "A simple fix to Mahalanobis distance", halved.
    """
    if background.means.shape[0] != 1:
        raise ValueError(f"background must have one class, got {background.means.shape[0]}; use fit_background")
    return mahalanobis(gaussian, features) - mahalanobis(background, features)


def typicality(gaussian: TiedGaussian, features: Array) -> Array:
    """Return | -log p(f) - entropy | under one Gaussian, | d / 2 - D / 2 | with d the squared distance; [B], >= 0.

    A row nearer to the mean than inliers are is as suspicious as one that is farther. Raises ValueError when there are
    several classes or features are not [B, D] of the fit's D. Source: Nalisnick et al. (2019), arXiv 1906.02994.
    """
    if gaussian.means.shape[0] != 1:
        raise ValueError(f"typicality needs one class, got {gaussian.means.shape[0]}; use fit_background")
    return jnp.abs(mahalanobis(gaussian, features) - 0.5 * gaussian.centre.shape[0])


def whiten(gaussian: TiedGaussian, features: Array) -> Array:
    """Return L^-1 (f - centre): unit covariance within classes; [B, D] -> [B, D].

    Raises ValueError when features are not [B, D] of the fit's D.
    """
    check_shape("features", features, f"[B, {gaussian.centre.shape[0]}]")
    centred = jnp.asarray(features, jnp.float32) - gaussian.centre[None, :]
    return jnp.matmul(centred, gaussian.whitening.T, precision=jax.lax.Precision.HIGHEST)


def _half_distances(gaussian: TiedGaussian, features: Array) -> Array:
    """[B, D] -> [B, K]."""
    whitened = whiten(gaussian, features)
    if gaussian.means.shape[0] <= FEW_CENTRES:
        return 0.5 * squared_distances(whitened, gaussian.means)
    return 0.5 * _many_distances(whitened, gaussian.means)


def _many_distances(z: Array, means: Array) -> Array:
    """||z - m_k||^2 of many classes by two matrix products; that of the nearest class from the difference itself.

    With a the class that a product calls nearest and e = z - m_a: ||e||^2 + 2 (e . m_a - e . m_k) + ||m_a - m_k||^2,
    which rounds by |e| |m| and not by |m|^2.
    """
    squares = jnp.sum(means * means, axis=1)
    anchor = jnp.argmax(_product(z, means) - 0.5 * squares[None, :], axis=1)
    away = z - means[anchor]
    products = _product(away, means)
    own = jnp.take_along_axis(products, anchor[:, None], axis=1)
    found = jnp.sum(away * away, axis=1)[:, None] + 2.0 * (own - products) + squared_distances(means, means)[anchor]
    nearest = jnp.argmin(found, axis=1)
    away = z - means[nearest]
    exact = jnp.sum(away * away, axis=1)[:, None]
    classes = jax.lax.broadcasted_iota(jnp.int32, found.shape, 1)
    return jnp.where(classes == nearest[:, None], exact, jnp.maximum(found, exact))


def _product(rows: Array, means: Array) -> Array:
    return jnp.matmul(rows, means.T, precision=jax.lax.Precision.HIGHEST)


def _check_training_rows(features: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    check_shape("features", features, "[N, D]")
    check_shape("labels", labels, "[N]")
    check_same_length(features=features, labels=labels)
    if len(features) == 0:
        raise ValueError("features must have at least one row, got none")
    check_finite("features", features)
    check_labels("labels", labels, num_classes)


def second_moments(rows: np.ndarray, origins: np.ndarray, own: np.ndarray) -> np.ndarray:
    """sum_n (f_n - o_n)(f_n - o_n)^T [D, D] in float64; rows [N, D], o_n row own[n] of origins [K, D].

    Rows are shifted before they are multiplied, a part after the other in one buffer.
    """
    dimension = rows.shape[1]
    size = max(_ROWS_AT_ONCE, 2 * dimension)  # so that adding a [D, D] stays cheap beside making it
    total, product = np.zeros((dimension, dimension)), np.empty((dimension, dimension))
    buffer = np.empty((min(size, len(rows)), dimension))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        shifted = np.take(origins, own[start : start + size], axis=0, out=buffer[: len(part)], mode="clip")
        np.subtract(part, shifted, out=shifted)
        total += np.matmul(shifted.T, shifted, out=product)
    return total


def _class_means(features: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[K, D] float64."""
    own = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    return np.stack([features[rows].mean(axis=0, dtype=np.float64) for rows in own])


def _sizes(features: np.ndarray) -> np.ndarray:
    """The largest absolute value of each feature, [D] float64."""
    return np.maximum(np.abs(features.max(axis=0).astype(np.float64)), np.abs(features.min(axis=0).astype(np.float64)))


def feature_variances(moments: Moments) -> np.ndarray:
    """Those within classes [D]; of features that vary by no more than float32 rounds their size, the median's."""
    variances, sizes = np.diag(moments.covariance), moments.sizes
    varies = variances > (1e-6 * sizes) ** 2
    return np.where(varies, variances, np.median(variances[varies]) if varies.any() else 1.0)
