"""Flip and crop against a loop over images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.data import augment


def by_hand(image, flip, top, left, padding):
    """One image, as flip, then zero padding, then a crop."""
    height, width, channels = image.shape
    canvas = np.zeros((height + 2 * padding, width + 2 * padding, channels), image.dtype)
    canvas[padding : padding + height, padding : padding + width] = image[:, ::-1] if flip else image
    return canvas[top : top + height, left : left + width]


@pytest.fixture
def images(rng):
    return rng.integers(1, 256, (24, 8, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize("padding", [1, 4])
def test_equal_to_a_loop(images, padding):
    draws = augment.draw(jax.random.key(3), len(images), padding)
    out = jax.jit(augment.flip_and_crop, static_argnums=2)(images, draws, padding)
    wanted = [by_hand(*row, padding) for row in zip(images, *map(np.asarray, draws), strict=True)]
    assert out.dtype == jnp.uint8
    np.testing.assert_array_equal(out, np.stack(wanted))


def test_a_slice_of_the_draws_gives_the_slice_of_the_batch(images):
    draws = augment.draw(jax.random.key(1), len(images))
    whole = augment.flip_and_crop(jnp.asarray(images), draws)
    part = augment.flip_and_crop(jnp.asarray(images[5:11]), jax.tree.map(lambda d: d[5:11], draws))
    np.testing.assert_array_equal(part, whole[5:11])


def test_no_draw_is_the_identity(images):
    still = augment.Draws(*(jnp.full(len(images), value) for value in (False, augment.PADDING, augment.PADDING)))
    np.testing.assert_array_equal(augment.flip_and_crop(jnp.asarray(images), still), images)


def test_draws_cover_their_range_evenly():
    draws = jax.tree.map(np.asarray, augment.draw(jax.random.key(0), 9000))
    # 9 equally likely corners: 1,000 +- 5 standard deviations of 30; half are flipped: 4,500 +- 5 x 47.
    for corner in (draws.top, draws.left):
        counts = np.bincount(corner, minlength=9)
        assert len(counts) == 9
        assert abs(counts - 1000).max() < 150
    assert abs(int(draws.flip.sum()) - 4500) < 240
    assert abs(np.corrcoef(draws.top, draws.left)[0, 1]) < 0.05


def test_draws_of_another_batch_are_refused(images):
    with pytest.raises(ValueError, match=r"draws\.flip must have shape \[24\], got \[6\]"):
        augment.flip_and_crop(jnp.asarray(images), augment.draw(jax.random.key(0), 6))
