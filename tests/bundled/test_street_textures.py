"""The surfaces: ranges, sizes, variety, and noise with the moments it promises."""

from __future__ import annotations

import numpy as np
import pytest

from quantjax.bundled import street_textures as textures


@pytest.mark.parametrize("size", [(1, 1), (6, 40), (50, 9), (64, 64)])
@pytest.mark.parametrize("name", textures.SCENE_TEXTURES)
def test_any_size_gives_colours_in_range(name, size):
    image = textures.SCENE_TEXTURES[name](np.random.default_rng(1), *size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("name", textures.SCENE_TEXTURES)
def test_a_texture_is_a_function_of_its_generator(name):
    draw = textures.SCENE_TEXTURES[name]
    np.testing.assert_array_equal(draw(np.random.default_rng(3), 20, 30), draw(np.random.default_rng(3), 20, 30))
    means = np.stack([draw(np.random.default_rng(k), 20, 30).mean((0, 1)) for k in range(12)])
    assert means.std(0).max() > 0.03  # light or colour differs from one to the next
    assert all(draw(np.random.default_rng(k), 20, 30).std() > 0.005 for k in range(12))


def test_fields_have_unit_deviation_and_the_grain_asked_for():
    for cell in (2, 5, 20):
        fields = np.stack([textures.field(np.random.default_rng(k), 60, 90, cell) for k in range(60)])
        assert abs(fields.mean()) < 0.15
        assert 0.85 < fields.std() < 1.15
    fine, coarse = (textures.field(np.random.default_rng(0), 60, 90, cell) for cell in (2, 20))
    assert np.abs(np.diff(coarse)).mean() < 0.2 * np.abs(np.diff(fine)).mean()


def test_shade_by_hand():
    image = textures.shade(np.array([0.5, 0.2, 0.8]), np.full((1, 1), 0.2), np.full((1, 1), 0.2))
    np.testing.assert_allclose(image[0, 0], [0.7, 0.28, 1.0], rtol=1e-6)  # 1.12 is clipped


def test_foliage_is_green_or_autumn_and_grey_asphalt_is_grey():
    leaves = np.stack([textures.foliage(np.random.default_rng(k), 32, 32).mean((0, 1)) for k in range(20)])
    assert (leaves[:, 1] > leaves[:, 2]).all()
    roads = np.stack([textures.asphalt(np.random.default_rng(k), 32, 32).mean((0, 1)) for k in range(20)])
    assert (np.ptp(roads, axis=1) < 0.25 * roads.mean(1)).all()
