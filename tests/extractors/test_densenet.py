"""A densely connected network of one layer a block; the published depth against PyTorch is in test_classifier_names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors import DenseNet, fold

SHALLOW = DenseNet(4, depth=10, growth=6)


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(SHALLOW.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 12, 12, 3), jnp.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 1.0, leaf.shape).astype(np.float32), shapes)


def test_maps_grow_by_a_layer_and_halve_in_a_transition(variables):
    images = jax.ShapeDtypeStruct((2, 12, 12, 3), jnp.float32)
    out = jax.eval_shape(SHALLOW.clone(dtype=jnp.bfloat16).apply, variables, images)
    # 12 channels, 6 more; 9 of 18 go on, 6 more; 7 of 15 go on, 6 more
    wanted = {"stem": (12, 12), "group1": (12, 18), "group2": (6, 15), "group3": (3, 13)}
    assert {name: m.shape[2:] for name, m in out.intermediates.items()} == wanted
    assert {m.dtype for m in out.intermediates.values()} == {jnp.dtype(jnp.bfloat16)}
    assert (out.logits.dtype, out.features.dtype, out.features.shape) == (jnp.float32, jnp.float32, (2, 13))
    odd = jax.eval_shape(SHALLOW.apply, variables, jax.ShapeDtypeStruct((1, 13, 13, 3), jnp.float32))
    assert odd.intermediates["group3"].shape[1:3] == (3, 3)  # the last row is dropped, as in torch


def test_folding_changes_no_output_and_leaves_norms_of_what_was_joined(variables):
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 12, 3)), jnp.float32)
    folded, params = fold(SHALLOW, variables)
    wanted, given = jax.jit(SHALLOW.apply)(variables, images), jax.jit(folded.apply)(params, images)
    for a, b in zip(wanted[:2], given[:2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())
    norms = [path for path, _ in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "scale"]
    assert len(norms) == 3 + 2 + 1  # the first of every layer, of the transitions, the last one
