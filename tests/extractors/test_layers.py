"""Means and deviations of maps, by hand and against numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.extractors import BACKBONES, extract, fold, layer_statistics


def test_by_hand():
    # one channel 0, 2, 4, 6 (mean 3, deviation sqrt 5), one of ones
    channel = np.array([[0.0, 2.0], [4.0, 6.0]])
    found = layer_statistics({"a": jnp.asarray(np.stack([channel, np.ones((2, 2))], axis=-1)[None], jnp.bfloat16)})
    np.testing.assert_allclose(found["a"], [[3.0, 1.0, 5.0**0.5, 0.0]], rtol=1e-6)
    assert found["a"].dtype == jnp.float32


def test_far_from_zero_deviations_keep_their_digits(rng):
    values = (1e4 + rng.normal(size=(2, 6, 6, 3))).astype(np.float32)
    expected = values.astype(np.float64).std(axis=(1, 2))
    np.testing.assert_allclose(layer_statistics({"a": jnp.asarray(values)})["a"][:, 3:], expected, rtol=1e-3)


def test_they_come_with_logits_and_features_for_any_number_of_rows(rng):
    backbone = BACKBONES["wrn10_1"]
    model = backbone.build(3)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    images = jnp.asarray(rng.normal(size=(5, 8, 8, 3)), jnp.float32)
    folded, weights = fold(model, variables)
    logits, features, layers = jax.jit(lambda x: extract(folded, weights, x, 2, layers=True))(images)
    whole = folded.apply(weights, images)
    np.testing.assert_allclose(logits, whole.logits, atol=1e-5)
    np.testing.assert_allclose(features, whole.features, atol=1e-5)
    assert set(layers) == set(whole.intermediates) == {"stem", "group1", "group2", "group3"}
    for name, values in whole.intermediates.items():
        np.testing.assert_allclose(layers[name][:, : values.shape[-1]], values.mean(axis=(1, 2)), atol=1e-5)
