"""Sums of several methods' scores, each brought to the scale that it has on the training rows."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.methods import gaussian, layers, logits, registry
from quantjax.methods.base import (
    Fitted,
    Method,
    Settings,
    TrainingRows,
    View,
    blocks,
    complete_settings,
    named,
    needs_network,
)
from quantjax.parallel import on_its_device, pad_axis
from quantjax.types import Array, ClassifierOutput, PyTree


def combine(*parts: Method | str, name: str | None = None) -> Method:
    """The method whose score is sum_i (s_i - m_i) / d_i, with mean m_i and deviation d_i of s_i on training rows.

    Parts are methods or names of registered ones: register(combine("energy", "knn")). Its settings are those of its
    parts, written `part.setting`; it is called by their names joined with "_" unless `name` says otherwise, and is not
    registered yet. A part that knows training rows by heart (knn finds a row's own place in its bank) has a smaller
    scale there than on new rows, and weighs more.
    Raises ValueError for fewer than two methods, two of one name, or one that needs the network itself.
    """
    methods = tuple(registry.get(part) if isinstance(part, str) else part for part in parts)
    if len({method.name for method in methods}) < max(2, len(methods)):
        given = ", ".join(method.name for method in methods) or "none"
        raise ValueError(f"combine needs two methods or more of different names, got {given}")
    for method in methods:
        if needs_network(method):
            raise ValueError(f"method {method.name} needs the network: only scores of cached outputs can be combined")

    def fit(rows: TrainingRows, settings: Settings) -> Fitted:
        return join(rows, [method.fit(rows, _of(method, settings)) for method in methods])

    def join(rows: TrainingRows, fitted: Sequence[Fitted]) -> Fitted:
        return Fitted(
            {
                f"{m.name}.{key}": value
                for m, one in zip(methods, fitted, strict=True)
                for key, value in one.settings.items()
            },
            tuple(_with_scale(method, one, rows) for method, one in zip(methods, fitted, strict=True)),
        )

    def score(settings: Settings, params: PyTree, view: View) -> Array:
        total: Any = 0.0
        for method, (own, mean, deviation) in zip(methods, params, strict=True):
            total = total + (method.score(_of(method, settings), own, view) - mean) / deviation
        return total

    def template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        return tuple((m.template(_of(m, settings), dimension, num_classes), scalar, scalar) for m in methods)

    known = [m.defaults if m.score_settings is None else m.score_settings for m in methods]
    return Method(
        name or "_".join(method.name for method in methods),
        "sum of standardised scores: " + ", ".join(method.name for method in methods),
        tuple(dict.fromkeys(part for method in methods for part in method.reads)),
        score,
        defaults={f"{m.name}.{key}": value for m in methods for key, value in complete_settings(m, None).items()},
        source="chosen here: weights of 1",
        learns_from=tuple(dict.fromkeys(part for m in methods for part in (*m.learns_from, *m.reads))),
        least_rows=lambda settings: max(2, *(m.least_rows(_of(m, settings)) for m in methods)),  # 2: a deviation
        least_rows_of_a_class=lambda settings: max(m.least_rows_of_a_class(_of(m, settings)) for m in methods),
        fit=fit,
        parts=tuple(method.name for method in methods),
        join=join,
        template=template,
        score_settings=tuple(f"{m.name}.{key}" for m, keys in zip(methods, known, strict=True) for key in keys),
    )


def _of(method: Method, settings: Settings) -> Settings:
    """The settings of one part."""
    prefix = f"{method.name}."
    return {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}


def _with_scale(method: Method, fitted: Fitted, rows: TrainingRows) -> tuple[PyTree, Array, Array]:
    """(parameters, mean, deviation of the score on the training rows)."""
    found = _training_scores(method, fitted, rows)
    mean, deviation = found.mean(), found.std()
    if not (np.isfinite(mean) and deviation > 0.0):
        raise ValueError(
            f"scores of {method.name} on the training rows must be finite and not all equal, got mean {mean} and "
            f"deviation {deviation}; leave it out of the sum"
        )
    return fitted.params, jnp.asarray(mean, jnp.float32), jnp.asarray(deviation, jnp.float32)


def _training_scores(method: Method, fitted: Fitted, rows: TrainingRows) -> np.ndarray:
    """[N] float64; one program scores all parts, of which the last is filled up."""
    score = _compiled(cast(Hashable, method.score), json.dumps(dict(fitted.settings), sort_keys=True))
    found, size = [], 0
    for part in blocks(rows):
        arrays = (part.logits, part.features, part.layers)
        count = len(jax.tree.leaves(arrays)[0])
        size = size or count
        given = jax.tree.map(lambda array, size=size: pad_axis(np.asarray(array, np.float32), 0, size), arrays)
        found.append(np.asarray(score(fitted.params, given), np.float64)[:count])
    return np.concatenate(found)


@lru_cache(maxsize=32)
def _compiled(score: Any, settings: str) -> Any:
    """(parameters, (logits, features, layers)) -> [B]; kept, so that fits of a sweep compile once."""

    def on_arrays(params: PyTree, arrays: Any) -> Array:
        logits, features, layers = arrays
        return score(json.loads(settings), params, View(ClassifierOutput(logits, features, {}), layers=layers))

    return on_its_device(on_arrays)


_ENERGY = named(logits.METHODS, "energy")
METHODS = (
    combine(_ENERGY, named(gaussian.METHODS, "mahalanobis_pp")),
    combine(_ENERGY, named(layers.METHODS, "mahalanobis_layers")),
    combine(_ENERGY, named(layers.METHODS, "quantod_layers")),
)
