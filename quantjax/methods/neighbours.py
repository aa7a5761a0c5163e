"""Distance to the k-th nearest training feature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax import scores
from quantjax.methods.base import Fitted, Method, Settings, TrainingRows, View
from quantjax.types import ANY, Array, PyTree

FEWEST_ROWS = 100  # a training set too small for a bank of so many keeps more of its rows than every `step`-th


def _fit(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.features is not None
    k, step = settings["k"], min(settings["step"], max(1, len(rows.features) // FEWEST_ROWS))
    neighbours = scores.fit_neighbours(rows.features[::step])
    if not 1 <= k <= len(neighbours.bank):
        raise ValueError(f"k must lie in 1..{len(neighbours.bank)}, the rows of the bank, got {k}; fit on more rows")
    return Fitted({"k": k}, neighbours)


def _template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    bank: Any = jax.ShapeDtypeStruct((ANY, dimension), jnp.float32)
    return scores.Neighbours(bank)


def _knn(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.knn(params, view.output.features, **settings)


METHODS = (
    Method(
        "knn",
        "Sun et al., ICML 2022",
        ("features",),
        _knn,
        defaults={"k": 10, "step": 5},
        source="chosen here: the 10th neighbour among every 5th training row",
        learns_from=("features",),
        least_rows=lambda settings: int(settings["k"]),
        fit=_fit,
        template=_template,
        score_settings=("k",),
    ),
)
