"""How far rows lie from the directions in which training features vary."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax import scores
from quantjax.methods.base import Fitted, Method, Settings, TrainingRows, View
from quantjax.methods.normalised import features_at, rows_at
from quantjax.types import ANY, Array, PyTree


def _fit(rows: TrainingRows, settings: Settings) -> Fitted:
    fitted = scores.fit_pca_residual(rows_at(rows, settings), settings["share"])
    return Fitted({"beta": settings["beta"]}, fitted)


def _template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    def shape(*sizes: int) -> Any:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    return scores.Residual(shape(dimension), shape(dimension, ANY), shape())


def _score(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.residual(params, features_at(view, settings))


METHODS = (
    Method(
        "pca_residual",
        "Jackson and Mudholkar, Technometrics 1979, the root of Q, on directions",
        ("features",),
        _score,
        defaults={"share": 0.9, "beta": 1.0},
        source="chosen here: principal components hold 90 % of the variance",
        learns_from=("features",),
        fit=_fit,
        template=_template,
        score_settings=("beta",),
    ),
)
