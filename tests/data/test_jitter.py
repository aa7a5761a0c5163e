"""Colour jitter against albumentations' own numbers and a restatement pixel by pixel."""

from __future__ import annotations

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.data import jitter

APPLY = jax.jit(jitter.apply)
PLAIN = jitter.Draws(
    flip=jnp.zeros(4, bool),
    factors=jnp.ones((4, 3), jnp.float32),
    hue=jnp.zeros(4, jnp.float32),
    order=jnp.tile(jnp.arange(4, dtype=jnp.int32), (4, 1)),
)


@pytest.fixture
def batch(rng):
    images = rng.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    return images, rng.choice(np.array([0, 3, 254, 255], np.uint8), (4, 5, 6))


def test_equal_to_albumentations_in_all_24_orders(golden):
    """Recorded from albumentations' four adjustments on float images, see tests/golden/make_jitter.py."""
    record = golden("jitter")
    draws = jitter.Draws(np.zeros(24, bool), record["factors"], record["hue"], record["orders"])
    out, _ = APPLY(record["images"], record["images"][..., 0], draws)
    assert len(np.unique(record["orders"], axis=0)) == 24
    np.testing.assert_allclose(out, record["adjusted"], atol=3e-6)


def by_hand(image, factors, hue, order):
    """One image [H, W, 3] in [0, 1], pixel by pixel in Python's float64."""
    for k in order:
        grey = image @ [0.299, 0.587, 0.114]
        if k == jitter.HUE:
            turned = [
                colorsys.hsv_to_rgb((h + hue) % 1, s, v)
                for h, s, v in (colorsys.rgb_to_hsv(*p) for p in image.reshape(-1, 3))
            ]
            image = np.reshape(turned, image.shape)
        else:
            towards = [0.0, grey.mean(), grey[..., None]][k]
            image = factors[k] * image + (1 - factors[k]) * towards
        image = image.clip(0, 1)
    return image


def test_equal_to_a_loop_over_pixels(batch):
    draws = jitter.draw(jax.random.key(5), 4, brightness=0.5, contrast=0.5, saturation=0.5, probability=1.0)
    out, _ = APPLY(*batch, draws._replace(flip=jnp.zeros(4, bool)))
    wanted = [by_hand(image / 255, *row) for image, *row in zip(batch[0], *map(np.asarray, draws[1:]), strict=True)]
    np.testing.assert_allclose(out, np.stack(wanted), atol=5e-6)


def test_the_flip_mirrors_images_and_labels_together(batch):
    flip = jnp.array([True, False, True, False])
    images, labels = APPLY(*batch, PLAIN._replace(flip=flip))
    for i in range(4):
        step = -1 if flip[i] else 1
        np.testing.assert_allclose(images[i], batch[0][i, :, ::step] / 255, atol=1e-6)
        np.testing.assert_array_equal(labels[i], batch[1][i, :, ::step])
    assert labels.dtype == jnp.uint8


def test_floats_are_taken_as_they_are(batch):
    out, _ = APPLY((batch[0] / 255).astype(np.float32), batch[1], PLAIN)
    np.testing.assert_allclose(out, batch[0] / 255, atol=1e-6)


def test_a_slice_of_the_draws_gives_the_slice_of_the_batch(batch):
    draws = jitter.draw(jax.random.key(1), 4)
    whole = APPLY(*batch, draws)
    part = APPLY(batch[0][1:3], batch[1][1:3], jax.tree.map(lambda d: d[1:3], draws))
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_allclose(a, b[1:3], atol=1e-6)


def test_draws_cover_their_ranges():
    draws = jax.tree.map(np.asarray, jitter.draw(jax.random.key(0), 9600))
    # Half of 9,600 with standard deviation 49; 5 of them are 245.
    assert abs(draws.flip.sum() - 4800) < 245
    jittered = draws.hue != 0
    assert abs(jittered.sum() - 4800) < 245
    assert (draws.factors[~jittered] == 1).all()
    assert draws.factors[jittered].min(0) == pytest.approx(0.8, abs=0.002)
    assert draws.factors[jittered].max(0) == pytest.approx(1.2, abs=0.002)
    assert np.abs(draws.hue).max() == pytest.approx(0.5, abs=0.002)
    orders, counts = np.unique(draws.order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert abs(counts - 400).max() < 100  # 5 standard deviations of 19.6
    assert np.abs(np.corrcoef(draws.factors[jittered].T) - np.eye(3)).max() < 0.08


def test_wrong_shapes_are_refused(batch):
    with pytest.raises(ValueError, match=r"labels must have shape \[B, H, W\], got \[4, 5, 6, 1\]"):
        jitter.apply(batch[0], batch[1][..., None], PLAIN)
    with pytest.raises(ValueError, match=r"draws\.flip must have shape \[3\], got \[4\]"):
        jitter.apply(batch[0][:3], batch[1][:3], PLAIN)
