"""Methods of one Gaussian per class with a shared covariance, fitted to the features of a classifier."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax import scores
from quantjax.methods.base import Fitted, Method, Settings, TrainingRows, View
from quantjax.methods.perturbed import perturbed
from quantjax.types import Array, PyTree


def _fit(rows: TrainingRows, settings: Settings) -> Fitted:
    return Fitted({}, _classes(rows, settings))


def _fit_pair(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.features is not None
    return Fitted({}, (_classes(rows, settings), scores.fit_background(rows.features, **settings)))


def _classes(rows: TrainingRows, settings: Settings) -> scores.TiedGaussian:
    assert rows.features is not None
    assert rows.labels is not None
    return scores.fit_tied_gaussian(rows.features, rows.labels, rows.num_classes, **settings)


def _template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    def shape(*sizes: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype)

    counts = shape(num_classes, dtype=jnp.int32)
    return scores.TiedGaussian(
        shape(dimension), shape(dimension, dimension), shape(num_classes, dimension), counts, shape()
    )


def _pair_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return tuple(_template(settings, dimension, count) for count in (num_classes, 1))


def _mahalanobis(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.mahalanobis(params, view.output.features)


def _relative_mahalanobis(settings: Settings, params: PyTree, view: View) -> Array:
    classes, background = params
    return scores.relative_mahalanobis(classes, background, view.output.features)


def _gem(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.gem(params, view.output.features)


REGULARISATION = "chosen here: added to each variance, as a share of it"
STEP = f"QuantOD's tables; {REGULARISATION}"

_MAHALANOBIS = Method(
    "mahalanobis",
    "Lee et al., NeurIPS 2018, without perturbation",
    ("features",),
    _mahalanobis,
    defaults={"regularisation": 1e-6},
    source=REGULARISATION,
    learns_from=("features", "labels"),
    fit=_fit,
    template=_template,
    score_settings=(),
)
_GEM = _MAHALANOBIS._replace(name="gem", paper="Morteza and Li, AAAI 2022", score=_gem)

METHODS = (
    _MAHALANOBIS,
    perturbed(_MAHALANOBIS, epsilon=0.0005, source=STEP)._replace(paper="Lee et al., NeurIPS 2018"),
    _MAHALANOBIS._replace(
        name="relative_mahalanobis",
        paper="Ren et al., 2021, arXiv 2106.09022",
        score=_relative_mahalanobis,
        fit=_fit_pair,
        template=_pair_template,
    ),
    _GEM,
    perturbed(_GEM, epsilon=0.0005, source=STEP),
)
