"""Scores that need the classifier's logits only; each [..., K] -> [...] float32, higher = more outlying.

Leading axes are free: one row per image [B, K], or one per pixel [B, H, W, K] or [H, W, K]. Rows that are not finite,
or hold 1e19 and more, score NaN.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from quantjax.checks import check_choice, check_interval, check_shape
from quantjax.scores.rows import nan_unless_sound
from quantjax.types import Array

MSP_FORMS = ("log_odds", "probability")


def msp(logits: Array, form: str = "log_odds") -> Array:
    """Return how little the largest softmax probability p says, by one of two forms of one order; [..., K] -> [...].

    log_odds: log of (1 - p) / p over its value at a guess, K - 1, in nats: 0 where all classes are equal, no least
    value. probability: -p, in -1..-1/K, as published, but float32 rounds p to 1 where the largest logit leads by 17 and
    more, and those rows tie.
    Raises ValueError when logits have fewer than two axes or classes, and for another form. Source: Hendrycks and
    Gimpel (ICLR 2017).
    """
    check_choice("form", form, MSP_FORMS)
    logits = _float_logits(logits, classes=2)
    if form == "probability":
        return nan_unless_sound(-jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1), logits)
    return nan_unless_sound(_log_odds(logits), logits)


def _log_odds(logits: Array) -> Array:
    """log of the mean of exp(F_k - max F) over the other classes, from whichever side of log 1 keeps its digits."""
    places = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    others = places != jnp.argmax(logits, axis=-1, keepdims=True)
    below = logits - jnp.max(logits, axis=-1, keepdims=True)
    count = logits.shape[-1] - 1
    apart = jax.nn.logsumexp(jnp.where(others, below, -jnp.inf), axis=-1) - math.log(count)
    near = jnp.log1p(jnp.sum(jnp.where(others, jnp.expm1(below), 0.0), axis=-1) / count)
    return jnp.where(apart < -0.5, apart, near)


def max_logit(logits: Array) -> Array:
    """Return minus the largest logit; logits [..., K] -> [...].

    Raises ValueError when logits have fewer than two axes. Source: Hendrycks et al. (ICML 2022), MaxLogit.
    """
    logits = _float_logits(logits)
    return nan_unless_sound(-jnp.max(logits, axis=-1), logits)


def energy(logits: Array, temperature: float = 1.0) -> Array:
    """Return the free energy -T logsumexp(logits / T) in nats; logits [..., K] -> [...].

    Raises ValueError when logits have fewer than two axes or the temperature is not positive.
    Source: Liu et al. (NeurIPS 2020), eq. 4.
    """
    logits = _float_logits(logits)
    check_interval("temperature", temperature, 0.0, float("inf"), closed="neither")
    return nan_unless_sound(-temperature * jax.nn.logsumexp(logits / temperature, axis=-1), logits)


def entropy(logits: Array) -> Array:
    """Return the entropy of softmax(logits) over its largest possible value, log K: in 0..1; logits [..., K] -> [...].

    Raises ValueError when logits have fewer than two axes or fewer than two classes.
    Source: SegmentMeIfYouCan (Chan et al., NeurIPS 2021), softmax entropy baseline.
    """
    logits = _float_logits(logits, classes=2)
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    nats = -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)
    return nan_unless_sound(nats / math.log(logits.shape[-1]), logits)


def rba(logits: Array) -> Array:
    """Return -sum_k tanh(F_k), in -K..K: rejected by all classes at once; logits [..., K] -> [...].

    Raw logits of a linear head saturate: pass them through a sigmoid first for the paper's range 0..1.
    Raises ValueError when logits have fewer than two axes. Source: RbA (Nayal et al., ICCV 2023), eq. 4.
    """
    logits = _float_logits(logits)
    return nan_unless_sound(-jnp.sum(jnp.tanh(logits), axis=-1), logits)


def gen(logits: Array, gamma: float = 0.1, top: int = 10) -> Array:
    """Return the generalised entropy sum_k (p_k (1 - p_k))^gamma of the `top` largest probabilities, > 0.

    logits [..., K] -> [...]; a top of K and more takes all. 1 - p of the largest is summed from the others, so that
    confident rows do not tie. Raises ValueError when logits have fewer than two axes or classes, gamma does not lie in
    (0, 1] or top is less than 1. Source: Liu, Lochman and Zach (CVPR 2023), of whose score this is the negative.
    """
    check_interval("gamma", gamma, 0.0, 1.0, closed="right")
    check_interval("top", top, 1, float("inf"))
    logits = _float_logits(logits, classes=2)
    log_odds = _log_odds(logits) + math.log(logits.shape[-1] - 1)  # log (1 - p) / p of the largest
    largest = -jax.nn.softplus(log_odds) - jax.nn.softplus(-log_odds)
    places = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    others = places != jnp.argmax(logits, axis=-1, keepdims=True)
    log_p = jnp.where(others, jax.nn.log_softmax(logits, axis=-1), -jnp.inf)
    if top < logits.shape[-1]:  # the largest apart
        log_p = jax.lax.top_k(log_p, top - 1)[0] if top > 1 else log_p[..., :0]
    terms = jnp.exp(gamma * (log_p + jnp.log1p(-jnp.exp(jnp.minimum(log_p, -math.log(2.0))))))
    return nan_unless_sound(jnp.sum(terms, axis=-1) + jnp.exp(gamma * largest), logits)


def gradnorm(features: Array, logits: Array, temperature: float = 1.0) -> Array:
    """Return minus the L1 norm of a gradient by the last layer's weights; features [B, D], logits [B, K] -> [B], <= 0.

    The gradient is that of the cross-entropy between a uniform distribution and softmax(logits / T): an outer product,
    whose norm is ||f||_1 ||p - 1/K||_1 / T, so nothing needs to be differentiated.
    Raises ValueError when features or logits are not of rank two, or the temperature is not positive.
    Source: Huang, Geng and Li (NeurIPS 2021).
    """
    check_shape("features", features, "[B, D]")
    check_shape("logits", logits, "[B, K]")
    check_interval("temperature", temperature, 0.0, float("inf"), closed="neither")
    features, logits = (jnp.asarray(a, jnp.float32) for a in (features, logits))
    away = jnp.sum(jnp.abs(jax.nn.softmax(logits / temperature, axis=1) - 1.0 / logits.shape[1]), axis=1)
    return nan_unless_sound(-jnp.sum(jnp.abs(features), axis=1) * away / temperature, features, logits)


def _float_logits(logits: Array, classes: int = 1) -> Array:
    logits = jnp.asarray(logits, jnp.float32)
    if logits.ndim < 2:
        raise ValueError(f"logits must have shape [..., K] with a leading axis, got {list(logits.shape)}")
    if logits.shape[-1] < classes:
        raise ValueError(f"logits must have at least two classes, got shape {list(logits.shape)}")
    return logits
