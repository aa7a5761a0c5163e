"""The deferred weight gradients are those of plain reverse mode."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.flows.base import log_likelihood
from quantjax.flows.recipes import quantod

# The compiler's own optimisations cost more here than they save.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


# Outer products below 5 rows, a matrix product above.
@pytest.mark.parametrize(
    ("rows", "kind", "mixing"), [(1, "glow", "permutation"), (2, "realnvp", "linear"), (7, "realnvp", "permutation")]
)
def test_gradients_equal_plain_reverse_mode(rng, rows, kind, mixing):
    flow = quantod(kind, dimension=5, blocks=2, layers=1, width=8, mixing=mixing)
    params = quick_jit(flow.init)(jax.random.key(0), jnp.asarray(rng.normal(size=(9, 5)), jnp.float32))
    x = jnp.asarray(rng.normal(size=(rows, 5)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=rows), jnp.float32)
    masks = quick_jit(flow.draw_masks, static_argnums=1)(jax.random.key(1), rows)

    def gradients(flow):
        def loss(params, x):
            return jnp.sum(weights * log_likelihood(flow, params, x, masks))

        return quick_jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)

    assert flow.reverse_mode is not None
    ours, plain = gradients(flow), gradients(flow._replace(reverse_mode=None))
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_gradients_under_vmap_over_parameters(rng):
    flow = quantod(dimension=4, blocks=2, layers=0, width=4)
    x = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    params = quick_jit(flow.init)(jax.random.key(0), x)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)
    gradient = jax.grad(lambda params: jnp.sum(log_likelihood(flow, params, x)))
    both = quick_jit(jax.vmap(gradient))(stacked)
    second = quick_jit(gradient)(jax.tree.map(lambda leaf: leaf[1], stacked))
    for ours, theirs in zip(jax.tree.leaves(both), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(ours[1], theirs, rtol=1e-4, atol=1e-5)
