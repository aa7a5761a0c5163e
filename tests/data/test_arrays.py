"""Sources become arrays; rows are split, capped and fingerprinted."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from quantjax import data
from quantjax.data.folders import image_folder
from quantjax.data.images import fit
from quantjax.data.readers import ArraySource


@pytest.fixture
def folder(tmp_path, rng):
    """Two classes, three images, three shapes."""
    for name, shape in {"cat/a": (40, 50, 3), "cat/b": (33, 32), "dog/c": (16, 20, 4)}.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return tmp_path


def test_files_are_decoded_in_order(folder):
    source = image_folder(folder)
    images, labels = data.load(source, size=24)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    assert labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(images, np.stack([fit(source[i]["image"], 24) for i in range(3)]))


def test_arrays_of_the_right_size_are_handed_out_without_a_copy(rng):
    pixels = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    images, labels = data.load(ArraySource(pixels, [4, 3, 2, 1, 0]))
    assert images is pixels
    assert labels.tolist() == [4, 3, 2, 1, 0]


def test_arrays_of_another_shape_are_fitted(rng):
    grey = rng.integers(0, 256, (3, 28, 28), dtype=np.uint8)
    images, labels = data.load(ArraySource(grey), size=32)
    np.testing.assert_array_equal(images, np.stack([fit(image, 32) for image in grey]))
    assert labels.tolist() == [-1, -1, -1]


def test_progress_is_reported(rng):
    seen = []
    data.load(ArraySource(rng.integers(0, 256, (100, 4, 4), dtype=np.uint8)), 4, lambda row, m: seen.append((row, m)))
    assert seen[-1] == (100, 100)
    assert [row for row, _ in seen] == sorted({row for row, _ in seen})
    assert len(seen) == 20


def test_an_unreadable_file_is_named(folder):
    (folder / "dog" / "d.png").write_text("text")
    with pytest.raises(ValueError, match=r"dog/d\.png is named like an image but is none"):
        data.load(image_folder(folder))


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="no image"):
        data.load(ArraySource(np.zeros((0, 32, 32, 3), np.uint8)))


def test_fingerprint_is_the_sha256_of_type_shape_and_bytes():
    array = np.array([[1, 2]], "<i4")
    wanted = hashlib.sha256(b"<i4(1, 2)" + b"\x01\0\0\0\x02\0\0\0").hexdigest()[:16]
    assert data.fingerprint(array) == wanted


def test_fingerprint_sees_every_difference():
    array = np.arange(6, dtype=np.float32)
    seen = {
        data.fingerprint(*arrays)
        for arrays in [
            (array,),
            (array.reshape(2, 3),),
            (array.astype(np.float64),),
            (array[::-1],),
            (array[:3], array[3:]),
            (array, "views=5"),
            (array, "views=0"),
            (array, 5),
        ]
    }
    assert len(seen) == 8
    assert data.fingerprint(array[::2]) == data.fingerprint(array[::2].copy())


def test_the_inlier_set_is_recognised_in_any_order(rng):
    inliers = rng.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    assert data.same_source(inliers, inliers)
    assert data.same_source(inliers, data.subset(inliers, 7, seed=1))
    changed = inliers.copy()
    changed[3, 0, 0, 0] ^= 1
    assert not data.same_source(inliers, changed)
    assert not data.same_source(inliers, inliers[:, :2])


def test_half_split_is_fixed_disjoint_and_complete():
    first, second = data.half_split(101, seed=4)
    assert (len(first), len(second)) == (50, 51)
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(101))
    np.testing.assert_array_equal(data.half_split(101, seed=4)[0], first)
    assert not np.array_equal(data.half_split(101, seed=5)[0], first)
    with pytest.raises(ValueError, match="at least 2"):
        data.half_split(1)


def test_the_cap_of_the_papers_tables():
    assert data.paper_cap(10_000) == 1920  # 2,000 = 15 x 128 + 80
    assert data.paper_cap(26_032) == 5120  # SVHN: 5,206 = 40 x 128 + 86
    assert data.paper_cap(433) == 86
    assert data.paper_cap(3) == 1


def test_subset_is_a_shuffled_selection():
    rows = np.arange(50)
    chosen = data.subset(rows, 20, seed=3)
    assert len(set(chosen.tolist())) == 20
    assert chosen.tolist() != sorted(chosen.tolist())
    np.testing.assert_array_equal(data.subset(rows, 20, seed=3), chosen)
    assert sorted(data.subset(rows, 99, seed=3).tolist()) == rows.tolist()
    with pytest.raises(ValueError, match="cap must be at least 1"):
        data.subset(rows, 0)
