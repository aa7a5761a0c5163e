"""Methods of one Gaussian per class with a shared covariance, fitted to the features of a classifier."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import scores
from quantjax.methods.base import Fitted, Method, Settings, TrainingRows, View
from quantjax.methods.normalised import features_at, rows_at
from quantjax.methods.perturbed import perturbed
from quantjax.types import Array, PyTree


def _fit(rows: TrainingRows, settings: Settings) -> Fitted:
    fitted, moments, options = _moments(rows, settings)
    return Fitted(fitted, scores.tied_gaussian(moments, **options))


def _fit_pair(rows: TrainingRows, settings: Settings) -> Fitted:
    fitted, moments, options = _moments(rows, settings)
    background = scores.background_moments(moments)
    return Fitted(fitted, (scores.tied_gaussian(moments, **options), scores.tied_gaussian(background, **options)))


def _fit_background(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.features is not None
    one = rows._replace(labels=np.zeros(len(rows.features), np.int32), num_classes=1)
    return _fit(one, settings)


def _moments(rows: TrainingRows, settings: Settings) -> tuple[Settings, scores.Moments, Settings]:
    """(settings of the score, moments, options of tied_gaussian); the share that was chosen stands in both."""
    assert rows.features is not None
    assert rows.labels is not None
    features = rows_at(rows, settings)
    moments = scores.tied_moments(features, rows.labels, rows.num_classes)
    share = scores.chosen_shrinkage(moments, settings["shrinkage"])
    options = {"regularisation": settings["regularisation"], "shrinkage": share}
    return {"beta": settings["beta"], "shrinkage": share}, moments, options


def _fit_mixture(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.labels is not None
    features = rows_at(rows, settings)
    options = {key: value for key, value in settings.items() if key != "beta"}
    fitted = scores.fit_gaussian_mixture(features, rows.labels, rows.num_classes, **options)
    return Fitted({"beta": settings["beta"]}, fitted)


def _template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    def shape(*sizes: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype)

    counts = shape(num_classes, dtype=jnp.int32)
    return scores.TiedGaussian(
        shape(dimension), shape(dimension, dimension), shape(num_classes, dimension), counts, shape()
    )


def _pair_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return tuple(_template(settings, dimension, count) for count in (num_classes, 1))


def _background_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return _template(settings, dimension, 1)


def _mixture_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    table: Any = jax.ShapeDtypeStruct((num_classes, dimension), jnp.float32)
    weights: Any = jax.ShapeDtypeStruct((num_classes,), jnp.float32)
    return scores.Mixture(_template(settings, dimension, num_classes), weights, table, table)


def _mahalanobis(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.mahalanobis(params, features_at(view, settings))


def _relative_mahalanobis(settings: Settings, params: PyTree, view: View) -> Array:
    classes, background = params
    return scores.relative_mahalanobis(classes, background, features_at(view, settings))


def _gem(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.gem(params, features_at(view, settings))


def _typicality(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.typicality(params, features_at(view, settings))


def _gaussian_mixture(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.gaussian_mixture(params, features_at(view, settings))


REGULARISATION = "chosen here: added to each variance, as a share of it"
STEP = f"QuantOD's tables; {REGULARISATION}"

_MAHALANOBIS = Method(
    "mahalanobis",
    "Lee et al., NeurIPS 2018, without perturbation",
    ("features",),
    _mahalanobis,
    defaults={"regularisation": 1e-6, "shrinkage": 0.0, "beta": 0.0},
    source=REGULARISATION,
    learns_from=("features", "labels"),
    fit=_fit,
    template=_template,
    score_settings=("beta", "shrinkage"),
)
_GEM = _MAHALANOBIS._replace(name="gem", paper="Morteza and Li, AAAI 2022", score=_gem)

_RELATIVE = _MAHALANOBIS._replace(
    name="relative_mahalanobis",
    paper="Ren et al., 2021, arXiv 2106.09022",
    score=_relative_mahalanobis,
    fit=_fit_pair,
    template=_pair_template,
)
_ON_DIRECTIONS = {**_MAHALANOBIS.defaults, "beta": 1.0}

METHODS = (
    _MAHALANOBIS,
    perturbed(_MAHALANOBIS, epsilon=0.0005, source=STEP)._replace(paper="Lee et al., NeurIPS 2018"),
    _RELATIVE,
    _GEM,
    perturbed(_GEM, epsilon=0.0005, source=STEP),
    _MAHALANOBIS._replace(
        name="mahalanobis_pp",
        paper="Mueller and Hein, ICML 2025",
        defaults=_ON_DIRECTIONS,
        source=f"the paper; regularisation {REGULARISATION}",
    ),
    _RELATIVE._replace(
        name="relative_mahalanobis_pp",
        paper="Ren et al., 2021, on directions as Mueller and Hein, ICML 2025",
        defaults=_ON_DIRECTIONS,
    ),
    _MAHALANOBIS._replace(
        name="typicality",
        paper="Nalisnick et al., 2019, arXiv 1906.02994, under one Gaussian",
        score=_typicality,
        learns_from=("features",),
        fit=_fit_background,
        template=_background_template,
    ),
    Method(
        "gaussian_mixture",
        "Bishop, 1994, negative log density; one Gaussian per class, then expectation maximisation",
        ("features",),
        _gaussian_mixture,
        defaults={"iterations": 5, "floor": 0.01, "regularisation": 1e-6, "beta": 0.0},
        source="chosen here",
        learns_from=("features", "labels"),
        fit=_fit_mixture,
        template=_mixture_template,
        score_settings=("beta",),
    ),
)
