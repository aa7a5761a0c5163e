"""The density of features under a normalizing flow that was trained with the quantile likelihood."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp

from quantjax import flows
from quantjax.checks import check_shape
from quantjax.methods.base import Fitted, Method, Settings, TrainingRows, View
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
)
