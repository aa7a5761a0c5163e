"""Training batches: the same with any number of workers and from any first step; image and label stay together."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from quantjax.data.loader import TrainingRows, scale_and_crop, training_batches
from quantjax.rows import PASTED


class Ramps:
    """Scenes whose label is a function of the image, so that a crop can be checked: label = image // 40 for red."""

    class_names = ("a", "b", "c")

    def __init__(self, rows=7, height=20, width=30):
        self.rows, self.height, self.width = rows, height, width

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        red = np.broadcast_to(np.arange(self.width) // 10 * 40 + 10, (self.height, self.width))
        image = np.stack([red, np.full_like(red, index), np.full_like(red, 77)], -1).astype(np.uint8)
        return {"image": image, "label": (red // 40).astype(np.uint8), "name": str(index)}


class Squares:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"image": np.full((4, 4, 3), 250, np.uint8), "mask": np.ones((4, 4), bool), "name": "", "class_name": ""}


SETTINGS = {"crop": (10, 14), "batch_size": 3, "seed": 5}


def take(batches, first, count):
    iterator = batches(first)
    rows = list(islice(iterator, count))
    iterator.close()
    return rows


def assert_equal(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for name in ("image", "label"):
            np.testing.assert_array_equal(one[name], other[name])


def test_batches_are_the_same_from_every_first_step():
    batches = training_batches(Ramps(), Squares(), **SETTINGS)
    whole = take(batches, 0, 8)
    assert whole[0]["image"].shape == (3, 10, 14, 3)
    assert whole[0]["label"].shape == (3, 10, 14)
    assert {array.dtype for array in whole[0].values()} == {np.dtype(np.uint8)}
    assert_equal(take(batches, 5, 3), whole[5:])
    other = take(training_batches(Ramps(), Squares(), **SETTINGS | {"seed": 6}), 0, 8)
    assert any((a["image"] != b["image"]).any() for a, b in zip(whole, other, strict=True))


def test_worker_processes_read_the_same_batches():
    threads = take(training_batches(Ramps(), Squares(), **SETTINGS), 2, 6)
    assert_equal(take(training_batches(Ramps(), Squares(), **SETTINGS, workers=2), 2, 6), threads)


def test_hosts_share_each_global_batch():
    whole = take(training_batches(Ramps(), Squares(), **SETTINGS | {"batch_size": 6}), 1, 3)
    parts = [take(training_batches(Ramps(), Squares(), **SETTINGS, process=(i, 2)), 1, 3) for i in range(2)]
    joined = [{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*parts, strict=True)]
    assert_equal(joined, whole)


def test_a_batch_may_be_one_row():
    whole = take(training_batches(Ramps(), Squares(), **SETTINGS | {"batch_size": 2}), 1, 2)
    rows = take(training_batches(Ramps(), Squares(), **SETTINGS | {"batch_size": 1}), 2, 4)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    assert_equal([{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in pairs], whole)


def test_an_epoch_shows_every_scene_once_in_an_order_of_its_own():
    rows = TrainingRows(Ramps(), None, (4, 4), 0, scale=(1.0, 1.0))
    seen = [[int(rows[7 * epoch + i]["image"][0, 0, 1]) for i in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in seen)
    assert len({tuple(epoch) for epoch in seen}) == 4


def test_a_crop_at_full_size_is_a_cut_of_the_scene(rng):
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    scene = {"image": image, "label": image[..., 0], "name": ""}
    corners = set()
    for _ in range(200):
        cut, label = scale_and_crop(scene, rng, (19, 28), (1.0, 1.0))
        np.testing.assert_array_equal(cut[..., 0], label)
        found = [(t, left) for t in range(2) for left in range(3) if (image[t : t + 19, left : left + 28] == cut).all()]
        assert len(found) == 1
        corners.add(found[0])
    assert len(corners) == 6


def test_image_and_label_stay_together_at_every_scale(rng):
    scene = Ramps()[0]
    for _ in range(60):
        image, label = scale_and_crop(scene, rng, (10, 14), (0.5, 2.0))
        assert image.shape == (10, 14, 3)
        inner = label != 255
        # Away from the borders between the three bands (a bilinear pixel mixes two of them), red tells the label.
        pure = inner & (np.abs(image[..., 0].astype(int) - (label.astype(int) * 40 + 10)) < 2)
        assert pure.sum() > 0.6 * inner.sum()
        assert (image[~inner] == 0).all()
        assert set(np.unique(label)) <= {0, 1, 2, 255}


def test_what_lies_beyond_a_small_scene_is_black_and_ignored(rng):
    image, label = scale_and_crop(Ramps()[1], rng, (16, 40), (0.5, 0.5))
    inside = np.zeros((16, 40), bool)
    inside[3:13, 12:27] = True  # 10 x 15, centred
    np.testing.assert_array_equal(label == 255, ~inside)
    assert (image[~inside] == 0).all()
    assert (image[inside][:, 2] == 77).all()


def test_the_mean_scale_is_that_of_the_range(rng):
    """A square of a fifth of the scene, seen in crops wide enough to hold everything: its area goes as the factor."""
    scene = {"image": np.zeros((60, 60, 3), np.uint8), "label": np.zeros((60, 60), np.uint8), "name": ""}
    scene["label"][24:36, 24:36] = 1
    sides = [np.sqrt((scale_and_crop(scene, rng, (120, 120), (0.5, 2.0))[1] == 1).sum()) for _ in range(400)]
    assert np.mean(sides) == pytest.approx(12 * 1.25, abs=5 * 12 * 0.433 / 20)  # uniform on 0.5..2: sd 0.433
    assert min(sides) < 12 * 0.55
    assert max(sides) > 12 * 1.95


def test_objects_are_pasted_with_the_given_probability():
    whole = SETTINGS | {"crop": (20, 30), "scale": (1.0, 1.0), "batch_size": 50}
    for probability, wanted, off in ((1.0, 50, 0), (0.0, 0, 0), (0.2, 10, 14)):
        label = take(training_batches(Ramps(), Squares(), **whole, probability=probability), 0, 1)[0]["label"]
        assert abs((label == PASTED).any((1, 2)).sum() - wanted) <= off
    assert (take(training_batches(Ramps(), None, **whole), 0, 1)[0]["label"] < 3).all()


def test_errors_of_a_row_reach_the_caller():
    class Broken(Ramps):
        def __getitem__(self, index):
            raise ValueError("scene_3.png cannot be decoded")

    with pytest.raises(ValueError, match=r"scene_3\.png cannot be decoded"):
        take(training_batches(Broken(), None, **SETTINGS), 0, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"scale": (2.0, 0.5)}, "scale must be two factors with 0 < low <= high"),
        ({"crop": (0, 4)}, "crop must be at least 1 x 1, got 0 x 4"),
        ({"probability": -0.1}, "probability must lie in"),
        ({"process": (2, 2)}, "process must be"),
    ],
)
def test_numbers_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        training_batches(Ramps(), Squares(), **SETTINGS | changed)


def test_sets_that_cannot_be_mixed_are_refused():
    with pytest.raises(ValueError, match="scenes must hold at least one scene"):
        training_batches(Ramps(0), None, **SETTINGS)
    with pytest.raises(ValueError, match="the scene is 3 x 3, the object 4 x 4"):
        training_batches(Ramps(2, 3, 3), Squares(), **SETTINGS)
