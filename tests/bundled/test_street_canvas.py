"""Camera and canvas against hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from quantjax.bundled.street_canvas import CAR, POLE, Camera, Canvas, inside

CAMERA = Camera(focal=100.0, centre=56.0, horizon=50.0, height=1.5, shift=1.0, yaw=0.1, bend=0.02)


@pytest.fixture
def canvas():
    return Canvas(np.zeros((20, 30, 3), np.float32), np.zeros((20, 30), np.uint8), np.full(3, 0.5), visibility=40.0)


def rectangle(left, top, right, bottom):
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)], float)


def test_a_point_on_the_ground():
    # The road at z = 10 is 1 + 0.1 * 10 + 0.02 * 100 / 2 = 3 m to the right; 100 px * (3 + 2) m / 10 m = 50 px.
    # The ground there is 100 * 1.5 / 10 = 15 px under the horizon, a point as high as the camera is on it.
    np.testing.assert_allclose(CAMERA.project(2.0, 0.0, 10.0), [106.0, 65.0])
    np.testing.assert_allclose(CAMERA.project([2.0, -3.0], [1.5, 3.0], 10.0), [[106.0, 50.0], [56.0, 35.0]])


def test_the_ceiling_is_on_the_upper_edge():
    assert CAMERA.ceiling(30.0) == pytest.approx(1.5 + 0.5 * 30)
    assert CAMERA.project(0.0, CAMERA.ceiling(30.0), 30.0)[1] == pytest.approx(0.0)


def test_boxes_are_clipped_to_the_canvas(canvas):
    assert canvas.box(rectangle(-5.5, 3.2, 4.1, 90)) == (0, 3, 6, 20)
    assert canvas.box(rectangle(31, 3, 40, 8)) is None
    assert canvas.box(rectangle(3, -9, 8, -3)) is None


def test_cover_of_a_rectangle_and_a_triangle():
    cover = inside(rectangle(2, 1, 8, 5), (0, 0, 12, 8))
    assert cover.shape == (8, 12)
    np.testing.assert_array_equal(cover[1:5, 2:8], 1)
    assert cover[:, 9:].max() == cover[6:].max() == cover[0].max() == 0
    assert cover[:, 8].max() < 0.26
    # Legs of 8 pixels: 32 square pixels, and at most a quarter pixel along the edges (8 + 8 + 11.3) / 4 = 6.8.
    area = inside(np.array([(1, 1), (9, 1), (1, 9)], float), (0, 0, 12, 12)).sum()
    assert 32 <= area <= 38.8


def test_paint_blends_by_cover_and_distance(canvas):
    cover = np.array([[1.0, 0.25]], np.float32)
    canvas.paint((4, 6, 6, 7), np.ones(3), cover, 40.0, CAR)
    # After one visibility exp(-1) of the colour is left, the rest is the haze's 0.5.
    seen = np.exp(-1) + 0.5 * (1 - np.exp(-1))
    np.testing.assert_allclose(canvas.image[6, 4:6, 0], [seen, 0.25 * seen], rtol=1e-6)
    np.testing.assert_array_equal(canvas.label[6, 4:6], [CAR, 0])
    assert canvas.image.sum() == pytest.approx(3 * 1.25 * seen, rel=1e-6)
    canvas.paint((4, 6, 6, 7), np.zeros(3), np.ones((1, 2)), 0.0, None)
    np.testing.assert_array_equal(canvas.label[6, 4:6], [CAR, 0])


def test_a_shape_of_polygons_is_labelled_as_one(canvas):
    white, black = (rectangle(2, 2, 10, 12), np.ones(3)), (rectangle(8, 4, 16, 8), np.zeros(3))
    canvas.image[:] = 0.5
    canvas.polygons([white, black], 0.0, POLE)
    assert (canvas.label[2:12, 2:10] == POLE).all()
    assert (canvas.label[4:8, 10:16] == POLE).all()
    assert (canvas.label == POLE).sum() <= 80 + 24 + 8
    assert canvas.image[3, 5].min() == 1.0  # the gloss would be 1.2 there
    assert canvas.image[6, 12].max() == 0.0
    np.testing.assert_array_equal(canvas.image[15], 0.5)


def test_a_texture_lands_on_its_corners(canvas):
    texture = np.zeros((10, 20, 3), np.float32)
    texture[:, 10:] = 1.0  # right half
    texture[:5, :, 2] = 1.0  # upper half blue
    canvas.textured(rectangle(4, 6, 24, 16), texture, 1.0, 0.0, CAR)
    np.testing.assert_array_equal(canvas.image[8, [6, 20]], [[0, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(canvas.image[14, [6, 20]], [[0, 0, 0], [1, 1, 1]])
    assert (canvas.label[6:16, 4:24] == CAR).all()
    assert canvas.label[:5].max() == 0


def test_a_receding_wall_shows_its_near_half_larger(canvas):
    texture = np.zeros((10, 20, 3), np.float32)
    texture[:, 10:] = 1.0
    # The left edge is 16 px tall and the right one 4: four times as far. 1/z is linear in u, from 1 to 1/4; the middle
    # of the wall is at z = 2.5, so its column is 4 + 20 (1 - 1/2.5) / (1 - 1/4) = 20.
    corners = np.array([(4, 18), (24, 12), (24, 8), (4, 2)], float)
    canvas.textured(corners, texture, 1.0, 0.0, CAR)
    assert canvas.image[10, 18].max() == 0.0
    assert canvas.image[10, 21].min() == 1.0
