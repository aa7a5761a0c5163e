"""Resizing of maps with PyTorch's index rules, which differ from those of `jax.image.resize`.

Both rules are linear in the map and treat each axis apart: a row of the result adds up a few rows of the map, which
are found with NumPy, so that positions and weights are constants of a compiled program.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.types import Array

MOST_READS = 16  # rows added up one by one; more than these are a matrix product


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
    rows = np.floor(np.arange(out, dtype=np.float32) * (np.float32(given) / np.float32(out))).astype(np.int32)
    if out % given == 0 and (rows == np.arange(out) // (out // given)).all():  # else float32 was just short of a row
        return jnp.repeat(x, out // given, axis)
    return jnp.take(x, np.minimum(rows, given - 1), axis)


def bilinear(x: Array, size: tuple[int, ...], corners: bool = False) -> Array:
    """Floating x [B, h, w, C] -> [B, *size, C] of the same dtype, without smoothing where the size shrinks.

    Row i of H' reads position (i + 1/2) h / H' - 1/2, held inside the map, or i (h - 1) / (H' - 1) where `corners`
    asks that corner pixels fall on corner pixels: PyTorch's mode "bilinear", align_corners=corners.
    """
    _check(x, size, 4, "[B, h, w, C]")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be floating, got {x.dtype}; labels are resized by resize.nearest")
    for axis, out in zip((1, 2), size, strict=True):
        if out != x.shape[axis]:
            x = _apply(x, axis, bilinear_weights(x.shape[axis], out, corners))
    return x


def bilinear_weights(given: int, out: int, corners: bool = False) -> np.ndarray:
    """The float32 matrix [out, given] of `bilinear` along one axis; its rows add up to 1."""
    row = np.arange(out, dtype=np.float64)
    position = row * ((given - 1) / max(out - 1, 1)) if corners else (row + 0.5) * (given / out) - 0.5
    position = np.clip(position, 0.0, given - 1.0)
    return np.maximum(1.0 - np.abs(position[:, None] - np.arange(given)), 0.0).astype(np.float32)


def _apply(x: Array, axis: int, weights: np.ndarray) -> Array:
    """Multiply an axis of x by weights [out, given]; the gradient is the same with the transposed weights.

    Left to itself the gradient of reading rows is a scatter, which takes ten times as long on a CPU.
    """

    @jax.custom_vjp
    def read(x: Array) -> Array:
        return _read(x, axis, weights)

    read.defvjp(lambda x: (read(x), None), lambda _, y: (_apply(y, axis, weights.T),))
    return read(x)


def _read(x: Array, axis: int, weights: np.ndarray) -> Array:
    """The product as a sum over the non-zero weights of each row, or whole where these are many."""
    rows = np.arange(x.ndim) == axis
    used = weights != 0.0
    count = int(used.sum(1).max())
    if count > MOST_READS:
        y = jnp.tensordot(jnp.asarray(weights, x.dtype), x, (1, axis), precision=jax.lax.Precision.HIGHEST)
        return jnp.moveaxis(y, 0, axis)
    read = np.argsort(~used, axis=1, kind="stable")[:, :count]
    factors = np.take_along_axis(weights, read, 1)
    terms = (
        jnp.take(x, read[:, i], axis, mode="clip") * jnp.asarray(factors[:, i].reshape(np.where(rows, -1, 1)), x.dtype)
        for i in range(count)
    )
    return sum(terms, start=jnp.zeros((), x.dtype))


def blur(x: Array) -> Array:
    """Gaussian blur of maps [B, H, W], 7 x 7 with sigma 1, mirrored at the border without repeating it.

    PEBAL's (Tian et al., ECCV 2022). Raises ValueError for another rank or a side under 4, which has no such mirror.
    """
    if x.ndim != 3 or min(x.shape[1:]) < 4:
        raise ValueError(f"x must have shape [B, H, W] with H and W at least 4, got {list(x.shape)}")
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (1, 2):
        length = x.shape[axis]
        padded = jnp.pad(x, [(3, 3) if i == axis else (0, 0) for i in range(3)], mode="reflect")
        shifted = (jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(7))
        x = sum((w * part for w, part in zip(weights, shifted, strict=True)), jnp.zeros_like(x))
    return x


def _check(x: Array, size: tuple[int, ...], rank: int, shape: str) -> None:
    if x.ndim < rank or (rank == 4 and x.ndim != 4):
        raise ValueError(f"x must have shape {shape}, got {list(x.shape)}")
    if len(size) != 2 or min(*size, *x.shape[1:3]) < 1:
        raise ValueError(f"size must be two positive numbers of pixels, got {size} for x {list(x.shape)}")
