"""Methods on features that are divided by a power of their length: the setting beta, 0 for features as they are."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from quantjax import scores
from quantjax.methods.base import Settings, TrainingRows, View
from quantjax.types import Array


def rows_at(rows: TrainingRows, settings: Settings) -> np.ndarray:
    """The features of `rows`, normalised."""
    assert rows.features is not None
    beta = settings.get("beta", 0.0)
    return np.asarray(scores.normalise(jnp.asarray(rows.features), beta)) if beta else rows.features


def features_at(view: View, settings: Settings) -> Array:
    """The view's features, normalised; settings from before there was a beta mean features as they are."""
    beta = settings.get("beta", 0.0)
    return scores.normalise(view.output.features, beta) if beta else view.output.features
