"""Normalizing flows as tuples of pure functions: build one with `quantod`, or chain layers of your own."""

from quantjax.flows.base import Flow, chain, invert, log_likelihood, sample
from quantjax.flows.distribution import as_distrax
from quantjax.flows.recipes import quantod

__all__ = ["Flow", "as_distrax", "chain", "invert", "log_likelihood", "quantod", "sample"]
