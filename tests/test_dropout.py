"""The draws of dropout: their share, their independence, and which bits they are."""

import jax
import numpy as np
import pytest

from quantjax.dropout import draw_dropout, draw_map_dropout

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.mark.parametrize("draw", [draw_dropout, draw_map_dropout])
def test_keeps_the_stated_share(draw):
    shape = (5, 8, 5, 1001)
    keep = np.asarray(draw(jax.random.key(0), shape, 0.3))
    assert keep.shape == shape
    # Binomial standard error sqrt(0.7 * 0.3 / 200200) = 0.00102.
    assert abs(keep.mean() - 0.7) < 0.005
    pairs = np.corrcoef(keep[..., :1000:2].ravel(), keep[..., 1:1000:2].ravel())[0, 1]
    assert abs(pairs) < 0.02  # both halves of one word


def test_bytes_decide_and_a_second_one_where_they_tie():
    """rate 0.3: 0.7 * 65536 = 45875 = 179 * 256 + 51, kept are first bytes below 179, and 179 before one below 51."""
    first, second = (
        np.asarray(jax.random.bits(key, (600, 2), np.uint32)).view(np.uint8).reshape(600, 8)[:, :7]
        for key in jax.random.split(jax.random.key(5))
    )
    keep = draw_dropout(jax.random.key(5), (600, 7), 0.3)
    np.testing.assert_array_equal(keep, (first.astype(int) * 256 + second) < 45875)
    assert (first == 179).sum() > 5


def test_maps_take_the_second_byte_of_their_channel():
    drawn = np.asarray(jax.random.bits(jax.random.key(5), (1 + 600, 2), np.uint32)).view(np.uint8)[:, :7]
    keep = draw_map_dropout(jax.random.key(5), (30, 20, 7), 0.3)
    np.testing.assert_array_equal(keep.reshape(600, 7), drawn[1:].astype(int) * 256 + drawn[0] < 45875)


@pytest.mark.parametrize("draw", [draw_dropout, draw_map_dropout])
def test_rows_before_do_not_depend_on_those_after(draw):
    long, short = (draw(jax.random.key(1), (rows, 3, 4, 5), 0.5) for rows in (6, 4))
    np.testing.assert_array_equal(long[:4], short)
