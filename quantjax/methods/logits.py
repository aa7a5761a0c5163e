"""Methods that read a classifier's logits alone, some of them fitted to those of training rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax import scores
from quantjax.methods.base import Fitted, Method, Settings, TrainingRows, View
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


def _gen(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.gen(view.output.logits, **settings)


def _fit_temperature(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.logits is not None
    assert rows.labels is not None
    return Fitted({**settings, "temperature": scores.fit_temperature(rows.logits, rows.labels)}, ())


def _scaled(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.msp(jnp.asarray(view.output.logits, jnp.float32) / settings["temperature"], settings["form"])


def _fit_kl_matching(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.logits is not None
    return Fitted(settings, scores.fit_kl_matching(rows.logits))


def _square(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return jax.ShapeDtypeStruct((num_classes, num_classes), jnp.float32)


def _kl_matching(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.kl_matching(params, view.output.logits)


def _fit_openmax(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.logits is not None
    assert rows.labels is not None
    fitted = scores.fit_openmax(rows.logits, rows.labels, settings["tail"], settings["shift"])
    return Fitted({"top": settings["top"], "shift": settings["shift"]}, fitted)


def _openmax_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    one: Any = jax.ShapeDtypeStruct((num_classes,), jnp.float32)
    return scores.OpenMax(_square(settings, dimension, num_classes), one, one, one)


def _openmax(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.openmax(params, view.output.logits, **settings)


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
    Method(
        "gen",
        "Liu, Lochman and Zach, CVPR 2023",
        ("logits",),
        _gen,
        defaults={"gamma": 0.1, "top": 10},
        source="gamma of the paper; its top of 100 is for 1,000 classes",
    ),
    Method(
        "temperature_scaling",
        "Guo et al., ICML 2017; msp at the temperature that training rows choose",
        ("logits",),
        _scaled,
        defaults={"form": "log_odds"},
        source="form as msp",
        learns_from=("logits", "labels"),
        fit=_fit_temperature,
        score_settings=("form", "temperature"),
    ),
    Method(
        "kl_matching",
        "Hendrycks et al., ICML 2022",
        ("logits",),
        _kl_matching,
        learns_from=("logits",),
        fit=_fit_kl_matching,
        template=_square,
    ),
    Method(
        "openmax",
        "Bendale and Boult, CVPR 2016, as log-odds of the unknown class",
        ("logits",),
        _openmax,
        defaults={"tail": 20, "top": 10, "shift": 10_000.0},
        source="the paper",
        learns_from=("logits", "labels"),
        least_rows_of_a_class=lambda settings: 3,  # a tail of fewer distances has no shape
        fit=_fit_openmax,
        template=_openmax_template,
        score_settings=("top", "shift"),
    ),
)
