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
    if settings["coreset"]:
        _check_k(settings["k"], min(settings["coreset"], len(rows.features)))
        kept = rows.features[scores.greedy_coreset(rows.features, settings["coreset"], settings["normalise"])]
    else:
        kept = rows.features[:: _step(rows, settings)]
    neighbours = scores.fit_neighbours(kept, normalise=settings["normalise"])
    return Fitted({"k": settings["k"], "normalise": settings["normalise"]}, neighbours)


def _fit_guided(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.features is not None
    assert rows.logits is not None
    step = _step(rows, settings)
    return Fitted({"k": settings["k"]}, scores.fit_nnguide(rows.features[::step], rows.logits[::step]))


def _step(rows: TrainingRows, settings: Settings) -> int:
    """Every how many rows the bank keeps one; raises ValueError when k is more than it keeps."""
    assert rows.features is not None
    step = min(settings["step"], max(1, len(rows.features) // FEWEST_ROWS))
    _check_k(settings["k"], -(-len(rows.features) // step))
    return step


def _check_k(k: int, kept: int) -> None:
    if not 1 <= k <= kept:
        raise ValueError(f"k must lie in 1..{kept}, the rows of the bank, got {k}; fit on more rows")


def _template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    bank: Any = jax.ShapeDtypeStruct((ANY, dimension), jnp.float32)
    return scores.Neighbours(bank)


def _knn(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.knn(params, view.output.features, **settings)


def _nnguide(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.nnguide(params, view.output.features, view.output.logits, **settings)


_KNN = Method(
    "knn",
    "Sun et al., ICML 2022",
    ("features",),
    _knn,
    defaults={"k": 10, "step": 5, "coreset": 0, "normalise": True},
    source="chosen here: the 10th neighbour among every 5th training row; a coreset of so many rows in their place",
    learns_from=("features",),
    least_rows=lambda settings: int(settings["k"]),
    fit=_fit,
    template=_template,
    score_settings=("k", "normalise"),
)

METHODS = (
    _KNN,
    _KNN._replace(
        name="knn_raw",
        paper="as knn, without its normalisation",
        defaults={**_KNN.defaults, "normalise": False},
    ),
    Method(
        "nnguide",
        "Park, Jung and Teoh, ICCV 2023",
        ("features", "logits"),
        _nnguide,
        defaults={"k": 10, "step": 5},
        source="chosen here, as knn",
        learns_from=("features", "logits"),
        least_rows=lambda settings: int(settings["k"]),
        fit=_fit_guided,
        template=_template,
        score_settings=("k",),
    ),
)
