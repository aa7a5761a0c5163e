"""Position embeddings of a vision transformer on another grid than the one they were trained on.

Resizing is separable, so it is two products with small matrices, R P C^T per channel. They depend on sizes alone and
are computed with numpy while tracing. Row r of such a matrix holds the cubic weights (Keys, 1981) of output cell r:

    centre = scale (r + 1/2),     weight_i = k((i + 1/2 - centre) / max(scale, 1 if antialiased))

with scale = in / out. Three rules are in use:

  antialiased   kernel with a = -1/2 that widens when shrinking, weights outside dropped and renormalised
                (DINOv2 with registers, everywhere)
  exact         kernel with a = -3/4, never widened, edge cells repeated (DINOv2 and CLIP as Hugging Face runs them)
  offset        as `exact`, but scale = in / (out + 0.1), which moves the grid by a fraction of a cell
                (DINOv2 as its authors run it)
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.checks import check_choice
from quantjax.types import Array

PositionRule = Literal["antialiased", "exact", "offset"]
RULES = ("antialiased", "exact", "offset")
OFFSET = 0.1


def resize_positions(positions: Array, grid: tuple[int, int], rule: PositionRule) -> Array:
    """Resize position embeddings [h0, w0, C] to grid = (h, w) -> [h, w, C] float32; unchanged if that is their size.

    Raises ValueError for an unknown rule.
    """
    check_choice("rule", rule, RULES)
    if positions.shape[:2] == tuple(grid):
        return positions
    rows, columns = (jnp.asarray(cubic_weights(n, m, rule)) for n, m in zip(positions.shape[:2], grid, strict=True))
    return jnp.einsum("hi,wj,ijc->hwc", rows, columns, positions, precision=jax.lax.Precision.HIGHEST)


@cache
def cubic_weights(size: int, target: int, rule: PositionRule) -> np.ndarray:
    """Matrix [target, size] float32 that resizes one axis; its rows sum to one."""
    scale = size / (target + OFFSET) if rule == "offset" else size / target
    centre = scale * (np.arange(target)[:, None] + 0.5)
    if rule == "antialiased":
        weights = _cubic((np.arange(size) + 0.5 - centre) / max(scale, 1.0), -0.5)
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    first = np.floor(centre - 0.5).astype(int) - 1
    taps = first + np.arange(4)
    weights = np.zeros((target, size))
    rows = np.broadcast_to(np.arange(target)[:, None], taps.shape)
    np.add.at(weights, (rows, taps.clip(0, size - 1)), _cubic(taps + 0.5 - centre, -0.75))
    return weights.astype(np.float32)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel: 1 at 0, 0 at every other whole number, 0 from 2 on."""
    t = np.abs(distance)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))
