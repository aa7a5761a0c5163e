"""The bundled sets: real where they say so, split without leaks, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images

from quantjax.bundled import images as bundled
from quantjax.data.arrays import load, same_source
from quantjax.data.sources import open_source

# Rows of the 8x8 digits in scikit-learn, counted once: 0-7 are 1,443, 8 and 9 are 354.
INLIERS, LEFT_OUT = 1443, 354


@pytest.fixture(scope="module")
def loaded():
    sets = {name: load(open_source(name)) for name in bundled.SETS}
    return sets | {"train": load(open_source("digits", split="train"))}


def test_every_set_is_32_pixels_rgb(loaded):
    for name, (images, _) in loaded.items():
        assert images.shape[1:] == (32, 32, 3), name
        assert images.dtype == np.uint8
        assert len(images) >= 300


def test_digits_are_split_without_loss_or_overlap(loaded):
    (train, train_labels), (test, test_labels) = loaded["train"], loaded["digits"]
    assert len(train) + len(test) == INLIERS
    assert len({image.tobytes() for image in np.concatenate([train, test])}) == INLIERS
    assert set(train_labels) == set(test_labels) == set(range(8))
    share = np.bincount(test_labels) / (np.bincount(train_labels) + np.bincount(test_labels))
    assert np.abs(share - bundled.TEST_SHARE).max() < 0.005


def test_the_tail_of_the_training_rows_holds_every_class(loaded):
    labels = loaded["train"][1]
    assert np.bincount(labels[-len(labels) // 5 :], minlength=8).min() > 10


def test_digits_are_the_real_ones_enlarged(loaded):
    train, labels = loaded["train"]
    # A 4x bilinear enlargement keeps block means close to the source pixels: match each row to its original.
    blocks = train[:50, :, :, 0].reshape(50, 8, 4, 8, 4).mean((2, 4)).reshape(50, 64)
    originals = load_digits()
    correlation = np.corrcoef(blocks, originals.data)[:50, 50:]
    nearest = correlation.argmax(1)
    assert correlation.max(1).min() > 0.95
    assert len(set(nearest)) == 50
    np.testing.assert_array_equal(originals.target[nearest], labels[:50])


def test_left_out_digits_are_in_no_stage(loaded):
    images, labels = loaded["digits_8_9"]
    assert len(images) == LEFT_OUT
    assert set(labels) == {-1}
    inliers = np.concatenate([loaded["train"][0], loaded["digits"][0]])
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in inliers}


def test_inverted_digits_are_negatives(loaded):
    np.testing.assert_array_equal(loaded["inverted_digits"][0].astype(int) + loaded["digits"][0], 255)


def test_photo_crops_come_from_the_photographs(loaded):
    crops = loaded["photo_crops"][0].reshape(-1, 32 * 32, 3)
    photos = load_sample_images().images
    for k in range(2):
        low, high = photos[k].reshape(-1, 3).min(0), photos[k].reshape(-1, 3).max(0)
        assert (crops[k::2].min((0, 1)) >= low).all()
        assert (crops[k::2].max((0, 1)) <= high).all()
        # The mean over many crops nears the mean of the photograph's middle.
        assert np.abs(crops[k::2].mean((0, 1)) - photos[k].mean((0, 1))).max() < 25


def test_letters_fill_the_frame_as_digits_do(loaded):
    letters, digits = loaded["letters"][0], loaded["digits"][0]
    assert abs(letters.mean() - digits.mean()) < 50
    assert (letters.max((1, 2, 3)) > 100).all()
    assert (letters[..., 0] == letters[..., 2]).all()


def test_noise_has_the_stated_moments(loaded):
    noise = loaded["gaussian_noise"][0].astype(float)
    # N(127.5, 64^2) clipped at a = 127.5/64 = 1.992, density .0549, tail .0232: the variance shrinks by
    # 1 - 2 (.0232) - 2 a (.0549) + 2 a^2 (.0232) = .919, the deviation to 61.35.
    assert abs(noise.mean() - 127.5) < 0.5
    assert abs(noise.std() - 61.35) < 0.5


def test_gratings_hold_two_colours_blended(loaded):
    images = loaded["gratings"][0].reshape(400, -1, 3).astype(float)
    centred = images - images.mean(1, keepdims=True)
    energies = np.linalg.svd(centred, compute_uv=False)
    # Along one straight line in colour space; rounding leaves the rest.
    assert (energies[:, 1] < 0.05 * energies[:, 0] + 20).all()
    assert np.median(images.std(1).max(1)) > 30


def test_the_sets_are_the_same_every_time_and_all_different(loaded):
    for name, (images, _) in loaded.items():
        if name in bundled.SETS:
            np.testing.assert_array_equal(load(open_source(name))[0], images)
    names = list(bundled.SETS)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not same_source(loaded[a][0], loaded[b][0])


def test_outliers_have_no_training_split():
    assert len(bundled.BUNDLED_OUTLIERS) == 6
    for name in bundled.BUNDLED_OUTLIERS:
        with pytest.raises(ValueError, match=f"{name} has no 'train' split"):
            open_source(name, split="train")


def test_another_size():
    assert bundled.digits("test", size=16)[0].shape == (433, 16, 16, 3)
    assert bundled.letters("test", size=16)[0].shape == (400, 16, 16, 3)
    assert bundled.photo_crops("test", size=16)[0].shape == (400, 16, 16, 3)
    assert bundled.gratings("test", size=16)[0].shape == (400, 16, 16, 3)
