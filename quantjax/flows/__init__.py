"""Normalizing flows as tuples of pure functions: fit QuantOD's to features, build one, or chain layers of your own."""

from quantjax.documented import show_fields
from quantjax.flows.base import Flow, around, chain, invert, log_likelihood, sample
from quantjax.flows.distribution import as_distrax
from quantjax.flows.fit import BEST, DEFAULTS, PRESETS, FittedFlow, TrainingCurve, fit, flow_settings
from quantjax.flows.recipes import quantod
from quantjax.flows.together import fit_together

__all__ = [
    "BEST",
    "DEFAULTS",
    "PRESETS",
    "FittedFlow",
    "Flow",
    "TrainingCurve",
    "around",
    "as_distrax",
    "chain",
    "fit",
    "fit_together",
    "flow_settings",
    "invert",
    "log_likelihood",
    "quantod",
    "sample",
]

show_fields(__name__)
