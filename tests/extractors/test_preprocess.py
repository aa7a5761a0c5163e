import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors.preprocess import ENERGY_OOD, IMAGENET, NONE, resize_square, standardise, stated


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


@pytest.mark.parametrize(("size", "side"), [(8, 21), (20, 9), (7, 28)])
def test_images_are_resized_as_pillow_does_it(rng, size, side):
    image = pytest.importorskip("PIL.Image")
    pixels = rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    wanted = [image.fromarray(p).resize((side, side), image.Resampling.BICUBIC) for p in pixels]
    given = np.asarray(jax.jit(resize_square, static_argnums=1)(pixels, side))
    difference = np.abs(given - np.stack([np.asarray(p) for p in wanted]).astype(np.float32))
    assert (difference.max(), (difference > 0).mean() < 0.01) <= (1.0, True)


def test_fractions_are_resized_in_their_range(rng):
    pixels = rng.integers(0, 2, (1, 4, 4, 3)).astype(np.float32)  # edges at which a cubic shoots over
    given = np.asarray(resize_square(jnp.asarray(pixels), 12))
    assert (given.min(), given.max()) == (0.0, 1.0)
    assert np.abs(given * 255 - np.rint(given * 255)).max() > 0.1  # not rounded to grey levels
    flat = np.asarray(resize_square(jnp.full((1, 4, 4, 3), 0.3), 12))
    np.testing.assert_allclose(flat, 0.3, atol=1e-6)


def test_standardising_resizes_to_the_side_of_the_weights(rng):
    pixels = jnp.asarray(rng.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8))
    sided = IMAGENET._replace(side=9)
    larger = resize_square(pixels, 9).astype(jnp.uint8)
    np.testing.assert_allclose(standardise(pixels, sided), standardise(larger, IMAGENET), atol=1e-6)
    np.testing.assert_array_equal(standardise(pixels, IMAGENET._replace(side=6)), standardise(pixels, IMAGENET))
    assert stated(IMAGENET) == {"mean": IMAGENET.mean, "std": IMAGENET.std, "order": "rgb"}
    assert stated(sided)["side"] == 9
