"""Flow layers that mix or rescale features: ActNorm, a fixed permutation, a learned invertible matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from quantjax.flows.base import Flow, in_float32
from quantjax.types import Array, PyTree

ROUNDING = 1e-6  # a feature that deviates by less of its size does not vary: float32 rounds that much


def actnorm() -> Flow:
    """Rescale every feature: z = x * exp(scale) + bias, log |det| = sum(scale).

    `init` gives the rows it sees mean 0 and unbiased standard deviation 1 per feature, whatever its units. A feature
    that does not vary among them has no scale: it gets the median deviation of the others (1 if none varies), so that
    a later value of it counts as much as one of theirs.
    Raises ValueError on fewer than 2 rows, which have no deviation.
    Source: Kingma and Dhariwal, "Glow", NeurIPS 2018, section 3.1.
    """

    def init(key: Array, x: Array) -> PyTree:
        del key
        if x.shape[0] < 2:
            raise ValueError(f"x must have at least 2 rows to initialise ActNorm, got {x.shape[0]}; pass a whole batch")
        scale = -jnp.log(_deviation(x))
        return {"scale": scale, "bias": -jnp.mean(x * jnp.exp(scale)[None, :], axis=0)}

    def forward(params: PyTree, x: Array, masks: PyTree = None) -> tuple[Array, Array]:
        del masks
        z = x * jnp.exp(params["scale"])[None, :] + params["bias"][None, :]
        return z, jnp.broadcast_to(params["scale"].sum(), x.shape[:1])

    def inverse(params: PyTree, z: Array, masks: PyTree = None) -> tuple[Array, Array]:
        del masks
        x = (z - params["bias"][None, :]) * jnp.exp(-params["scale"])[None, :]
        return x, jnp.broadcast_to(-params["scale"].sum(), z.shape[:1])

    return in_float32(Flow(init, forward, inverse))


def _deviation(x: Array) -> Array:
    """Of each feature of x [B, D] that varies, and the median of those for one that does not."""
    deviation = jnp.std(x, axis=0, ddof=1)
    varies = deviation > ROUNDING * jnp.abs(x).max(axis=0)
    median = jnp.nanmedian(jnp.where(varies, deviation, jnp.nan))
    return jnp.where(varies, deviation, jnp.where(varies.any(), median, 1.0))


def permutation(order: Array) -> Flow:
    """Reorder the features: z[:, i] = x[:, order[i]], log |det| = 0; nothing is learned, params is None.

    order: [D] integers, each of 0..D-1 once. It is a constant of the flow, not a parameter.
    """

    def move(x: Array, index: Array) -> tuple[Array, Array]:
        moved = x.at[:, index].get(unique_indices=True, mode="promise_in_bounds")
        return moved, jnp.zeros(x.shape[0], x.dtype)

    return in_float32(
        Flow(
            lambda key, x: None,
            lambda params, x, masks=None: move(x, jnp.asarray(order)),
            lambda params, z, masks=None: move(z, jnp.argsort(jnp.asarray(order))),
        )
    )


def invertible_linear() -> Flow:
    """Mix the features by a learned matrix: z = x W^T with W = L U, log |det| = sum(log |diag U|).

    The one parameter `lu` [D, D] packs both factors as LAPACK does: the unit lower triangular L below the diagonal,
    U on and above it. W starts as a random orthogonal matrix, its rows in the order that partial pivoting gives them,
    which is why no permutation factor is needed.
    Source: Kingma and Dhariwal (2018), section 3.2 (the LU form and its log-determinant).
    """

    def init(key: Array, x: Array) -> PyTree:
        size = x.shape[1]
        orthogonal, _ = jnp.linalg.qr(jax.random.normal(key, (size, size), jnp.float32))
        return {"lu": jax.lax.linalg.lu(orthogonal)[0]}

    def factors(params: PyTree) -> tuple[Array, Array]:
        lu = params["lu"]
        return jnp.tril(lu, -1) + jnp.eye(lu.shape[0], dtype=lu.dtype), jnp.triu(lu)

    def log_det(params: PyTree, rows: int) -> Array:
        return jnp.broadcast_to(jnp.log(jnp.abs(jnp.diagonal(params["lu"]))).sum(), (rows,))

    def forward(params: PyTree, x: Array, masks: PyTree = None) -> tuple[Array, Array]:
        del masks
        lower, upper = factors(params)
        half = jnp.matmul(x, upper.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.matmul(half, lower.T, precision=jax.lax.Precision.HIGHEST), log_det(params, x.shape[0])

    def inverse(params: PyTree, z: Array, masks: PyTree = None) -> tuple[Array, Array]:
        del masks
        lower, upper = factors(params)
        half = jax.scipy.linalg.solve_triangular(lower, z.T, lower=True, unit_diagonal=True)
        return jax.scipy.linalg.solve_triangular(upper, half).T, -log_det(params, z.shape[0])

    return in_float32(Flow(init, forward, inverse))
