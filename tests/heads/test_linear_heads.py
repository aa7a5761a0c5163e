import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.heads import GmmSettings, LinearHead, Projector, gmm


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_unknown_estimation_module_has_the_papers_size():
    tokens, features = jnp.zeros((1, 2, 2, 768)), jnp.zeros((1, 2, 2, 256))
    projector = jax.eval_shape(Projector().init, jax.random.key(0), tokens)
    head = jax.eval_shape(LinearHead(2).init, jax.random.key(0), features)
    assert count(projector) == 393_728 + 262_656 + 131_328 == 787_712
    assert count(projector) + count(head) == 788_226
    params, _ = jax.eval_shape(lambda key: gmm.init(key, GmmSettings(2)), jax.random.key(0))
    assert count(projector) + count(params) == 788_228


def test_projector_is_linear_layers_with_relu_between(rng):
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32)
    model = Projector((7, 6, 2))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    y = np.asarray(x, np.float64)
    for i in range(3):
        layer = variables["params"][f"linear{i}"]
        y = np.maximum(y, 0) if i else y
        y = y @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
    np.testing.assert_allclose(model.apply(variables, x), y, rtol=1e-4, atol=1e-5)
    assert (y < 0).any()


def test_linear_head_starts_as_torch_does_and_answers_in_float32(rng):
    x = jnp.asarray(rng.normal(size=(2, 64)), jnp.bfloat16)
    variables = jax.jit(LinearHead(200).init)(jax.random.key(0), x)
    layer = variables["params"]["linear"]
    for leaf in (layer["kernel"], layer["bias"]):  # uniform within 1 / sqrt(64)
        assert np.abs(leaf).max() <= 1 / 8
        np.testing.assert_allclose(leaf.std(), 1 / 8 / np.sqrt(3), rtol=0.15)
    logits = LinearHead(200).apply(variables, x)
    assert logits.dtype == jnp.float32
    want = np.asarray(x, np.float64) @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)


def test_projector_without_layers_is_refused():
    with pytest.raises(ValueError, match="widths must name at least one layer"):
        Projector(()).init(jax.random.key(0), jnp.zeros((1, 3)))
