"""Fine-tuning losses of PEBAL and RbA, the outlier-exposed segmentors that UEM is compared with.

Labels are 0..K-1 on inliers, 254 on pasted outliers, 255 ignored; another label makes the loss NaN. Both losses mix
means over the inlier pixels and over the outlier pixels of the whole batch, so they return one value per image whose
mean over the global batch is the loss. With axis_name a device passes its share of the batch and gets its images'
values; every device differentiates its own and the gradients are added.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.checks import check_shape
from quantjax.labels import int32_labels
from quantjax.losses.exposure import squared_hinge
from quantjax.resize import blur
from quantjax.rows import IGNORED, PASTED
from quantjax.types import Array


class _Pixels(NamedTuple):
    """Which pixels of this share are what, and how many there are on all devices."""

    inlier: Array  # [B, H, W] bool
    outlier: Array  # [B, H, W] bool
    inliers: Array  # [] float32
    outliers: Array  # [] float32
    images: Array  # [] float32, of the global batch; NaN if a label is unknown


def rba_loss(
    logits: Array,
    labels: Array,
    *,
    inlier_margin: float = 0.0,
    outlier_margin: float = 5.0,
    axis_name: str | None = None,
) -> Array:
    """Return RbA's squared hinge on s = -sum_k tanh(F_k); logits [B, H, W, K], labels [B, H, W] -> [B].

    1/2 (mean_in max(s - inlier_margin, 0)^2 + mean_out max(outlier_margin - s, 0)^2); without outlier pixels in the
    batch the first mean alone, not halved. Logits of a linear head saturate tanh: pass them through a sigmoid first.
    Raises ValueError on shapes that disagree. Source: RbA (Nayal et al., ICCV 2023), eq. 7.
    """
    pixels = _pixels(logits, labels, logits.shape[-1], axis_name)
    score = -jnp.sum(jnp.tanh(jnp.asarray(logits, jnp.float32)), axis=3)
    return pixels.images * _hinges(score, pixels, inlier_margin, outlier_margin)


def pebal_loss(
    logits: Array,
    labels: Array,
    *,
    outlier_weight: float = 0.1,
    energy_weight: float = 0.1,
    inlier_margin: float = -12.0,
    outlier_margin: float = -6.0,
    sparsity: float = 5e-4,
    smoothness: float = 3e-6,
    axis_name: str | None = None,
) -> Array:
    """Return PEBAL's loss in nats; logits [B, H, W, K + 1], the last one to abstain, labels [B, H, W] -> [B].

    With p the softmax over all, E = -logsumexp_k<=K F_k, a = p_abstain / blur(E^2) (Gaussian of 7 x 7, sigma 1):

        -mean_in log(p_y + a) - outlier_weight mean_out,k log max(p_k + a, 1e-7)
        + energy_weight (hinges of E at the margins, as in `rba_loss`
                         + sparsity ||E_out|| + smoothness / 2 sum over neighbours (E_i - E_j)^2)

    The means run over all images of the batch, with and without outliers. Test score: `scores.energy(logits[..., :K])`.
    Raises ValueError on shapes that disagree, or images under 4 x 4. Source: PEBAL (Tian et al., ECCV 2022), eq. 3-6.
    """
    pixels = _pixels(logits, labels, logits.shape[-1] - 1, axis_name)
    logits = jnp.asarray(logits, jnp.float32)
    energy = -jax.nn.logsumexp(logits[..., :-1], axis=3)
    inlier, outlier = _abstention(logits, energy, labels, pixels)
    energies = _hinges(energy, pixels, inlier_margin, outlier_margin)
    energies += sparsity * _norm(energy, pixels.outlier, axis_name) + smoothness * _roughness(energy)
    return pixels.images * (inlier + outlier_weight * outlier + energy_weight * energies)


def _abstention(logits: Array, energy: Array, labels: Array, pixels: _Pixels) -> tuple[Array, Array]:
    """Images' parts [B] of -mean_in log(p_y + a) and of -mean_out,k log max(p_k + a, 1e-7), from log-probabilities."""
    log_p = jax.nn.log_softmax(logits, axis=3)
    abstain = log_p[..., -1] - jnp.log(blur(energy * energy))
    either = jnp.logaddexp(log_p[..., :-1], abstain[..., None])
    classes = jax.lax.broadcasted_iota(jnp.int32, either.shape, 3)
    chosen = jnp.sum(jnp.where(classes == int32_labels(labels)[..., None], either, 0.0), axis=3)
    rejected = jnp.mean(jnp.maximum(either, np.log(1e-7)), axis=3)
    return _part(-chosen, pixels.inlier, pixels.inliers), _part(-rejected, pixels.outlier, pixels.outliers)


def _hinges(score: Array, pixels: _Pixels, inlier_margin: float, outlier_margin: float) -> Array:
    """Images' parts [B] of the squared hinges: inliers above their margin, outliers below theirs."""
    inlier = _part(squared_hinge(score - inlier_margin), pixels.inlier, pixels.inliers)
    outlier = _part(squared_hinge(outlier_margin - score), pixels.outlier, pixels.outliers)
    return jnp.where(pixels.outliers > 0, 0.5, 1.0) * (inlier + outlier)


def _norm(values: Array, mask: Array, axis_name: str | None) -> Array:
    """Images' parts [B] of the Euclidean norm over all masked pixels of the batch, in value and in gradient."""
    squares = jnp.sum(jnp.where(mask, values * values, 0.0), axis=(1, 2))
    length = jnp.sqrt(jnp.maximum(_total(jnp.sum(jax.lax.stop_gradient(squares)), axis_name), 1e-12))
    half = squares / (2.0 * length)
    return half + jax.lax.stop_gradient(half)  # the derivative of a root is half that of its share


def _roughness(values: Array) -> Array:
    """Half the sum of squared differences to the neighbours below and to the right, per image [B]."""
    below, right = (jnp.sum(jnp.diff(values, axis=axis) ** 2, axis=(1, 2)) for axis in (1, 2))
    return 0.5 * (below + right)


def _part(values: Array, mask: Array, count: Array) -> Array:
    """Each image's part [B] of the mean over `count` masked pixels of all devices."""
    return jnp.sum(jnp.where(mask, values, 0.0), axis=(1, 2)) / jnp.maximum(count, 1.0)


def _pixels(logits: Array, labels: Array, classes: int, axis_name: str | None) -> _Pixels:
    check_shape("logits", logits, "[B, H, W, K]")
    check_shape("labels", labels, f"[{', '.join(map(str, logits.shape[:3]))}]")
    if classes < 1 or min(logits.shape[1:3]) < 4:
        raise ValueError(f"logits must have a class and at least 4 x 4 pixels, got shape {list(logits.shape)}")
    labels = int32_labels(labels)
    inlier, outlier = (labels >= 0) & (labels < classes), labels == PASTED
    known = jnp.all(inlier | outlier | (labels == IGNORED))
    counts = jnp.stack([jnp.sum(mask, dtype=jnp.float32) for mask in (inlier, outlier, ~known)])
    inliers, outliers, wrong = _total(counts, axis_name)
    images = len(labels) * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    return _Pixels(inlier, outlier, inliers, outliers, jnp.where(wrong > 0, jnp.nan, float(images)))


def _total(value: Array, axis_name: str | None) -> Array:
    return value if axis_name is None else jax.lax.psum(value, axis_name)
