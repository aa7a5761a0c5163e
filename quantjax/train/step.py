"""One optimiser step as a pure function: step(state, batch, key) -> (state, info)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from quantjax.types import Array, Batch, PyTree

# (params, model_state, batch, key, axis_name=None) -> ((loss, model_state, info), grads), all of the global batch
ValueAndGrad = Callable[..., tuple[tuple[Array, PyTree, dict[str, Array]], PyTree]]
Step = Callable[..., tuple["TrainState", dict[str, Array]]]  # (state, batch, key, axis_name=None)


class TrainState(NamedTuple):
    """All that changes while training; save it and the key, and nothing is lost."""

    params: PyTree
    """What the optimiser changes."""
    model_state: PyTree
    """What the model carries beside its parameters, such as running statistics; () if nothing"""
    opt_state: PyTree
    """Of the optimiser."""
    step: Array
    """int32 scalar, optimiser steps taken"""


def init_state(params: PyTree, optimizer: optax.GradientTransformation, model_state: PyTree = ()) -> TrainState:
    """Return the state before the first step."""
    return TrainState(params, model_state, optimizer.init(params), jnp.zeros((), jnp.int32))


def make_step(value_and_grad: ValueAndGrad, optimizer: optax.GradientTransformation) -> Step:
    """Return step(state, batch, key, axis_name=None) -> (state, info), to be compiled by the caller.

    The step draws from fold_in(key, state.step), so one key serves a whole run and a resumed run repeats its draws.
    info is the objective's, with `loss` (scalar, of the global batch) added. With axis_name set, batch is one device's
    share, and value_and_grad must return what is already reduced over the axis.
    """

    def step(state: TrainState, batch: Batch, key: Array, axis_name: str | None = None):
        key = jax.random.fold_in(key, state.step)
        (loss, model_state, info), grads = value_and_grad(state.params, state.model_state, batch, key, axis_name)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a decay to the power of an integer count
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        return TrainState(params, model_state, opt_state, state.step + 1), {**info, "loss": loss}

    return step


def objective(loss_fn: Callable[..., tuple[Array, PyTree, dict[str, Array]]]) -> ValueAndGrad:
    """Turn a loss per row into the value_and_grad of its mean over the global batch, padded rows left out.

    loss_fn(params, model_state, batch, key, axis_name) -> (losses [B], model_state, info); every entry of info is [B]
    too and is averaged like the losses. model_state must come back equal on all devices (synchronised statistics).
    Each device differentiates its rows' part of the global mean and the parts add up, which stays right when rows of
    one device enter the losses of another through the model's own reductions.
    """

    def value_and_grad(params: PyTree, model_state: PyTree, batch: Batch, key: Array, axis_name: str | None = None):
        count = jnp.maximum(_total(jnp.sum(batch.mask, dtype=jnp.float32), axis_name), 1.0)

        def mean_part(rows: Array) -> Array:
            return jnp.sum(jnp.where(batch.mask, rows.astype(jnp.float32), 0.0)) / count

        def part(params: PyTree) -> tuple[Array, Any]:
            losses, new_state, info = loss_fn(params, model_state, batch, key, axis_name)
            return mean_part(losses), (new_state, jax.tree.map(mean_part, info))

        (loss, (new_state, info)), grads = jax.value_and_grad(part, has_aux=True)(params)
        loss, info, grads = _total((loss, info, grads), axis_name)
        return (loss, new_state, info), grads

    return value_and_grad


def accumulated(value_and_grad: ValueAndGrad, parts: int) -> ValueAndGrad:
    """Return value_and_grad in `parts` passes over a part of the rows each, whose means add up to that of the batch.

    Memory is that of one part. It equals the whole where rows do not see each other; a model's batch statistics are
    those of a part, one after the other, as with accumulated gradients elsewhere. Part i holds rows i, i + parts, ...,
    so that padding at the end of a batch is dealt out evenly; a part of padding alone changes nothing. parts = 1
    returns value_and_grad itself.
    """
    if parts == 1:
        return value_and_grad

    def deal(leaf: Array) -> Array:
        filled = jnp.pad(leaf, ((0, -len(leaf) % parts), *((0, 0),) * (leaf.ndim - 1)))
        return filled.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1)

    def in_parts(params: PyTree, model_state: PyTree, batch: Batch, key: Array, axis_name: str | None = None):
        dealt = jax.tree.map(deal, batch)
        counts = _total(dealt.mask.sum(axis=1, dtype=jnp.float32), axis_name)
        weights = counts / jnp.maximum(counts.sum(), 1.0)

        def body(carry: tuple[PyTree, PyTree], part: tuple[Batch, Array, Array]) -> tuple[Any, None]:
            model_state, sums = carry
            rows, weight, index = part
            (loss, new_state, info), grads = value_and_grad(
                params, model_state, rows, jax.random.fold_in(key, index), axis_name
            )
            kept = jax.tree.map(lambda new, old: jnp.where(weight > 0, new, old), new_state, model_state)
            sums = jax.tree.map(lambda total, value: total + weight * value, sums, (loss, info, grads))
            return (kept, sums), None

        first = jax.tree.map(lambda leaf: leaf[0], dealt)
        shapes = jax.eval_shape(lambda: value_and_grad(params, model_state, first, key, axis_name))
        (loss, _, info), grads = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        carry = (model_state, (loss, info, grads))
        (model_state, (loss, info, grads)), _ = jax.lax.scan(body, carry, (dealt, weights, jnp.arange(parts)))
        return (loss, model_state, info), grads

    return in_parts


def finiteness(state: TrainState, axis_name: str | None = None) -> Array:
    """Whether each parameter of the state is finite, [number of arrays] bool, in the order of jax.tree."""
    del axis_name
    return jnp.stack([jnp.isfinite(leaf.astype(jnp.float32)).all() for leaf in jax.tree.leaves(state.params)])


def check_finite(state: TrainState, finite: np.ndarray, losses: np.ndarray, where: str, saved: str = "") -> None:
    """Raise FloatingPointError when a loss of the last steps [S] or a parameter is no longer finite.

    `finite` is the state's `finiteness`, `where` says which steps these were, `saved` what is safe nevertheless.
    """
    remedy = "lower the learning rate, clip the gradient norm, or look for NaN in the inputs"
    end = f"{remedy}; {saved}" if saved else remedy
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise FloatingPointError(f"the loss became {losses[bad[0]]} {where}, step {bad[0] + 1} of {len(losses)}; {end}")
    for (path, _), sound in zip(jax.tree_util.tree_leaves_with_path(state.params), finite, strict=True):
        if not sound:
            raise FloatingPointError(f"parameter {jax.tree_util.keystr(path)} is no longer finite {where}; {end}")


class Mean(NamedTuple):
    """A mean over what a device holds, kept in two parts until the devices have added theirs."""

    total: Array
    """Scalar sum"""
    entries: Array | int
    """How many entries the sum has"""
    weight: float = 0.0
    """Share in the loss; 0 = reported only"""


def objective_of_means(loss_fn: Callable[..., tuple[dict[str, Mean], PyTree]]) -> ValueAndGrad:
    """Turn named means over the global batch into the value_and_grad of their weighted sum.

    loss_fn(params, model_state, batch, key, axis_name) -> ({name: Mean}, model_state) suits losses per pixel, where
    devices hold different numbers of labelled ones; a mean of no entries is 0. Every Mean is reported under its name.
    Devices and model_state as in `objective`.
    """

    def value_and_grad(params: PyTree, model_state: PyTree, batch: PyTree, key: Array, axis_name: str | None = None):
        def part(params: PyTree) -> tuple[Array, Any]:
            means, new_state = loss_fn(params, model_state, batch, key, axis_name)
            counts = _total({name: jnp.asarray(mean.entries, jnp.float32) for name, mean in means.items()}, axis_name)
            parts = {name: mean.total / jnp.maximum(counts[name], 1.0) for name, mean in means.items()}
            weighted = [jnp.float32(mean.weight) * parts[name] for name, mean in means.items()]
            return jnp.stack(weighted).sum(), (parts, new_state)

        (loss, (parts, new_state)), grads = jax.value_and_grad(part, has_aux=True)(params)
        loss, parts, grads = _total((loss, parts, grads), axis_name)
        return (loss, new_state, parts), grads

    return value_and_grad


def _total(tree: PyTree, axis_name: str | None) -> PyTree:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)
