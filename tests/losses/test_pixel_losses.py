"""Losses per pixel against torch; ignored pixels and unknown labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_cross_entropy_per_pixel_equals_torch(golden):
    want = golden("pixel_losses")
    labels = jnp.asarray(np.where(want["labels"] == 254, 255, want["labels"]))
    got = losses.pixel_cross_entropy(jnp.asarray(want["logits"][..., :4]), labels)
    np.testing.assert_allclose(got, want["cross_entropy"], rtol=1e-5, atol=1e-6)
    assert (np.asarray(got)[np.asarray(labels) == 255] == 0.0).all()


def test_likelihood_ratio_loss_equals_torch(golden):
    want = golden("pixel_losses")
    labels = want["labels"]
    labels = np.where(labels == 255, 255, labels == 254).astype(np.uint8)
    got = losses.likelihood_ratio_loss(jnp.asarray(want["llr"]), jnp.asarray(labels))
    np.testing.assert_allclose(got, want["binary"], rtol=1e-5, atol=1e-6)


def test_huge_ratios_stay_finite():
    llr, labels = jnp.asarray([[[400.0, 400.0, -400.0]]]), jnp.asarray([[[0, 1, 1]]])
    np.testing.assert_allclose(losses.likelihood_ratio_loss(llr, labels), [[[400.0, 0.0, 400.0]]])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_ignored_pixels_have_no_gradient_whatever_they_hold(poison):
    labels = jnp.asarray([[[1, 255]]], jnp.uint8)

    def ratio(llr):
        return jnp.sum(losses.likelihood_ratio_loss(llr, labels))

    def classes(logits):
        return jnp.sum(losses.pixel_cross_entropy(logits, labels))

    gradient = jax.jit(jax.grad(ratio))(jnp.asarray([[[0.0, poison]]]))
    np.testing.assert_allclose(gradient, [[[-0.5, 0.0]]])
    gradient = jax.jit(jax.grad(classes))(jnp.asarray([[[[0.0, 0.0], [poison, poison]]]]))
    np.testing.assert_allclose(gradient, [[[[0.5, -0.5], [0.0, 0.0]]]])


def test_another_label_to_ignore():
    labels = jnp.asarray([[[0, 7]]])
    np.testing.assert_allclose(losses.pixel_cross_entropy(jnp.zeros((1, 1, 2, 2)), labels, 7), [[[np.log(2), 0.0]]])
    np.testing.assert_array_equal(losses.valid(labels, 7), [[[True, False]]])
    np.testing.assert_array_equal(losses.valid(jnp.asarray([0, 254, 255], jnp.uint8)), [True, True, False])


def test_unknown_labels_show():
    labels = jnp.asarray([[[0, 2, 254]]], jnp.uint8)
    assert np.isnan(losses.pixel_cross_entropy(jnp.zeros((1, 1, 3, 2)), labels)).tolist() == [[[False, True, True]]]
    assert np.isnan(losses.likelihood_ratio_loss(jnp.zeros((1, 1, 3)), labels)).tolist() == [[[False, True, True]]]


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"labels must have shape \[1, 2, 3\], got \[1, 4, 6\]"):
        losses.pixel_cross_entropy(jnp.zeros((1, 2, 3, 5)), jnp.zeros((1, 4, 6), jnp.uint8))
    with pytest.raises(ValueError, match=r"llr must have shape \[B, H, W\]"):
        losses.likelihood_ratio_loss(jnp.zeros((1, 2, 3, 2)), jnp.zeros((1, 2, 3), jnp.uint8))
