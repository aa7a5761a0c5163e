"""Methods on what several layers say of an image: channel means and deviations of the network's named maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from quantjax import scores
from quantjax.checks import check_shape
from quantjax.methods import flow, gaussian
from quantjax.methods.base import Fitted, Method, Settings, TrainingRows, View, blocks, named
from quantjax.types import Array, PyTree

MAPS, WIDTHS = "maps", "widths"  # names of the maps, and their numbers of statistics, as texts


def on_layers(method: Method, *, source: str) -> Method:
    """`method` on the layers' statistics in place of the features; it is called `<name>_layers`.

    Means and deviations of each map are divided by their lengths, as Mahalanobis++ divides features, and stand side by
    side: [B, S], S twice the channels of all maps. Setting `maps` names them, with spaces between; empty: all.
    """

    def fit(rows: TrainingRows, settings: Settings) -> Fitted:
        assert rows.layers is not None
        names = settings[MAPS].split() or sorted(rows.layers)
        unknown = sorted(set(names) - set(rows.layers))
        if unknown:
            raise ValueError(
                f"maps must be of the network's maps {', '.join(sorted(rows.layers))}, got {', '.join(unknown)}"
            )
        features = np.concatenate([np.asarray(_joined(part.layers, names)) for part in blocks(rows)])
        fitted = method.fit(rows._replace(features=features), _own(settings))
        widths = " ".join(str(rows.layers[name].shape[1]) for name in names)
        return fitted._replace(settings={**fitted.settings, MAPS: " ".join(names), WIDTHS: widths})

    def score(settings: Settings, params: PyTree, view: View) -> Array:
        if view.layers is None:
            raise ValueError(f"method {method.name}_layers needs the layers' statistics in its view, got none")
        joined = _joined(view.layers, settings[MAPS].split())
        return method.score(_own(settings), params, view._replace(output=view.output._replace(features=joined)))

    def template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
        return method.template(_own(settings), sum(map(int, settings[WIDTHS].split())), num_classes)

    def renamed(parts: Sequence[Any]) -> tuple[Any, ...]:
        return tuple("layers" if part == "features" else part for part in parts)

    known = tuple(method.defaults) if method.score_settings is None else method.score_settings
    return method._replace(
        name=f"{method.name}_layers",
        reads=renamed(method.reads),
        learns_from=renamed(method.learns_from),
        defaults={**method.defaults, MAPS: ""},
        source=source,
        fit=fit,
        score=score,
        template=template,
        score_settings=(*known, MAPS, WIDTHS),
    )


def _joined(layers: Any, names: Sequence[str]) -> Array:
    """Means and deviations [B, C] of each named map of {name: [B, 2 C]}, each of length one, side by side."""
    for name in names:
        check_shape(f"statistics of map {name}", layers[name], "[B, S]")
    halves = [half for name in names for half in jnp.split(jnp.asarray(layers[name], jnp.float32), 2, axis=1)]
    return jnp.concatenate([scores.normalise(half) for half in halves], axis=1)


def _own(settings: Settings) -> Settings:
    return {key: value for key, value in settings.items() if key not in (MAPS, WIDTHS)}


SOURCE = "chosen here on inliers and synthetic outliers, docs/methods.md"
_GAUSSIAN, _FLOW = named(gaussian.METHODS, "mahalanobis"), named(flow.METHODS, "quantod_pp")
METHODS = (
    on_layers(_GAUSSIAN, source=SOURCE)._replace(paper="Lee et al., NeurIPS 2018, 2.2, one covariance of all layers"),
    on_layers(_FLOW._replace(defaults={**_FLOW.defaults, "beta": 0.0}), source=SOURCE)._replace(name="quantod_layers"),
)
