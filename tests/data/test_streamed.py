"""Images decoded by every pass over them are those that would have been held in memory."""

import numpy as np
import pytest
from PIL import Image

from quantjax import data
from quantjax.data import StreamedImages, fingerprint, load, open_source, rows_of, same_source, streamed
from quantjax.inference import batched

SIZE, SHORT = 6, 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 pictures of sizes of their own in two classes."""
    place = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(23):
        (place / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (8 + i % 5, 9 + i % 3, 3), np.uint8)
        Image.fromarray(pixels).save(place / "ab"[i % 2] / f"{i}.png")
    return place


@pytest.fixture
def both(folder):
    source = open_source(folder, split="test")
    return StreamedImages(source, SIZE, SHORT), load(source, size=SIZE, short_side=SHORT)[0]


def test_slices_in_any_order_are_those_of_the_array(both):
    rows, images = both
    assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == (images.shape, images.dtype, 4, 23)
    for part in (slice(0, 8), slice(8, 16), slice(16, 24), slice(3, 5), slice(20, None), slice(23, 30), slice(None)):
        np.testing.assert_array_equal(rows[part], images[part])


def test_chosen_rows_stay_streamed(both):
    rows, images = both
    for chosen in (np.array([4, 0, 22]), slice(20, None)):
        some = rows_of(rows, chosen)
        assert isinstance(some, StreamedImages)
        np.testing.assert_array_equal(some[:], images[chosen])
        np.testing.assert_array_equal(rows_of(images, chosen), images[chosen])


def test_a_pass_in_batches_equals_that_over_the_array(both):
    rows, images = both
    run = batched(lambda batch: batch.sum(axis=(1, 2, 3)), batch_size=8)
    np.testing.assert_array_equal(run(rows), images.sum(axis=(1, 2, 3)))


def test_the_fingerprint_is_that_of_content_order_and_size(folder, both, tmp_path):
    rows, _ = both
    again = StreamedImages(open_source(folder, split="test"), SIZE, SHORT)
    assert fingerprint(rows) == fingerprint(again)
    assert same_source(rows, again)
    others = [rows.chosen(np.arange(23)[::-1]), rows.chosen(slice(1, None)), StreamedImages(rows.source, SIZE)]
    assert len({fingerprint(one) for one in (rows, *others)}) == 4
    assert not any(same_source(rows, one) for one in others)


def test_only_files_that_take_more_than_the_limit_are_streamed(folder, both):
    source = open_source(folder, split="test")
    needed = 23 * SIZE * SIZE * 3 / 1e6
    assert streamed(source, SIZE, None, needed) is None
    assert isinstance(streamed(source, SIZE, None, 0.99 * needed), StreamedImages)
    assert streamed(data.ArraySource(both[1]), SIZE, None, 0.0) is None


def test_all_at_once_is_refused_and_a_damaged_file_is_named(folder, tmp_path):
    for i in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    rows = StreamedImages(open_source(tmp_path, split="test"), SIZE)
    with pytest.raises(ValueError, match="all at once are 0 MB"):
        np.asarray(rows)
    assert len(rows[:2]) == 2
    with pytest.raises(ValueError, match=r"2\.png"):
        rows[2:4]
