"""Methods on features that are divided by a power of their length: the setting beta, 0 for features as they are."""

from __future__ import annotations

from quantjax import scores
from quantjax.methods.base import Settings, TrainingRows, View
from quantjax.types import Array

BETA = "beta 1: Mueller and Hein, ICML 2025"


def rows_at(rows: TrainingRows, settings: Settings) -> TrainingRows:
    """`rows` with normalised features."""
    import numpy as np

    assert rows.features is not None
    if not settings.get("beta"):
        return rows
    return rows._replace(features=np.asarray(scores.normalise(rows.features, settings["beta"])))


def features_at(view: View, settings: Settings) -> Array:
    """The view's features, normalised; settings from before there was a beta mean features as they are."""
    beta = settings.get("beta", 0.0)
    return scores.normalise(view.output.features, beta) if beta else view.output.features
