"""Methods that read a classifier's logits alone."""

from __future__ import annotations

from quantjax import scores
from quantjax.methods.base import Method, Settings, View
from quantjax.types import Array, PyTree


def _msp(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.msp(view.output.logits)


def _max_logit(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.max_logit(view.output.logits)


def _energy(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.energy(view.output.logits, **settings)


METHODS = (
    Method("msp", "Hendrycks and Gimpel, ICLR 2017", ("logits",), _msp),
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
