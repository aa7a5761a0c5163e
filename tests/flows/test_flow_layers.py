"""One table of every flow layer and recipe, and the properties that all of them have; then facts of single layers."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.flows.base import chain, invert
from quantjax.flows.coupling import gin, glow, nice, realnvp
from quantjax.flows.layers import actnorm, invertible_linear, permutation
from quantjax.flows.recipes import quantod

SMALL = {"layers": 1, "width": 8}
TABLE = {
    "actnorm": (actnorm(), 5),
    "permutation": (permutation(jnp.array([3, 0, 4, 1, 2])), 5),
    "invertible_linear": (invertible_linear(), 5),
    "glow": (glow(6, **SMALL), 6),
    "glow_odd": (glow(5, **SMALL), 5),
    "realnvp_odd": (realnvp(7, **SMALL), 7),
    "gin_odd": (gin(7, **SMALL), 7),
    "nice_odd": (nice(5, **SMALL), 5),
    "two_features": (glow(2, **SMALL), 2),
    "chain": (chain(actnorm(), invertible_linear()), 4),
    "invert": (invert(glow(5, **SMALL)), 5),
    "paper": (quantod("glow", dimension=5, blocks=3, mixing="linear", **SMALL), 5),
    "reference": (quantod("realnvp", dimension=5, blocks=3, mixing="permutation", **SMALL), 5),
    "reference_gin": (quantod("gin", dimension=6, blocks=2, mixing="permutation", layers=0, width=4), 6),
    "identity": (quantod("glow", dimension=6, blocks=2, mixing="permutation", start="identity", **SMALL), 6),
    "paper_nice": (quantod("nice", dimension=5, blocks=2, mixing="linear", **SMALL), 5),
}
pytestmark = pytest.mark.usefixtures("strict_dtypes")


# The compiler's own optimisations cost more here than they save.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module", params=TABLE)
def row(request):
    """Flow, params away from their initial values, rows."""
    flow, dimension = TABLE[request.param]
    x = jnp.asarray(np.random.default_rng(1).normal(1.0, 2.0, (9, dimension)), jnp.float32)
    params = quick_jit(flow.init)(jax.random.key(0), x)
    rng = np.random.default_rng(2)
    moved = jax.tree.map(lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), jnp.float32), params)
    return flow, moved, x


def test_round_trip(row):
    flow, params, x = row

    @quick_jit
    def there_and_back(params, x):
        z, log_det = flow.forward(params, x)
        return z, log_det, *flow.inverse(params, z)

    z, log_det, back, inverse_log_det = there_and_back(params, x)
    assert z.shape == x.shape
    assert log_det.shape == x.shape[:1]
    np.testing.assert_allclose(back, x, atol=2e-4, rtol=2e-4)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=2e-4, rtol=2e-4)


def test_log_det_is_that_of_the_jacobian(row):
    flow, params, x = row

    @quick_jit
    def with_jacobian(params, x):
        jacobian = jax.vmap(jax.jacfwd(lambda one: flow.forward(params, one[None, :])[0][0]))
        return flow.forward(params, x)[1], jacobian(x)

    log_det, jacobians = with_jacobian(params, x)
    expected = np.linalg.slogdet(np.asarray(jacobians, np.float64))[1]
    np.testing.assert_allclose(log_det, expected, atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_parameter(row):
    flow, params, x = row
    forward = flow.reverse_mode or flow.forward

    def loss(params):
        z, log_det = forward(params, x, flow.draw_masks(jax.random.key(3), len(x)))
        return jnp.sum(jnp.sin(z)) + jnp.sum(log_det)

    for path, grad in jax.tree_util.tree_leaves_with_path(quick_jit(jax.grad(loss))(params)):
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 0, path
        if grad.ndim == 3:  # stacked kernels: every block is reached
            assert (np.abs(grad).max(axis=(1, 2)) > 0).all(), path


def test_rows_keep_their_masks_and_same_shapes_trace_once(row):
    flow, params, x = row
    traces = []

    @quick_jit
    def run(params, x, key):
        traces.append(1)
        masks = flow.draw_masks(key, len(x))
        assert all(mask.dtype == bool and mask.shape[-2] == len(x) for mask in jax.tree.leaves(masks))
        some = jax.tree.map(lambda mask: mask[..., 2:5, :], masks)
        return flow.forward(params, x, masks), flow.forward(params, x[2:5], some)

    whole, part = run(params, x, jax.random.key(0))
    for all_rows, some_rows in zip(whole, part, strict=True):
        np.testing.assert_allclose(some_rows, all_rows[2:5], atol=1e-5, rtol=1e-5)
    run(jax.tree.map(jnp.ones_like, params), x + 1, jax.random.key(1))
    assert len(traces) == 1


def test_actnorm_starts_at_mean_zero_and_unbiased_deviation_one(rng):
    x = jnp.asarray(rng.normal(5, 3, (40, 4)), jnp.float32)
    flow = actnorm()
    params = flow.init(jax.random.key(0), x)
    z, log_det = flow.forward(params, x)
    np.testing.assert_allclose(np.mean(z, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(z, axis=0, ddof=1), 1, atol=1e-5)
    np.testing.assert_allclose(log_det, -np.log(np.std(np.asarray(x), axis=0, ddof=1)).sum(), rtol=1e-5)


@pytest.mark.parametrize("columns", [[0], [0, 1, 2]])
def test_actnorm_survives_dead_features(rng, columns):
    x = rng.normal(size=(20, 3)).astype(np.float32)
    x[:, columns] = 0.25
    flow = actnorm()
    params = flow.init(jax.random.key(0), jnp.asarray(x))
    z, log_det = flow.forward(params, jnp.asarray(x))
    assert np.isfinite(z).all()
    assert np.isfinite(log_det).all()
    np.testing.assert_allclose(np.asarray(z)[:, columns], 0, atol=0.02)  # 1e6 * 0.25 rounds to 2^-6


def test_actnorm_needs_two_rows():
    with pytest.raises(ValueError, match="at least 2 rows"):
        actnorm().init(jax.random.key(0), jnp.ones((1, 3)))


def test_permutation_moves_features_as_stated():
    z, log_det = permutation(jnp.array([2, 0, 1])).forward(None, jnp.array([[10.0, 11.0, 12.0]]))
    np.testing.assert_array_equal(z, [[12.0, 10.0, 11.0]])
    np.testing.assert_array_equal(log_det, [0.0])


def test_invertible_linear_starts_orthogonal():
    flow = invertible_linear()
    params = flow.init(jax.random.key(0), jnp.zeros((2, 6)))
    matrix, log_det = flow.forward(params, jnp.eye(6))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)
    assert np.abs(np.asarray(matrix) - np.eye(6)).max() > 0.1


def test_soft_clamp_bounds_the_scale():
    flow = glow(4, clamp=2.0, **SMALL)
    params = flow.init(jax.random.key(0), jnp.zeros((2, 4)))
    params = jax.tree.map(lambda p: 1e4 * jnp.ones_like(p), params)
    _, log_det = flow.forward(params, jnp.ones((3, 4)))
    # Every network output is huge, so each of the 4 log-scales is 2 * 0.636 * (pi / 2).
    np.testing.assert_allclose(log_det, 4 * 2 * 0.636 * np.pi / 2, rtol=1e-4)


def test_dropout_drops_and_rescales():
    flow = nice(2, layers=0, width=1, dropout=0.3)
    layer = {"linear_0": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}
    net = {"network_0": layer | {"linear_1": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}}
    masks = jnp.array([[[[True], [False]]], [[[False], [False]]]])
    z, _ = flow.forward({"first": net, "second": net}, jnp.full((2, 2), 7.0), masks)
    np.testing.assert_allclose(z, [[7 + 7 / 0.7, 7.0], [7.0, 7.0]], rtol=1e-6)


def test_no_dropout_draws_no_masks():
    assert quantod(dimension=4, blocks=2, dropout=0.0, **SMALL).draw_masks(jax.random.key(0), 3) is None
