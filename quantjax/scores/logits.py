"""Scores that need the classifier's logits only; each [B, K] -> [B] float32, higher = more outlying."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from quantjax.checks import check_interval, check_shape
from quantjax.types import Array


def msp(logits: Array) -> Array:
    """Return minus the largest softmax probability, in -1..-1/K; logits [B, K] -> [B].

    Raises ValueError when logits are not of rank two. Source: Hendrycks and Gimpel (ICLR 2017).
    """
    check_shape("logits", logits, "[B, K]")
    return -jnp.max(jax.nn.softmax(logits.astype(jnp.float32), axis=1), axis=1)


def max_logit(logits: Array) -> Array:
    """Return minus the largest logit; logits [B, K] -> [B].

    Raises ValueError when logits are not of rank two. Source: Hendrycks et al. (ICML 2022), MaxLogit.
    """
    check_shape("logits", logits, "[B, K]")
    return -jnp.max(logits.astype(jnp.float32), axis=1)


def energy(logits: Array, temperature: float = 1.0) -> Array:
    """Return the free energy -T logsumexp(logits / T) in nats; logits [B, K] -> [B].

    Raises ValueError when logits are not of rank two or the temperature is not positive.
    Source: Liu et al. (NeurIPS 2020), eq. 4.
    """
    check_shape("logits", logits, "[B, K]")
    check_interval("temperature", temperature, 0.0, float("inf"), closed="neither")
    return -temperature * jax.nn.logsumexp(logits.astype(jnp.float32) / temperature, axis=1)
