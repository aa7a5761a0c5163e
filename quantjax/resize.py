"""Resizing of maps with PyTorch's index rules, which differ from those of `jax.image.resize`.

Both rules are linear in the map, and each axis is treated apart: a small weight matrix per axis, or slices where the
size doubles. The weights come from NumPy, so that they are constants of a compiled program.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.types import Array


def nearest(x: Array, size: tuple[int, ...]) -> Array:
    """x [B, h, w, ...] of any dtype, labels too -> [B, *size, ...]; row i reads row floor(i * h / size[0]).

    The top-left rule of PyTorch's mode "nearest" in its float32 arithmetic; `jax.image.resize` reads pixel centres.
    """
    _check(x, size, 3, "[B, h, w, ...]")
    for axis, out in zip((1, 2), size, strict=True):
        x = _nearest_axis(x, axis, out)
    return x


def _nearest_axis(x: Array, axis: int, out: int) -> Array:
    given = x.shape[axis]
    if out == given:
        return x
    if out % given == 0:
        return jnp.repeat(x, out // given, axis)
    rows = np.floor(np.arange(out, dtype=np.float32) * (np.float32(given) / np.float32(out))).astype(np.int32)
    return jnp.take(x, np.minimum(rows, given - 1), axis)


def bilinear(x: Array, size: tuple[int, ...], corners: bool = False) -> Array:
    """Floating x [B, h, w, C] -> [B, *size, C] of the same dtype, without smoothing where the size shrinks.

    Row i of H' reads position (i + 1/2) h / H' - 1/2, held inside the map, or i (h - 1) / (H' - 1) where `corners`
    asks that corner pixels fall on corner pixels: PyTorch's mode "bilinear", align_corners=corners.
    """
    _check(x, size, 4, "[B, h, w, C]")
    for axis, out in zip((1, 2), size, strict=True):
        if out != x.shape[axis]:
            x = _double(x, axis) if out == 2 * x.shape[axis] and not corners else _weigh(x, axis, out, corners)
    return x


def _double(x: Array, axis: int) -> Array:
    """Twice the size: rows 2 i and 2 i + 1 are 3/4 of row i and 1/4 of its neighbour before or after."""
    before = jnp.concatenate(
        [jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, 0, -1, axis=axis)], axis
    )
    after = jnp.concatenate(
        [jax.lax.slice_in_dim(x, 1, None, axis=axis), jax.lax.slice_in_dim(x, -1, None, axis=axis)], axis
    )
    pair = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    return pair.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


def _weigh(x: Array, axis: int, out: int, corners: bool) -> Array:
    weights = jnp.asarray(bilinear_weights(x.shape[axis], out, corners), x.dtype)
    rows = "oh,bhwc->bowc" if axis == 1 else "ow,bhwc->bhoc"
    return jnp.einsum(rows, weights, x, precision=jax.lax.Precision.HIGHEST)


def bilinear_weights(given: int, out: int, corners: bool = False) -> np.ndarray:
    """The float32 matrix [out, given] of `bilinear` along one axis; its rows add up to 1."""
    row = np.arange(out, dtype=np.float64)
    position = row * ((given - 1) / max(out - 1, 1)) if corners else (row + 0.5) * (given / out) - 0.5
    position = np.clip(position, 0.0, given - 1.0)
    return np.maximum(1.0 - np.abs(position[:, None] - np.arange(given)), 0.0).astype(np.float32)


def _check(x: Array, size: tuple[int, ...], rank: int, shape: str) -> None:
    if x.ndim < rank or (rank == 4 and x.ndim != 4):
        raise ValueError(f"x must have shape {shape}, got {list(x.shape)}")
    if len(size) != 2 or min(*size, *x.shape[1:3]) < 1:
        raise ValueError(f"size must be two positive numbers of pixels, got {size} for x {list(x.shape)}")
    if rank == 4 and not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be floating, got {x.dtype}; labels are resized by resize.nearest")
