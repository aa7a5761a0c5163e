"""Reverse-mode derivatives of stacked linear layers, with the weight gradients formed after the scan.

Differentiating a scan writes every block's weight gradient to memory inside the loop: for a quantile loss that is ten
million numbers per step for two rows of data. Here the backward scan keeps only what those gradients are made of, each
layer's input a and output cotangent d, and dW = sum_rows a (x) d is formed once, outside the loop, where the compiler
can fuse it into the optimiser's update. The numbers are the same up to the order of summation.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from quantjax.flows.base import Transform
from quantjax.types import Array, PyTree

FUSED_ROWS = 4  # up to here dW is written as a sum of outer products, which fuses; above it is a matrix product
KERNEL, SLOTS = "kernel", "slots"


def matmul(layer: PyTree, x: Array, dtype: Any) -> Array:
    """Return x @ layer["kernel"] in float32, the factors rounded to `dtype`; x [B, in], kernel [in, out] -> [B, out].

    Where `layer` holds slots (see `deferred`), reverse mode hands them the two factors of the weight gradient.
    """
    if SLOTS in layer:
        return _slotted(layer[KERNEL].astype(dtype), x, layer[SLOTS])
    return _product(x, layer[KERNEL].astype(dtype))


def deferred(transform: Transform) -> Transform:
    """Return the same map with the same reverse-mode derivatives, cheaper; forward mode (jvp, jacfwd) is not defined.

    Every dict in params that holds a "kernel" must be used through `matmul`, once, on the rows given.
    """

    @jax.custom_vjp
    def run(params: PyTree, x: Array, masks: PyTree) -> tuple[Array, Array]:
        return transform(params, x, masks)

    def forward(params: PyTree, x: Array, masks: PyTree) -> tuple[tuple[Array, Array], Any]:
        def slotted(params: PyTree, slots: PyTree, x: Array) -> tuple[Array, Array]:
            return transform(_insert(params, slots), x, masks)

        return jax.vjp(slotted, params, _empty_slots(params, x.shape[0]), x)

    def backward(pull_back: Any, cotangents: tuple[Array, Array]) -> tuple[PyTree, Array, None]:
        grads, slots, dx = pull_back(cotangents)
        return _fill(grads, slots), dx, None

    run.defvjp(forward, backward)
    return lambda params, x, masks=None: run(params, x, masks)


def _product(x: Array, kernel: Array) -> Array:
    # HIGHEST: accelerators would otherwise round the float32 factors of a likelihood to fewer bits
    precision = jax.lax.Precision.HIGHEST
    return jnp.matmul(x.astype(kernel.dtype), kernel, precision=precision, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _slotted(kernel: Array, x: Array, slots: tuple[Array, Array]) -> Array:
    del slots
    return _product(x, kernel)


def _slotted_forward(kernel: Array, x: Array, slots: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    del slots
    return _product(x, kernel), (kernel, x)


def _slotted_backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[None, Array, tuple[Array, Array]]:
    kernel, x = saved
    return None, _product(cotangent, kernel.T), (x, cotangent)


_slotted.defvjp(_slotted_forward, _slotted_backward)


def _empty_slots(params: PyTree, rows: int) -> PyTree:
    if not isinstance(params, dict):
        return None
    if KERNEL not in params:
        return {name: _empty_slots(value, rows) for name, value in params.items()}
    *leading, inputs, outputs = params[KERNEL].shape
    return jnp.zeros((*leading, rows, inputs)), jnp.zeros((*leading, rows, outputs))


def _insert(params: PyTree, slots: PyTree) -> PyTree:
    if slots is None:
        return params
    if isinstance(slots, dict):
        return {name: _insert(params[name], slots[name]) for name in params}
    return params | {KERNEL: jax.lax.stop_gradient(params[KERNEL]), SLOTS: slots}


def _fill(grads: PyTree, slots: PyTree) -> PyTree:
    if slots is None:
        return grads
    if isinstance(slots, dict):
        return {name: _fill(grads[name], slots[name]) for name in grads}
    return grads | {KERNEL: _weight_gradient(*slots)}


def _weight_gradient(inputs: Array, cotangents: Array) -> Array:
    rows = inputs.shape[-2]
    if rows > FUSED_ROWS:
        return jnp.matmul(inputs.swapaxes(-1, -2), cotangents, precision=jax.lax.Precision.HIGHEST)
    gradient = inputs[..., 0, :, None] * cotangents[..., 0, None, :]
    for row in range(1, rows):
        gradient = gradient + inputs[..., row, :, None] * cotangents[..., row, None, :]
    return gradient
