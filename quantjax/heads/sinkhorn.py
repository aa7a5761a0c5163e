"""Balanced assignment of pixels to their class's mixture components by Sinkhorn-Knopp iterations.

For each class k alone, over its N_k pixels n and M components c, with s_k = max_nc |log p_nc|:

    Q_nc = exp(log p_nc / (s_k eps));   repeat: Q_nc /= sum_n' Q_n'c, then Q_nc /= sum_c' Q_nc';   a_n = argmax_c Q_nc.

All classes go at once: sums over a class are segment sums of [N, M], never an array of [N, K, M]. Constant factors of a
class (1 / M, 1 / N_k) cancel in the next division and are left out. |log p| / (s eps) reaches 1 / eps: Q itself
underflows float32 below eps = 0.012, or where one pixel lies far from all others, so log Q takes its place. Cuturi
(NeurIPS 2013); for mixtures of pixels GMMSeg (Liang et al., NeurIPS 2022), section 3.2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from quantjax.checks import check_interval, check_shape
from quantjax.types import Array


def assign(
    log_density: Array,
    classes: Array,
    num_classes: int,
    *,
    temperature: float = 0.05,
    iterations: int = 3,
    axis_name: str | None = None,
) -> Array:
    """Return the component of each row's class that it is assigned to: [N] int32 in 0..M-1, the lowest among equals.

    log_density [N, M] in nats holds finite values of the row's own class; classes [N] int32 in 0..K, where K marks rows
    that take no part. With axis_name, rows are a device's share and the balance is that of all devices together.
    Raises ValueError on a wrong shape or a temperature that is not positive.
    """
    check_shape("log_density", log_density, "[N, M]")
    check_shape("classes", classes, f"[{len(log_density)}]")
    check_interval("temperature", temperature, 0.0, float("inf"), closed="neither")
    log_density = jnp.asarray(log_density, jnp.float32)
    largest = jax.ops.segment_max(jnp.max(jnp.abs(log_density), axis=1), classes, num_classes + 1)
    largest = largest if axis_name is None else jax.lax.pmax(largest, axis_name)
    scale = temperature * jnp.where(largest > 0.0, largest, 1.0)
    log_share = jnp.where(classes[:, None] < num_classes, log_density / scale[classes][:, None], 0.0)
    for _ in range(iterations):
        log_share = log_share - _log_total(log_share, classes, num_classes + 1, axis_name)[classes]
        log_share = log_share - jax.nn.logsumexp(log_share, axis=1, keepdims=True)
    return jnp.argmax(log_share, axis=1).astype(jnp.int32)


def _log_total(log_share: Array, classes: Array, num_segments: int, axis_name: str | None) -> Array:
    """log of the sum over the rows of each class, of all devices: [N, M] -> [num_segments, M]."""
    largest = jax.ops.segment_max(log_share, classes, num_segments)
    largest = largest if axis_name is None else jax.lax.pmax(largest, axis_name)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)  # a class without rows
    total = jax.ops.segment_sum(jnp.exp(log_share - largest[classes]), classes, num_segments)
    return largest + jnp.log(total if axis_name is None else jax.lax.psum(total, axis_name))
