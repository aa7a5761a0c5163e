"""The density of features under a normalizing flow that was trained with the quantile likelihood.

quantod_pp sees features normalised and whitened by the classes' common covariance. There its flow begins as a mixture
of one unit normal per class, the score of GEM on directions, from where training lifts the likelihood of the inliers
that have least.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import flows, scores
from quantjax.checks import check_shape
from quantjax.methods.base import Fitted, Method, Settings, TrainingRows, View
from quantjax.methods.normalised import features_at, rows_at
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array, PyTree

# of the flow itself; all other settings say how it is trained
SCORE_SETTINGS = tuple(name for name in inspect.signature(flows.quantod).parameters if name != "dtype")


def _fit(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.features is not None
    fitted = flows.fit(rows.features, **settings)
    return Fitted(fitted.settings, fitted.params)


def _template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    if settings.get("dimension") != dimension:
        raise ValueError(f"the flow must have the features' dimension {dimension}, got {settings.get('dimension')}")
    rows = jax.ShapeDtypeStruct((2, dimension), jnp.float32)
    return jax.eval_shape(flows.quantod(**settings).init, jax.random.key(0), rows)


def _quantod(settings: Settings, params: PyTree, view: View) -> Array:
    """-log p of the features under the flow, in nats."""
    check_shape("features", view.output.features, f"[B, {settings['dimension']}]")
    return -flows.log_likelihood(flows.quantod(**settings), params, view.output.features)


class WhitenedFlow(NamedTuple):
    """What quantod_pp fits."""

    centre: Array
    """[D] mean of the normalised features"""
    whitening: Array
    """[D, D] L^-1 of their covariance within classes, L L^T"""
    flow: PyTree
    """Of the whitened features"""


OF_FEATURES = ("beta", "regularisation")  # settings of quantod_pp that are not the flow's


def _fit_whitened(rows: TrainingRows, settings: Settings) -> Fitted:
    features = rows_at(rows, settings)
    assert rows.labels is not None
    gaussian = scores.fit_tied_gaussian(
        features, rows.labels, rows.num_classes, regularisation=settings["regularisation"]
    )
    own = {name: value for name, value in settings.items() if name not in OF_FEATURES}
    whitened = np.asarray(scores.whiten(gaussian, jnp.asarray(features)))
    fitted = flows.fit(whitened, centres=np.asarray(gaussian.means), **own)
    params = WhitenedFlow(gaussian.centre, gaussian.whitening, fitted.params)
    return Fitted({"beta": settings["beta"], **fitted.settings}, params)


def _whitened_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    own = _of_flow(settings)
    if own.get("components") != num_classes:
        raise ValueError(f"the flow must have a normal for each of {num_classes} classes, got {own.get('components')}")
    square: Any = jax.ShapeDtypeStruct((dimension, dimension), jnp.float32)
    row: Any = jax.ShapeDtypeStruct((dimension,), jnp.float32)
    return WhitenedFlow(row, square, _template(own, dimension, num_classes))


def _quantod_pp(settings: Settings, params: PyTree, view: View) -> Array:
    """-log p of the whitened features under the flow, in nats."""
    check_shape("features", view.output.features, f"[B, {settings['dimension']}]")
    features = features_at(view, settings)
    whitened = scores.whiten(params, features)
    likelihood = flows.log_likelihood(flows.quantod(**_of_flow(settings)), params.flow, whitened)
    return nan_unless_sound(-likelihood, features)


def _of_flow(settings: Settings) -> Settings:
    return {name: value for name, value in settings.items() if name not in OF_FEATURES}


METHODS = (
    Method(
        "quantod",
        "Taghikhah et al., AAAI 2024, eq. 3 and 4",
        ("features",),
        _quantod,
        defaults=flows.DEFAULTS,
        source="the paper, Table 3 and Meta-parameters",
        learns_from=("features",),
        least_rows=lambda settings: 2,
        fit=_fit,
        template=_template,
        score_settings=SCORE_SETTINGS,
    ),
    Method(
        "quantod_pp",
        "Taghikhah et al., AAAI 2024, eq. 4, from Gaussians on directions (Mueller and Hein, ICML 2025)",
        ("features",),
        _quantod_pp,
        defaults={**flows.BEST, "beta": 1.0, "regularisation": 1e-6},
        source="chosen here on inliers and synthetic outliers, docs/methods.md",
        learns_from=("features", "labels"),
        least_rows=lambda settings: 2,
        fit=_fit_whitened,
        template=_whitened_template,
        score_settings=(*SCORE_SETTINGS, "beta"),
    ),
)
