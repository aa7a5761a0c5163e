"""Scores that need the classifier's logits only; each [..., K] -> [...] float32, higher = more outlying.

Leading axes are free: one row per image [B, K], or one per pixel [B, H, W, K] or [H, W, K].
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from quantjax.checks import check_interval
from quantjax.types import Array


def msp(logits: Array) -> Array:
    """Return minus the largest softmax probability, in -1..-1/K; logits [..., K] -> [...].

    Raises ValueError when logits have fewer than two axes. Source: Hendrycks and Gimpel (ICLR 2017).
    """
    return -jnp.max(jax.nn.softmax(_float_logits(logits), axis=-1), axis=-1)


def max_logit(logits: Array) -> Array:
    """Return minus the largest logit; logits [..., K] -> [...].

    Raises ValueError when logits have fewer than two axes. Source: Hendrycks et al. (ICML 2022), MaxLogit.
    """
    return -jnp.max(_float_logits(logits), axis=-1)


def energy(logits: Array, temperature: float = 1.0) -> Array:
    """Return the free energy -T logsumexp(logits / T) in nats; logits [..., K] -> [...].

    Raises ValueError when logits have fewer than two axes or the temperature is not positive.
    Source: Liu et al. (NeurIPS 2020), eq. 4.
    """
    logits = _float_logits(logits)
    check_interval("temperature", temperature, 0.0, float("inf"), closed="neither")
    return -temperature * jax.nn.logsumexp(logits / temperature, axis=-1)


def entropy(logits: Array) -> Array:
    """Return the entropy of softmax(logits) over its largest possible value, log K: in 0..1; logits [..., K] -> [...].

    Raises ValueError when logits have fewer than two axes or fewer than two classes.
    Source: SegmentMeIfYouCan (Chan et al., NeurIPS 2021), softmax entropy baseline.
    """
    logits = _float_logits(logits)
    if logits.shape[-1] < 2:
        raise ValueError(f"logits must have at least two classes for an entropy, got shape {list(logits.shape)}")
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1) / math.log(logits.shape[-1])


def rba(logits: Array) -> Array:
    """Return -sum_k tanh(F_k), in -K..K: rejected by all classes at once; logits [..., K] -> [...].

    Raw logits of a linear head saturate: pass them through a sigmoid first for the paper's range 0..1.
    Raises ValueError when logits have fewer than two axes. Source: RbA (Nayal et al., ICCV 2023), eq. 4.
    """
    return -jnp.sum(jnp.tanh(_float_logits(logits)), axis=-1)


def _float_logits(logits: Array) -> Array:
    if logits.ndim < 2:
        raise ValueError(f"logits must have shape [..., K] with a leading axis, got {list(logits.shape)}")
    return logits.astype(jnp.float32)
