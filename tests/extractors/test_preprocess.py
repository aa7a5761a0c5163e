import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors.preprocess import ENERGY_OOD, IMAGENET, NONE, standardise


@pytest.mark.parametrize("preprocessing", [NONE, ENERGY_OOD, IMAGENET])
def test_bytes_and_fractions_agree_with_the_definition(rng, preprocessing):
    pixels = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    wanted = (pixels / 255.0 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    np.testing.assert_allclose(standardise(jnp.asarray(pixels), preprocessing), wanted, atol=2e-6)
    np.testing.assert_allclose(standardise(jnp.asarray(pixels / 255.0, jnp.float32), preprocessing), wanted, atol=2e-6)


def test_energy_ood_in_grey_levels():
    # (255 - 125.3) / 63.0, (0 - 123.0) / 62.1, (113.9 - 113.9) / 66.7 with 113.9 / 255 as a fraction
    image = jnp.array([1.0, 0.0, 113.9 / 255]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(standardise(image, ENERGY_OOD)[0, 0, 0], [129.7 / 63.0, -123.0 / 62.1, 0.0], atol=1e-6)


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\], got \[4, 4, 3\]"):
        standardise(jnp.zeros((4, 4, 3)), NONE)
    with pytest.raises(TypeError, match="int32"):
        standardise(jnp.zeros((1, 4, 4, 3), jnp.int32), NONE)
