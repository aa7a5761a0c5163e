"""Rendered street scenes: labels that fit the picture, variety, and the same rows every time."""

from __future__ import annotations

import numpy as np
import pytest

from quantjax.bundled import streets
from quantjax.bundled.street_canvas import BUILDING, CAR, PAVEMENT, POLE, ROAD, SKY, VEGETATION
from quantjax.bundled.streets import CLASS_NAMES, Streets
from quantjax.data.scenes import open_scenes


@pytest.fixture(scope="module")
def rows():
    source = Streets("train")
    return [source[k] for k in range(24)]


def test_the_lengths_and_the_classes():
    assert (len(Streets("train")), len(Streets("test"))) == (300, 60)
    assert Streets("train").class_names == CLASS_NAMES
    named = dict(zip(CLASS_NAMES, range(7), strict=True))
    assert named == {
        "road": ROAD, "pavement": PAVEMENT, "sky": SKY, "building": BUILDING, "vegetation": VEGETATION, "car": CAR,
        "pole": POLE,
    }  # fmt: skip


def test_rows_are_pictures_with_a_label_for_every_pixel(rows):
    for row in rows:
        assert row["image"].shape == (112, 224, 3)
        assert row["label"].shape == (112, 224)
        assert row["image"].dtype == row["label"].dtype == np.uint8
        assert row["label"].max() <= 6
        assert np.ptp(row["image"]) > 80
    assert len({row["name"] for row in rows}) == len(rows)


def test_every_class_is_seen_often_enough_to_be_learned(rows):
    labels = np.stack([row["label"] for row in rows])
    share = np.bincount(labels.ravel(), minlength=7) / labels.size
    assert (share > [0.2, 0.03, 0.08, 0.08, 0.05, 0.02, 0.005]).all()
    present = [(labels == k).any((1, 2)).mean() for k in range(7)]
    assert min(present) >= 0.6
    assert max(share) < 0.5


def test_the_road_is_below_and_the_sky_above(rows):
    for row in rows:
        road, sky = (np.nonzero(row["label"] == k)[0] for k in (ROAD, SKY))
        assert road.min() > 0.35 * 112  # the horizon is no higher than that
        assert sky.max() < 0.6 * 112
        assert (row["label"][-1] == ROAD).mean() > 0.2


def test_labels_follow_the_picture(rows):
    """At a label's border the picture changes more than within a label: labels and colours are not shifted."""
    at_border, within = [], []
    for row in rows:
        image, label = row["image"].astype(float), row["label"]
        change = np.abs(np.diff(image, axis=1)).sum(-1)
        border = label[:, 1:] != label[:, :-1]
        at_border.append(change[border].mean())
        within.append(change[~border].mean())
    assert np.mean(np.array(at_border) > 1.5 * np.array(within)) > 0.9


def test_light_differs_from_scene_to_scene(rows):
    means = np.stack([row["image"].mean((0, 1)) for row in rows])
    assert means.mean(1).std() > 12
    assert (means[:, 0] - means[:, 2]).std() > 5
    cars = np.stack([row["image"][row["label"] == CAR].mean(0) for row in rows if (row["label"] == CAR).sum() > 50])
    assert cars.std(0).min() > 15


def test_a_row_depends_on_nothing_but_its_seed_split_and_index(rows):
    streets._row.cache_clear()
    again = Streets("train")
    for k in (7, 2):  # rendered again, in another order, by another object
        np.testing.assert_array_equal(again[k]["image"], rows[k]["image"])
        np.testing.assert_array_equal(again[np.int64(k)]["label"], rows[k]["label"])
    assert not np.array_equal(Streets("train", seed=1)[7]["image"], rows[7]["image"])
    trained = {row["image"].tobytes() for row in rows}
    test = Streets("test")
    assert not trained & {test[k]["image"].tobytes() for k in range(3)}
    assert test[0]["name"] != rows[0]["name"]


def test_rows_are_kept_and_cannot_be_painted_over(rows):
    source = Streets("test")
    assert source[3] is Streets("test")[3]
    with pytest.raises(ValueError, match="read-only"):
        source[3]["label"][:] = 254


def test_other_sizes():
    for size in ((28, 28), (56, 140)):
        row = Streets("test", size)[1]
        assert row["image"].shape == (*size, 3)
        assert row["label"].shape == size
    assert open_scenes("streets", None, "test", height=56)[0]["image"].shape == (56, 112, 3)
    np.testing.assert_array_equal(open_scenes("streets", None, "train")[0]["label"], Streets("train")[0]["label"])


def test_what_cannot_be_had_is_said():
    with pytest.raises(ValueError, match="split must be one of test, train; got 'val'"):
        Streets("val")
    with pytest.raises(ValueError, match=r"size must be at least 28 pixels each way, got \(10, 224\)"):
        Streets("test", (10, 224))
    for index in (60, -1):
        with pytest.raises(IndexError, match=rf"scene {index} of test is not in 0\.\.59"):
            Streets("test")[index]
