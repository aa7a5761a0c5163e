"""The flow as a distrax distribution, and distrax as the oracle of its density."""

from __future__ import annotations

from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.flows.base import log_likelihood
from quantjax.flows.distribution import as_distrax
from quantjax.flows.recipes import quantod, seeded_permutations

# The compiler's own optimisations cost more here than they save.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

D, BLOCKS = 5, 2


@pytest.fixture(scope="module")
def fitted():
    x = jax.random.normal(jax.random.key(0), (12, D)) * 2 + 1
    flow = quantod("glow", dimension=D, blocks=BLOCKS, layers=1, width=8, mixing="permutation")
    return flow, quick_jit(flow.init)(jax.random.key(1), x), x


@pytest.fixture(autouse=True)
def promotion_as_distrax_needs_it():
    with jax.numpy_rank_promotion("allow"):
        yield


def network(params, x):
    for i in range(len(params)):
        x = x @ params[f"linear_{i}"]["kernel"] + params[f"linear_{i}"]["bias"]
        x = jax.nn.relu(x) if i < len(params) - 1 else x
    return x


def half(params, passive, size):
    """One masked coupling; `passive` features condition the others."""

    def affine(outputs):
        full = (
            jnp.zeros((*outputs.shape[:-1], 2, D)).at[..., ~passive].set(outputs.reshape(*outputs.shape[:-1], 2, size))
        )
        return distrax.ScalarAffine(shift=full[..., 1, :], log_scale=3 * 0.636 * jnp.arctan(full[..., 0, :]))

    return distrax.MaskedCoupling(passive, lambda x: network(params, x[..., passive]), affine)


def oracle(params):
    """The same flow, data to latent, of distrax's own bijectors."""
    first = np.arange(D) < round(D / 2)
    steps = []
    for k, order in enumerate(seeded_permutations(D, BLOCKS)):
        block = jax.tree.map(lambda leaf, k=k: leaf[k], params)
        norm = distrax.ScalarAffine(shift=block["actnorm"]["bias"], log_scale=block["actnorm"]["scale"])
        matrix = jnp.eye(D)[jnp.asarray(order)]
        steps += [
            distrax.Block(norm, 1),
            distrax.UnconstrainedAffine(matrix, jnp.zeros(D)),
            half(block["coupling"]["first"]["network_0"], ~first, first.sum()),
            half(block["coupling"]["second"]["network_0"], first, (~first).sum()),
        ]
    latent = distrax.MultivariateNormalDiag(jnp.zeros(D), jnp.ones(D))
    return distrax.Transformed(latent, distrax.Inverse(distrax.Chain(steps[::-1])))


def test_log_prob_equals_distrax_own_bijectors(fitted):
    flow, params, x = fitted
    expected = quick_jit(lambda params: oracle(params).log_prob(x))(params)
    ours, distribution = quick_jit(
        lambda params: (log_likelihood(flow, params, x), as_distrax(flow, params, D).log_prob(x))
    )(params)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(distribution, expected, rtol=1e-5, atol=1e-4)


def test_leading_axes_and_samples(fitted):
    flow, params, x = fitted
    distribution = as_distrax(flow, params, D)
    assert distribution.event_shape == (D,)
    folded, flat = quick_jit(lambda x: (distribution.log_prob(x.reshape(3, 4, D)), distribution.log_prob(x)))(x)
    np.testing.assert_allclose(folded.ravel(), flat, rtol=1e-5, atol=1e-5)
    draw = quick_jit(lambda key: distribution.sample_and_log_prob(seed=key, sample_shape=(6,)))
    rows, log_prob = draw(jax.random.key(2))
    assert rows.shape == (6, D)
    np.testing.assert_allclose(log_prob, log_likelihood(flow, params, rows), rtol=1e-4, atol=1e-3)
    assert distribution.sample(seed=jax.random.key(3)).shape == (D,)


def test_a_latent_of_several_normals():
    x = jnp.asarray(np.random.default_rng(4).normal(size=(6, D)), jnp.float32)
    flow = quantod(dimension=D, blocks=1, layers=0, width=4, mixing="permutation", start="identity", components=3)
    params = flow.init(jax.random.key(0), x)
    expected = log_likelihood(flow, params, x)
    np.testing.assert_allclose(as_distrax(flow, params, D).log_prob(x), expected, rtol=1e-5)
