"""Methods that read a classifier's logits alone."""

from __future__ import annotations

from quantjax import scores
from quantjax.methods.base import Method, Settings, View
from quantjax.types import Array, PyTree


def _msp(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.msp(view.output.logits, **with_form(settings))


def with_form(settings: Settings) -> Settings:
    """`settings` with the published form where none is named: a detector from before there were two was set on it."""
    return {"form": "probability", **settings}


def _max_logit(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.max_logit(view.output.logits)


def _energy(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.energy(view.output.logits, **settings)


METHODS = (
    Method(
        "msp",
        "Hendrycks and Gimpel, ICLR 2017",
        ("logits",),
        _msp,
        defaults={"form": "log_odds"},
        source="chosen here: published is form probability, which ranks alike but saturates",
    ),
    Method("max_logit", "Hendrycks et al., ICML 2022", ("logits",), _max_logit),
    Method(
        "energy",
        "Liu et al., NeurIPS 2020, eq. 4",
        ("logits",),
        _energy,
        defaults={"temperature": 1.0},
        source="the paper, section 4.1",
    ),
)
