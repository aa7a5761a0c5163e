import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors.convolution import (
    Conv,
    ConvNorm,
    Head,
    _packed_pair,
    _plain_pair,
    check_images,
    convolve,
    convolve_pair,
)


def test_convolve_pads_both_sides_at_stride_two():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    y = convolve(x, jnp.ones((3, 3, 1, 1)), 2)
    # windows centred on rows and columns 0 and 2: 0+1+4+5, 1+2+3+5+6+7, 4+5+8+9+12+13, the nine from 5 to 15
    np.testing.assert_array_equal(y[0, :, :, 0], [[10.0, 24.0], [51.0, 90.0]])


def test_one_by_one_kernel_takes_every_other_pixel():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(convolve(x, 2 * jnp.ones((1, 1, 1, 1)), 2)[0, :, :, 0], [[0.0, 4.0], [16.0, 20.0]])


def test_packed_pixels_change_no_pair_of_convolutions(rng):
    x = jnp.asarray(rng.normal(size=(2, 5, 6, 4)), jnp.float32)
    layers = [tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 3, 4, 4), (4,))) for _ in range(2)]
    wanted = np.asarray(_plain_pair(x, *layers))
    for form in (_packed_pair, convolve_pair):
        np.testing.assert_allclose(form(x, *layers), wanted, atol=1e-5 * np.abs(wanted).max())


def test_initial_kernel_has_the_fan_out_variance():
    kernel = Conv(64).init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]["kernel"]
    assert kernel.shape == (3, 3, 32, 64)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.02)


def test_convolutions_have_a_bias_only_when_folded():
    x = jnp.zeros((1, 4, 4, 3))
    plain = ConvNorm(8).init(jax.random.key(0), x)["params"]
    folded = ConvNorm(8, folded=True).init(jax.random.key(0), x)["params"]
    assert set(plain) == {"conv", "norm"}
    assert set(plain["conv"]) == {"kernel"}
    assert set(folded) == {"conv"}
    assert set(folded["conv"]) == {"kernel", "bias"}


def test_head_pools_then_classifies_in_float32():
    x = jnp.arange(8.0, dtype=jnp.bfloat16).reshape(1, 2, 2, 2)
    variables = {"params": {"linear": {"kernel": jnp.array([[1.0], [10.0]]), "bias": jnp.array([0.5])}}}
    logits, features = Head(1).apply(variables, x)
    np.testing.assert_allclose(features, [[3.0, 4.0]])  # means of 0, 2, 4, 6 and 1, 3, 5, 7
    np.testing.assert_allclose(logits, [[43.5]])
    assert logits.dtype == features.dtype == jnp.float32


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (jnp.zeros((32, 32, 3)), r"shape \[B, H, W, 3\], got \[32, 32, 3\]"),
        (jnp.zeros((1, 3, 32, 32)), r"got \[1, 3, 32, 32\]"),
        (jnp.zeros((1, 32, 32, 3), jnp.uint8), "preprocess.standardise"),
    ],
)
def test_wrong_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        check_images(images, folded=False, train=False)


def test_a_folded_network_refuses_to_train():
    with pytest.raises(ValueError, match="folded"):
        check_images(jnp.zeros((1, 8, 8, 3)), folded=True, train=True)
