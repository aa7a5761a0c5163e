"""A method fitted to the patches of each map, and how the maps' scores are brought to one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import methods
from quantjax.checks import check_finite
from quantjax.inference import map_batches
from quantjax.patches.rows import PatchRows
from quantjax.types import Array, ClassifierOutput, PyTree

CHECKED = 20_000  # patches, at most, that tell the mean and deviation of a map's scores
AT_ONCE = 4096


class PatchMethod(NamedTuple):
    """What scores the patches, beside the arrays it needs."""

    name: str
    """Of a registered method that reads features alone"""
    maps: tuple[str, ...]
    """Names of the maps it was fitted to, J of them"""
    settings: tuple[methods.Settings, ...]
    """[J] of the score, one for each map"""
    classes: tuple[int, ...]
    """[J] how many classes of patches it was fitted to"""


class FittedPatches(NamedTuple):
    """What fitting gives."""

    method: PatchMethod
    """Name, maps and settings."""
    params: PyTree
    """{name of a map: {"method": what the method fitted, "mean": [], "deviation": []}}; mean and deviation are those of
    the reference patches' scores"""


def check_method(name: str) -> methods.Method:
    """The method of that name; raises ValueError unless it reads features alone and learns from no logits."""
    method = methods.get(name)
    if method.reads != ("features",) or not {*method.learns_from} <= {"features", "labels"}:
        able = [one for one in methods.names() if _is_able(methods.get(one))]
        raise ValueError(f"a method of patches must read features alone: one of {', '.join(able)}; got {name!r}")
    return method


def _is_able(method: methods.Method) -> bool:
    return method.reads == ("features",) and {*method.learns_from} <= {"features", "labels"}


def fit_patches(name: str, rows: PatchRows, *, settings: methods.Settings | None = None) -> FittedPatches:
    """Fit the method of that name to every map of `rows`, and find the scale of its scores on the same patches.

    Without labels all patches are one class; classes that no patch has are left out. settings replace the method's
    defaults. Raises ValueError as check_method does, for an unknown setting, and for patches that the method cannot be
    fitted to.
    """
    method = check_method(name)
    chosen = methods.complete_settings(method, settings)
    found, counts, params = [], [], {}
    for key, features in rows.features.items():
        check_finite(f"features of map {key}", features, "check the weights and their preprocessing")
        given = np.zeros(len(features), np.int32) if rows.labels is None else rows.labels[key]
        classes, labels = np.unique(given, return_inverse=True)  # numbered anew: a method needs rows of every class
        methods.check_rows(method, len(features))
        fitted = method.fit(methods.TrainingRows(features, labels.astype(np.int32), len(classes)), chosen)
        shown = features[:: -(-len(features) // CHECKED)]
        scores = map_batches(_scored(method, fitted), shown, batch_size=AT_ONCE)
        mean, deviation = float(np.mean(scores)), float(np.std(scores))
        if not np.isfinite(mean) or not deviation > 0.0:
            raise ValueError(f"scores of {name} on map {key} must vary, got deviation {deviation}; give more scenes")
        found.append(fitted.settings)
        counts.append(len(classes))
        params[key] = {"method": fitted.params, "mean": np.float32(mean), "deviation": np.float32(deviation)}
    return FittedPatches(PatchMethod(name, tuple(rows.features), tuple(found), tuple(counts)), params)


def _scored(method: methods.Method, fitted: methods.Fitted) -> Any:
    return lambda features: score_rows(method, fitted.settings, fitted.params, features)


def score_rows(method: methods.Method, settings: methods.Settings, params: PyTree, features: Array) -> Array:
    """[N, C] -> [N], higher = more outlying."""
    output: Any = ClassifierOutput(None, features, {})  # type: ignore[arg-type]
    with jax.default_matmul_precision("highest"):
        return method.score(settings, params, methods.View(output)).astype(jnp.float32)


def template(method: PatchMethod, widths: Sequence[int]) -> PyTree:
    """The shapes that FittedPatches.params must have for maps of these numbers of channels."""
    scalar: Any = jax.ShapeDtypeStruct((), jnp.float32)
    known = check_method(method.name)
    return {
        name: {"method": known.template(settings, width, classes), "mean": scalar, "deviation": scalar}
        for name, settings, classes, width in zip(*method[1:], widths, strict=True)
    }
