"""Training objectives of classifiers that shall tell outliers by their logits: bounded, exposed, or apart in energy.

With F the logits [..., K] of an image, its energy in nats is E = -log sum_k exp F_k: higher = more outlying.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from quantjax.checks import check_interval, check_shape
from quantjax.losses.likelihood import cross_entropy
from quantjax.types import Array

TINY = 1e-7  # added to the length of a row of logits


def logit_norm(logits: Array, labels: Array, temperature: float = 0.04) -> Array:
    """Return the cross-entropy of F / (temperature |F|) per row in nats; logits [B, K], labels [B] -> [B] float32.

    Longer logits gain nothing, only their direction counts: the least is
    log(1 + (K - 1) exp(-sqrt(K / (K - 1)) / temperature)). 0.04 is the authors' temperature for CIFAR-10.
    Labels and errors raised as in `cross_entropy`; ValueError also unless the temperature is positive.
    Source: LogitNorm (Wei, Xie, Cheng, Feng, An and Li, ICML 2022).
    """
    check_interval("temperature", temperature, 0.0, float("inf"), closed="neither")
    check_shape("logits", logits, "[B, K]")
    logits = jnp.asarray(logits, jnp.float32)
    # the root of 0 has no gradient: at F = 0 the length is a constant
    squares = jnp.sum(logits * logits, axis=1, keepdims=True)
    length = jnp.where(squares > 0.0, jnp.sqrt(jnp.where(squares > 0.0, squares, 1.0)), 0.0)
    return cross_entropy(logits / ((length + TINY) * temperature), labels)


def uniform_cross_entropy(logits: Array) -> Array:
    """Return the cross-entropy of softmax(F) to the uniform distribution in nats; logits [..., K] -> [...] float32.

    log sum_k exp F_k - mean_k F_k, at least log K. Source: outlier exposure for classifiers (Hendrycks, Mazeika and
    Dietterich, ICLR 2019), section 4.3.
    """
    logits = jnp.asarray(logits, jnp.float32)
    return jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)


def energy_above(logits: Array, margin: float) -> Array:
    """Return max(E - margin, 0)^2 in nats^2, for inliers; logits [..., K] -> [...] float32.

    Source: Liu, Wang, Owens and Li, "Energy-based out-of-distribution detection", NeurIPS 2020, eq. 8-9.
    """
    return squared_hinge(-jax.nn.logsumexp(jnp.asarray(logits, jnp.float32), axis=-1) - margin)


def energy_below(logits: Array, margin: float) -> Array:
    """Return max(margin - E, 0)^2 in nats^2, for outliers; logits [..., K] -> [...] float32; source as above."""
    return squared_hinge(margin + jax.nn.logsumexp(jnp.asarray(logits, jnp.float32), axis=-1))


def squared_hinge(excess: Array) -> Array:
    """Return max(excess, 0)^2 elementwise."""
    return jnp.maximum(excess, 0.0) ** 2


def weighted_energy(logits: Array, weights: Array) -> Array:
    """Return -log sum_k max(w_k, 0) exp F_k in nats, higher = more outlying; logits [B, K], weights [K] -> [B] float32.

    Infinite where no weight is positive. Raises ValueError on shapes that disagree. Source: VOS (Du, Wang, Cai and Li,
    ICLR 2022), section 3.2, whose weights are learned; its released code cuts them at 0.
    """
    check_shape("logits", logits, "[B, K]")
    check_shape("weights", weights, f"[{logits.shape[1]}]")
    weights = jnp.maximum(jnp.asarray(weights, jnp.float32), 0.0)
    return -jax.nn.logsumexp(jnp.asarray(logits, jnp.float32), axis=1, b=weights[None, :])


def logistic_separation(inliers: Array, outliers: Array, mask: Array | None = None) -> Array:
    """Return the binary cross-entropy that tells outliers [V] from inliers [B] by log-odds of being one, nats -> [B].

    log(1 + exp(in_b)) + mean_v log(1 + exp(-out_v)), whose mean over rows weighs both sides alike; outliers where mask
    [V] is False are left out. Raises ValueError on a wrong shape. Source: VOS (Du, Wang, Cai and Li, ICLR 2022),
    section 3.2.
    """
    check_shape("inliers", inliers, "[B]")
    check_shape("outliers", outliers, "[V]")
    there = jnp.ones(outliers.shape, bool) if mask is None else mask
    check_shape("mask", there, f"[{len(outliers)}]")
    taken = jnp.sum(jnp.where(there, jax.nn.softplus(-outliers), 0.0))
    return jax.nn.softplus(inliers) + taken / jnp.maximum(jnp.sum(there, dtype=jnp.float32), 1.0)
