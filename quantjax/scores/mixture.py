"""A mixture of Gaussians, one per class, over whitened features; higher score = more outlying."""

from __future__ import annotations

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

_ROWS_AT_ONCE = 8192


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
    rows = (np.asarray(features, np.float64) - centre) @ turned.T
    shares = (np.asarray(labels)[:, None] == np.arange(num_classes)).astype(np.float64)
    weights, means, variances = _maximise(rows, shares, floor)
    for _ in range(iterations):
        shares = _responsibilities(rows, weights, means, variances)
        weights, means, variances = _maximise(rows, shares, floor)
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


def _maximise(rows: np.ndarray, shares: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [K], means and variances [K, D]; rows are whitened, so that squares lose nothing in float64."""
    counts = shares.sum(axis=0) + 10.0 * np.finfo(np.float64).eps
    means = shares.T @ rows / counts[:, None]
    squares = sum(s.T @ r**2 for r, s in _blocks(rows, shares)) / counts[:, None]
    return counts / counts.sum(), means, np.maximum(squares - means**2, 0.0) + floor


def _responsibilities(rows: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """The share of each component in each row [N, K]."""
    constant = np.log(weights) - 0.5 * (np.log(variances) + means**2 / variances).sum(axis=1)
    parts = []
    for block, _ in _blocks(rows, rows):
        log = block @ (means / variances).T - 0.5 * block**2 @ (1.0 / variances).T + constant
        log -= log.max(axis=1, keepdims=True)
        parts.append(np.exp(log) / np.exp(log).sum(axis=1, keepdims=True))
    return np.concatenate(parts)


def _blocks(rows: np.ndarray, others: np.ndarray):
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE], others[start : start + _ROWS_AT_ONCE]
