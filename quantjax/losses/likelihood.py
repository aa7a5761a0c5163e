"""Training objectives: quantile, mean and min negative log-likelihood, and cross-entropy.

The quantile is the one reduction that the library does itself, because it is a statistic of the whole batch:

    L_q = -((1 - r) l_(f) + r l_(c)),   f = floor(h), c = ceil(h), r = h - f, h = q (n - 1),

with l_(0) <= ... <= l_(n-1) the log-likelihoods of the n rows that are no padding. Taghikhah et al. (AAAI 2024), eq. 4.
Only the two rows (f) and (c) carry gradient. The two-row form uses this: it runs the whole batch forward without
gradient, picks the two rows, and differentiates them alone, under the rows' own dropout masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from quantjax.checks import check_choice, check_shape
from quantjax.labels import int32_labels
from quantjax.types import Array, Batch, PyTree

LogLikelihood = Callable[[PyTree, Array, PyTree], Array]  # (params, x [B, D], dropout masks or None) -> [B] nats
DrawMasks = Callable[[Array, int], PyTree]  # (key, rows of the global batch) -> arrays with rows on axis -2


def quantile_rows(log_likelihoods: Array, q: float | Array, mask: Array | None = None) -> tuple[Array, Array]:
    """Return the two rows around the q-quantile and their weights: (rows [2] int32, weights [2] float32).

    log_likelihoods [N] in nats; mask [N] bool is False for padded rows, which are never picked. Weights sum to 1;
    they are NaN if a row that is no padding is NaN (as torch.quantile answers), and 0 if every row is padding.
    Raises ValueError on a wrong shape, no rows, or q outside [0, 1).
    """
    check_shape("log_likelihoods", log_likelihoods, "[N]")
    _check_quantile(q)
    valid = _valid_rows(log_likelihoods, mask)
    values = jnp.asarray(log_likelihoods, jnp.float32)
    count = jnp.sum(valid, dtype=jnp.int32)
    order = jnp.lexsort((values, ~valid)).astype(jnp.int32)
    position = q * jnp.maximum(count - 1, 0).astype(jnp.float32)
    below, above = jnp.floor(position), jnp.ceil(position)
    weights = jnp.stack([1.0 - (position - below), position - below]) * (count > 0).astype(jnp.float32)
    weights = jnp.where(jnp.any(jnp.isnan(values) & valid), jnp.nan, weights)
    return order[jnp.stack([below, above]).astype(jnp.int32)], weights


def quantile_nll(log_likelihoods: Array, q: float | Array, mask: Array | None = None) -> Array:
    """Return minus the linearly interpolated q-quantile of log_likelihoods [N], a scalar in nats.

    Equal to -torch.quantile(log_likelihoods, q) in value and gradient; among tied rows one is picked, so a gradient
    compares after summing over ties. mask [N] bool is False for padded rows. q = 0 is the smallest log-likelihood.
    Raises ValueError on a wrong shape, no rows, or q outside [0, 1). Source: Taghikhah et al. (AAAI 2024), eq. 4.
    """
    log_likelihoods = jnp.asarray(log_likelihoods, jnp.float32)
    rows, weights = quantile_rows(jax.lax.stop_gradient(log_likelihoods), q, mask)
    return -jnp.sum(weights * log_likelihoods[rows])


def mean_nll(log_likelihoods: Array, mask: Array | None = None) -> Array:
    """Return minus the mean of log_likelihoods [N], a scalar in nats; rows where mask [N] is False are left out."""
    check_shape("log_likelihoods", log_likelihoods, "[N]")
    valid = _valid_rows(log_likelihoods, mask)
    return -_masked_sum(log_likelihoods, valid) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)


def min_nll(log_likelihoods: Array, mask: Array | None = None) -> Array:
    """Return minus the smallest of log_likelihoods [N], a scalar in nats: the quantile loss at q = 0."""
    return quantile_nll(log_likelihoods, 0.0, mask)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Return -log softmax(logits)[label] per row in nats; logits [B, K], labels [B] integers -> [B] float32.

    NaN, without a gradient, where a label is none of 0..K-1; a padded row may hold any. Raises ValueError on shapes
    that disagree.
    """
    check_shape("logits", logits, "[B, K]")
    check_shape("labels", labels, f"[{logits.shape[0]}]")
    logits, labels = jnp.asarray(logits, jnp.float32), int32_labels(labels)
    known = (labels >= 0) & (labels < logits.shape[1])
    chosen = jnp.take_along_axis(logits, jnp.where(known, labels, 0)[:, None], axis=1)[:, 0]
    return jnp.where(known, jax.nn.logsumexp(logits, axis=1) - chosen, jnp.nan)


def likelihood_objective(
    log_likelihood: LogLikelihood,
    draw_masks: DrawMasks | None = None,
    *,
    loss: str = "quantile",
    q: float | Array = 0.05,
    form: str = "two_row",
    draw_rows: int | None = None,
) -> Callable[..., tuple[tuple[Array, Any, dict[str, Array]], PyTree]]:
    """Return value_and_grad(params, model_state, batch, key, axis_name=None) -> ((loss, model_state, info), grads).

    log_likelihood(params, x [B, D], masks) -> [B] nats is deterministic given masks. draw_masks(key, rows) draws all
    dropout of a step, for the global batch at once; None means no dropout. loss is quantile, mean or min; q may be a
    scalar array, which is not checked; form is
    two_row or plain (for the mean every row carries gradient, so its two forms are one). info holds
    mean_log_likelihood, of the global batch, in nats. model_state passes through.

    With axis_name set, the function runs inside pmap (or shard_map with check_vma=False): batch is one device's share,
    key is the same on all devices, the statistic is that of the global batch, and loss and grads come back reduced.
    draw_rows: how many rows to draw masks for, when the global batch is longer than that only because it was padded
    to divide among devices; the draws then equal those of one device without padding. None: the batch as it comes.

    Raises ValueError for an unknown loss or form, and for q outside [0, 1).
    """
    check_choice("loss", loss, ("quantile", "mean", "min"))
    check_choice("form", form, ("two_row", "plain"))
    q = 0.0 if loss == "min" else q
    if loss != "mean":
        _check_quantile(q)
    differentiate = _mean_share if loss == "mean" else _two_rows if form == "two_row" else _through_gather

    def value_and_grad(params: PyTree, model_state: Any, batch: Batch, key: Array, axis_name: str | None = None):
        check_shape("batch.mask", batch.mask, f"[{len(batch.inputs)}]")
        masks = None if draw_masks is None else _draw_own(draw_masks, key, len(batch.inputs), draw_rows, axis_name)

        def run(params: PyTree, rows: Array | None = None) -> Array:
            if rows is None:
                return log_likelihood(params, batch.inputs, masks).astype(jnp.float32)
            return log_likelihood(params, batch.inputs[rows], _take_rows(masks, rows)).astype(jnp.float32)

        value, everything, grads = differentiate(run, params, batch.mask, q, axis_name)
        info = {"mean_log_likelihood": -mean_nll(everything, _gather(batch.mask, axis_name))}
        return (value, model_state, info), grads

    return value_and_grad


def _two_rows(run, params, valid, q, axis_name):
    """Each device differentiates its weighted share of the two global rows; the shares add up, hence psum."""
    everything = _gather(run(params), axis_name)
    rows, weights = quantile_rows(everything, q, _gather(valid, axis_name))
    value = -jnp.sum(weights * everything[rows])
    if axis_name is not None:
        local = rows - jax.lax.axis_index(axis_name) * len(valid)
        own = (local >= 0) & (local < len(valid))
        rows, weights = jnp.clip(local, 0, len(valid) - 1), jnp.where(own, weights, 0.0)
    grads = jax.grad(lambda params: -jnp.sum(weights * run(params, rows)))(params)
    return value, everything, _psum(grads, axis_name)


def _through_gather(run, params, valid, q, axis_name):
    """Every device differentiates the one global loss through all_gather, whose transpose adds up; hence pmean."""

    def objective(params):
        everything = _gather(run(params), axis_name)
        return quantile_nll(everything, q, _gather(valid, axis_name)), everything

    (value, everything), grads = jax.value_and_grad(objective, has_aux=True)(params)
    return value, everything, grads if axis_name is None else jax.lax.pmean(grads, axis_name)


def _mean_share(run, params, valid, q, axis_name):
    """Each device differentiates its own rows' part of the global mean; the parts add up, hence psum."""
    count = jnp.maximum(_psum(jnp.sum(valid, dtype=jnp.float32), axis_name), 1.0)

    def share(params):
        values = run(params)
        return -_masked_sum(values, valid) / count, values

    (value, values), grads = jax.value_and_grad(share, has_aux=True)(params)
    return _psum(value, axis_name), _gather(values, axis_name), _psum(grads, axis_name)


def _draw_own(draw_masks: DrawMasks, key: Array, rows: int, draw_rows: int | None, axis_name: str | None) -> PyTree:
    """Draw for the global batch and cut out this device's rows; bits depend on the shape, so never per device."""
    total = rows if axis_name is None else rows * jax.lax.axis_size(axis_name)
    drawn = total if draw_rows is None else draw_rows
    if drawn > total:
        raise ValueError(f"draw_rows must be at most the {total} rows of the global batch, got {drawn}")
    start = 0 if axis_name is None else jax.lax.axis_index(axis_name) * rows

    def own(mask: Array) -> Array:
        axis = mask.ndim - 2
        widths = [(0, total - drawn if i == axis else 0) for i in range(mask.ndim)]
        return jax.lax.dynamic_slice_in_dim(jnp.pad(mask, widths, constant_values=True), start, rows, axis)

    return jax.tree.map(own, draw_masks(key, drawn))


def _take_rows(masks: PyTree, rows: Array) -> PyTree:
    return jax.tree.map(lambda mask: jnp.take(mask, rows, axis=mask.ndim - 2), masks)


def _gather(rows: Array, axis_name: str | None) -> Array:
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def _psum(tree: PyTree, axis_name: str | None) -> PyTree:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def _masked_sum(values: Array, valid: Array) -> Array:
    return jnp.sum(jnp.where(valid, jnp.asarray(values, jnp.float32), 0.0))


def _valid_rows(values: Array, mask: Array | None) -> Array:
    if len(values) == 0:
        raise ValueError("log_likelihoods must have at least one row, got none")
    if mask is None:
        return jnp.ones(values.shape, bool)
    check_shape("mask", mask, f"[{len(values)}]")
    return mask.astype(bool)


def _check_quantile(q: float | Array) -> None:
    if isinstance(q, float | int) and not 0.0 <= q < 1.0:  # an array, of several flows trained together, comes checked
        raise ValueError(f'q must lie in [0, 1), got {q}; for the mean over the batch choose loss="mean" (mean_nll)')
