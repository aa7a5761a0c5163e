"""A mixture of Gaussians, one per class, over whitened features; higher score = more outlying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_interval
from quantjax.gaussian import diagonal_log_density
from quantjax.scores.gaussian import Moments, TiedGaussian, feature_variances, tied_gaussian, tied_moments, whiten
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

_ROWS_AT_ONCE = 1024  # few enough for a cache
Gaussians = tuple[np.ndarray, np.ndarray, np.ndarray]  # weights [K], means and variances [K, D]
Shares = Callable[[np.ndarray, slice], np.ndarray]  # (rows and their squares [n, 2 D], which of all) -> [n, K]


class Mixture(NamedTuple):
    """Gaussians with axes in common, in coordinates z in which their common one is white; float32."""

    tied: TiedGaussian
    """one covariance for all classes, whose whitening leads to the principal axes of the correlation"""
    log_weights: Array
    """[K] log of the classes' shares"""
    means: Array
    """[K, D] of z"""
    variances: Array
    """[K, D] of z"""


def fit_gaussian_mixture(
    features: ArrayLike, labels: ArrayLike, num_classes: int, *, iterations: int = 5, floor: float = 1e-2,
    regularisation: float = 1e-6,
) -> Mixture:  # fmt: skip
    """Fit K Gaussians of diagonal covariance to features [N, D] whitened within classes, on the host in float64.

    They start at the classes of labels [N]; then come so many iterations of expectation maximisation without labels
    (Dempster et al., 1977). `floor` is added to every variance, where 1 is that within classes. The whitened axes are
    the principal axes of the correlation within classes. Raises ValueError as fit_tied_gaussian, and for negative
    iterations or a floor that is not positive.
    """
    check_interval("iterations", iterations, 0, float("inf"))
    check_interval("floor", floor, 0.0, float("inf"), closed="neither")
    moments = tied_moments(features, labels, num_classes)
    tied = tied_gaussian(moments, regularisation=regularisation)
    turned, centre = _whitening(moments, regularisation), np.asarray(tied.centre, np.float64)
    tied = tied._replace(
        whitening=jnp.asarray(turned, jnp.float32),
        means=jnp.asarray((moments.means - centre) @ turned.T, jnp.float32),
    )
    rows, labels = _turned(np.asarray(features), centre, turned), np.asarray(labels)
    found = _maximise(rows, lambda part, own: np.eye(num_classes)[labels[own]], num_classes, floor)
    for _ in range(iterations):
        found = _maximise(rows, _responsibilities(*found), num_classes, floor)
    weights, means, variances = found
    return Mixture(tied, *(jnp.asarray(value, jnp.float32) for value in (np.log(weights), means, variances)))


def gaussian_mixture(mixture: Mixture, features: Array) -> Array:
    """Return -log sum_k w_k N(z; mean_k, variance_k) of the whitened features, in nats; features [B, D] -> [B].

    Its constant log |L| is left out. Raises ValueError when features are not [B, D] of the fit's D. Source: density of
    a Gaussian mixture; as an outlier score Bishop (1994), "Novelty detection and neural network validation".
    """
    z = whiten(mixture.tied, features)
    log_density = diagonal_log_density(z, mixture.means, mixture.variances) + mixture.log_weights[None, :]
    return nan_unless_sound(-jax.nn.logsumexp(log_density, axis=1), features)


def _whitening(moments: Moments, regularisation: float) -> np.ndarray:
    """[D, D] float64 map to the principal axes of the correlation within classes, each divided by its deviation."""
    deviations = np.sqrt(feature_variances(moments))
    correlation = moments.covariance / deviations[:, None] / deviations
    values, vectors = np.linalg.eigh(correlation + regularisation * np.eye(len(correlation)))
    return vectors.T / np.sqrt(values)[:, None] / deviations


def _turned(features: np.ndarray, centre: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """[N, D] float64: features in the coordinates of _whitening."""
    rows = np.empty(features.shape)
    for own in _parts(len(features)):
        np.matmul(features[own] - centre, turned.T, out=rows[own])
    return rows


def _maximise(rows: np.ndarray, shares: Shares, num_classes: int, floor: float) -> Gaussians:
    """Of rows [N, D] that are whitened, so that squares lose nothing in float64."""
    counts, sums = np.full(num_classes, 10.0 * np.finfo(np.float64).eps), np.zeros((num_classes, 2 * rows.shape[1]))
    for own in _parts(len(rows)):
        part = np.concatenate([rows[own], rows[own] ** 2], axis=1)
        share = shares(part, own)
        counts += share.sum(axis=0)
        sums += share.T @ part
    means, squares = np.split(sums / counts[:, None], 2, axis=1)
    return counts / counts.sum(), means, np.maximum(squares - means**2, 0.0) + floor


def _responsibilities(weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> Shares:
    """The share of each component in each row, whichever of all rows it is."""
    constant = np.log(weights) - 0.5 * (np.log(variances) + means**2 / variances).sum(axis=1)
    factors = np.concatenate([means / variances, -0.5 / variances], axis=1).T

    def shares(part: np.ndarray, own: slice) -> np.ndarray:
        log = part @ factors + constant
        likely = np.exp(log - log.max(axis=1, keepdims=True))
        return likely / likely.sum(axis=1, keepdims=True)

    return shares


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, count, _ROWS_AT_ONCE))
