"""QuantOD's flow: sizes, permutations, initialisation through the chain, refused options."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.flows import base
from quantjax.flows.base import chain
from quantjax.flows.coupling import glow
from quantjax.flows.layers import actnorm, permutation
from quantjax.flows.recipes import quantod, seeded_permutations

# The compiler's own optimisations cost more here than they save.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize(("mixing", "count"), [("permutation", 9_990_144), ("linear", 9_990_144 + 8 * 128 * 128)])
def test_parameter_count_of_the_paper(mixing, count):
    flow = quantod("glow", dimension=128, blocks=8, layers=2, width=512, mixing=mixing)
    params = jax.eval_shape(flow.init, jax.random.key(0), jax.ShapeDtypeStruct((128, 128), jnp.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    assert all(leaf.dtype == jnp.float32 and leaf.shape[0] == 8 for leaf in jax.tree.leaves(params))
    assert seeded_permutations(128, 8).size == 2_048 // 2  # the other half of what FrEIA stores are the inverses


def test_permutations_have_the_seeds_of_the_released_program():
    orders = seeded_permutations(11, 4)
    for order, seed in zip(orders, [0, 1, 4, 5], strict=True):
        np.testing.assert_array_equal(order, np.random.RandomState(seed).permutation(11))


def test_scan_equals_a_chain_of_single_blocks(rng):
    dimension, blocks = 5, 3
    x = jnp.asarray(rng.normal(size=(6, dimension)), jnp.float32)
    stacked = quantod("glow", dimension=dimension, blocks=blocks, layers=1, width=4, mixing="permutation")
    params = quick_jit(stacked.init)(jax.random.key(0), x)
    masks = quick_jit(stacked.draw_masks, static_argnums=1)(jax.random.key(1), 6)

    def block(order):
        return chain(actnorm=actnorm(), permutation=permutation(order), coupling=glow(dimension, layers=1, width=4))

    unrolled = chain(*map(block, seeded_permutations(dimension, blocks)))
    split = [{str(k): jax.tree.map(lambda leaf, k=k: leaf[k], tree) for k in range(blocks)} for tree in (params, masks)]
    ours = quick_jit(stacked.forward)(params, x, masks)
    theirs = quick_jit(unrolled.forward)(split[0], x, split[1])
    for mine, single in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, single, atol=1e-5)


@pytest.mark.parametrize("mixing", ["linear", "permutation"])
def test_initialisation_runs_through_the_chain(rng, mixing):
    x = jnp.asarray(rng.normal(4, 3, (64, 4)), jnp.float32)
    flow = quantod(dimension=4, blocks=3, layers=1, width=8, mixing=mixing)
    params = quick_jit(flow.init)(jax.random.key(0), x)
    for k in range(3):
        before = x
        if k:
            head = quantod(
                dimension=4, blocks=k, layers=1, width=8, mixing=mixing,
                **({"permutations": seeded_permutations(4, 3)[:k]} if mixing == "permutation" else {}),
            )  # fmt: skip
            before, _ = head.forward(jax.tree.map(lambda leaf, k=k: leaf[:k], params), x)
        norm = jax.tree.map(lambda leaf, k=k: leaf[k], params["actnorm"])
        after, _ = actnorm().forward(norm, before)
        np.testing.assert_allclose(np.mean(after, axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(np.std(after, axis=0, ddof=1), 1, atol=1e-4)


def test_linear_layers_start_as_in_torch():
    flow = quantod(dimension=6, blocks=2, layers=1, width=200)
    net = quick_jit(flow.init)(jax.random.key(0), jnp.eye(6))["coupling"]["first"]["network_0"]
    for name, fan_in in (("linear_0", 3), ("linear_1", 200), ("linear_2", 200)):
        for leaf in net[name].values():
            assert np.abs(leaf).max() <= fan_in**-0.5
        kernel = np.asarray(net[name]["kernel"])
        np.testing.assert_allclose(kernel.std(), fan_in**-0.5 / np.sqrt(3), rtol=0.1)
        assert np.abs(kernel[0] - kernel[1]).max() > 0


def test_half_precision_networks_stay_close_and_answer_in_float32(rng):
    x = jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)
    options = {"dimension": 6, "blocks": 2, "layers": 1, "width": 16}
    exact = quantod(**options)
    params = quick_jit(exact.init)(jax.random.key(0), x)
    z, log_det = quantod(**options, dtype=jnp.bfloat16).forward(params, x)
    assert z.dtype == log_det.dtype == jnp.float32
    difference = np.abs(z - exact.forward(params, x)[0]).max()
    assert 0 < difference < 0.1


def test_a_flow_that_begins_as_the_identity_has_the_density_of_its_latent(rng):
    x = rng.normal(size=(7, 4)).astype(np.float32)
    flow = quantod(dimension=4, blocks=3, layers=0, width=8, mixing="permutation", start="identity", components=2)
    params = flow.init(jax.random.key(0), jnp.asarray(x))
    assert params["centres"].shape == (2, 4)
    # half of each of two unit normals, at the first two rows
    squares = ((x[:, None, :] - x[None, :2, :]) ** 2).sum(axis=2)
    expected = np.log(np.mean(np.exp(-squares / 2), axis=1)) - 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(base.log_likelihood(flow, params, jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "maf"}, "kind must be one of gin, glow, nice, realnvp; got 'maf'"),
        ({"mixing": "none"}, "mixing must be one of"),
        ({"start": "none"}, "start must be one of"),
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"dimension": 1}, "dimension must be at least 2"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"layers": -1}, "layers must be at least 0"),
        ({"width": 0}, "width must be at least 1"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"clamp": 0.0}, "clamp must be above 0"),
        ({"permutations": np.zeros((8, 4), int)}, "every row of permutations"),
        ({"permutations": np.zeros((2, 4), int)}, r"permutations must have shape \[8, 4\]"),
        ({"permutations": np.zeros((8, 4), int), "mixing": "linear"}, 'mixing="permutation" only'),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        quantod(**({"dimension": 4, "mixing": "permutation"} | options))
