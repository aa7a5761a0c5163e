"""Likelihood and sampling of any flow."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.flows.base import Flow, around, chain, invert, log_likelihood, sample
from quantjax.flows.coupling import nice
from quantjax.flows.recipes import quantod

# The compiler's own optimisations cost more here than they save.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

DOUBLE = Flow(
    lambda key, x: {"factor": jnp.float32(2)},
    lambda params, x, masks=None: (params["factor"] * x, jnp.full(x.shape[0], x.shape[1] * jnp.log(params["factor"]))),
    lambda params, z, masks=None: (z / params["factor"], jnp.full(z.shape[0], -z.shape[1] * jnp.log(params["factor"]))),
)


def test_log_likelihood_by_hand():
    # z = 2x = (1, -2): -(1 + 4)/2 - log(2 pi) + 2 log 2 = -2.5 - 1.8378771 + 1.3862944
    value = log_likelihood(DOUBLE, {"factor": jnp.float32(2)}, jnp.array([[0.5, -1.0]]))
    np.testing.assert_allclose(value, [-2.9515827], rtol=1e-6)
    assert value.dtype == jnp.float32


def test_log_likelihood_of_half_precision_rows_is_float32():
    assert log_likelihood(DOUBLE, {"factor": jnp.float32(2)}, jnp.ones((3, 2), jnp.bfloat16)).dtype == jnp.float32


def test_log_likelihood_wants_rows():
    with pytest.raises(ValueError, match=r"x must have shape \[B, D\], got \[4\]"):
        log_likelihood(DOUBLE, {"factor": jnp.float32(2)}, jnp.ones(4))


def test_density_integrates_to_one():
    flow = quantod(dimension=2, blocks=2, layers=1, width=8)
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(32, 2)), jnp.float32)
    params = quick_jit(flow.init)(jax.random.key(0), rows)
    axis = np.linspace(-40, 40, 801, dtype=np.float32)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    density = np.exp(np.asarray(quick_jit(lambda x: log_likelihood(flow, params, x))(grid)), dtype=np.float64)
    np.testing.assert_allclose(density.sum() * 0.1**2, 1, atol=5e-3)


def test_samples_have_the_density_of_the_flow():
    rows = sample(DOUBLE, {"factor": jnp.float32(2)}, jax.random.key(0), (4000, 2))
    assert rows.shape == (4000, 2)
    # Standard deviation 1 / factor; its standard error is 0.5 / sqrt(8000) = 0.0056.
    np.testing.assert_allclose(np.std(rows), 0.5, atol=0.025)


def test_a_latent_of_several_normals_by_hand():
    flow, params = around(DOUBLE, 2), {"flow": {"factor": jnp.float32(2)}, "centres": jnp.array([[1.0], [5.0]])}
    # z = 2x = 1: log of half of N(1; 1) + N(1; 5) = log(0.19947114 (1 + exp(-8))) = -1.6117505, and log 2 = 0.6931472
    np.testing.assert_allclose(log_likelihood(flow, params, jnp.array([[0.5]])), [-0.9186033], rtol=1e-6)
    slopes = jax.grad(lambda p: log_likelihood(flow, p, jnp.array([[0.4]])).sum())(params)
    assert (np.abs(slopes["centres"]) > 0).all()
    rows = np.asarray(sample(flow, params, jax.random.key(0), (2000, 1)))
    # x = z / 2 about 0.5 and 2.5, each with a deviation of 0.5: the mean's standard error is 1.12 / sqrt(2000)
    np.testing.assert_allclose(rows.mean(), 1.5, atol=0.1)
    np.testing.assert_allclose((rows > 1.5).mean(), 0.5, atol=0.05)


def test_centres_begin_at_the_first_rows_repeated_where_there_are_fewer():
    params = around(DOUBLE, 3).init(jax.random.key(0), jnp.array([[1.0], [4.0]]))
    np.testing.assert_array_equal(params["centres"], [[2.0], [8.0], [2.0]])


def test_chain_runs_in_order_and_back():
    shift = Flow(
        lambda key, x: {"by": jnp.float32(3)},
        lambda params, x, masks=None: (x + params["by"], jnp.zeros(x.shape[0])),
        lambda params, z, masks=None: (z - params["by"], jnp.zeros(z.shape[0])),
    )
    flow = chain(DOUBLE, shift=shift)
    params = flow.init(jax.random.key(0), jnp.ones((2, 1)))
    assert set(params) == {"0", "shift"}
    np.testing.assert_allclose(flow.forward(params, jnp.array([[5.0]]))[0], [[13.0]])
    np.testing.assert_allclose(flow.inverse(params, jnp.array([[13.0]]))[0], [[5.0]])
    np.testing.assert_allclose(invert(flow).forward(params, jnp.array([[13.0]]))[0], [[5.0]])


def test_chain_draws_other_masks_for_every_flow():
    flow = chain(nice(4, layers=0, width=16), DOUBLE, nice(4, layers=0, width=16))
    masks = flow.draw_masks(jax.random.key(0), 5)
    assert set(masks) == {"0", "2"}
    assert (np.asarray(masks["0"]) != np.asarray(masks["2"])).any()


def test_stacked_blocks_draw_other_masks():
    masks = quantod(dimension=4, blocks=3, layers=0, width=32).draw_masks(jax.random.key(0), 5)["coupling"]
    assert masks.shape == (3, 2, 1, 5, 32)
    assert (masks[0] != masks[1]).any()
    assert (masks[1] != masks[2]).any()
