"""Losses per pixel with an ignored label: cross-entropy over classes and over the likelihood ratio.

Pixels that are ignored give 0 and no gradient, whatever they hold; divide the sum by the number of `valid` pixels of
the global batch. A label that is neither known nor ignored gives NaN, because compiled code cannot raise and a wrong
label must show.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from quantjax.checks import check_shape
from quantjax.labels import int32_labels
from quantjax.rows import IGNORED
from quantjax.types import Array


def valid(labels: Array, ignore: int = IGNORED) -> Array:
    """Return where labels [...] take part in a loss: bool [...], False where they equal `ignore`."""
    return int32_labels(labels) != ignore


def pixel_cross_entropy(logits: Array, labels: Array, ignore: int = IGNORED) -> Array:
    """Return -log softmax(logits)[label] in nats; logits [B, h, w, K], labels [B, h, w] integers -> [B, h, w] float32.

    0 where the label is `ignore`, NaN where it is neither that nor one of 0..K-1.
    Raises ValueError on a wrong rank, and when the two differ in B, h or w (resize one of them first).
    """
    check_shape("logits", logits, "[B, h, w, K]")
    check_shape("labels", labels, _shape(logits.shape[:3]))
    labels = int32_labels(labels)
    logits = jnp.where((labels == ignore)[..., None], 0.0, jnp.asarray(logits, jnp.float32))
    classes = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 3)
    # a comparison, not a gather: its gradient is a comparison too, where that of a gather is a scatter
    chosen = jnp.sum(jnp.where(classes == labels[..., None], logits, 0.0), axis=3)
    known = (labels >= 0) & (labels < logits.shape[3])
    return _where_known(known, labels == ignore, jax.nn.logsumexp(logits, axis=3) - chosen)


def likelihood_ratio_loss(llr: Array, labels: Array) -> Array:
    """Return the binary cross-entropy of sigmoid(llr) in nats; llr and labels [B, H, W] -> [B, H, W] float32.

    llr = log p_out - log p_in in nats, higher = more outlying; labels are 1 on outliers, 0 on inliers, 255 ignored:
    log(1 + exp(llr)) - llr [label = 1]. 0 where ignored, NaN for any other label.
    Raises ValueError when the two differ in shape. Source: UEM (Nayal, Shoeb and Güney 2024, arXiv 2409.06424), eq. 12.
    """
    check_shape("llr", llr, "[B, H, W]")
    check_shape("labels", labels, _shape(llr.shape))
    labels = int32_labels(labels)
    llr = jnp.where(labels == IGNORED, 0.0, jnp.asarray(llr, jnp.float32))
    loss = jax.nn.softplus(jnp.where(labels == 1, -llr, llr))
    return _where_known((labels == 0) | (labels == 1), labels == IGNORED, loss)


def _where_known(known: Array, ignored: Array, loss: Array) -> Array:
    return jnp.where(ignored, 0.0, jnp.where(known, loss, jnp.nan))


def _shape(lengths: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, lengths))}]"
