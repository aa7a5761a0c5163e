"""Pasting: only masked pixels change, every place is as likely, labels survive, evaluation sets never change."""

from __future__ import annotations

import numpy as np
import pytest

from quantjax.data.mix import PastedScenes, anomalies, check_some_fit, paste
from quantjax.rows import PASTED


@pytest.fixture
def scene(picture, rng):
    label = rng.choice(np.array([0, 5, 255], np.uint8), (12, 16))
    return {"image": picture(12, 16), "label": label, "name": "scene"}


def thing(height=3, width=4, value=200):
    mask = np.ones((height, width), bool)
    mask[0, 0] = False
    return {"image": np.full((height, width, 3), value, np.uint8), "mask": mask, "name": "thing", "class_name": "t"}


def test_only_the_masked_pixels_change(scene, rng):
    before = scene["image"].copy(), scene["label"].copy()
    row = paste(scene, thing(), rng)
    there = row["label"] == PASTED
    assert there.sum() == 11
    assert (row["image"][there] == 200).all()
    np.testing.assert_array_equal(row["image"][~there], before[0][~there])
    np.testing.assert_array_equal(row["label"][~there], before[1][~there])
    np.testing.assert_array_equal(scene["image"], before[0])  # the scene itself stays as it was
    np.testing.assert_array_equal(scene["label"], before[1])


def test_every_place_is_as_likely(scene):
    rng = np.random.default_rng(1)
    corners = np.array([np.argwhere(paste(scene, thing(12, 15), rng)["label"] == PASTED).min(0) for _ in range(2000)])
    assert (corners[:, 0] == 0).all()
    assert abs((corners[:, 1] == 0).sum() - 1000) < 5 * 22.4  # two places, standard deviation 22.4
    places = {tuple(np.argwhere(paste(scene, thing(10, 14), rng)["label"] == PASTED).min(0)) for _ in range(300)}
    assert places == {(top, left) for top in range(3) for left in range(3)}


def test_an_object_as_large_as_the_scene_fits(scene, rng):
    assert (paste(scene, thing(12, 16), rng, strict=True)["label"] == PASTED).sum() == 12 * 16 - 1


def test_a_larger_object_leaves_the_scene_alone_or_is_an_error(scene, rng):
    assert paste(scene, thing(13, 4), rng) is scene
    with pytest.raises(
        ValueError, match="object thing must fit into scene scene: the scene is 12 x 16, the object 3 x 17"
    ):
        paste(scene, thing(3, 17), rng, strict=True)


def test_a_share_sets_the_longer_side(scene, rng):
    for height, width in ((40, 20), (5, 100), (2, 3)):
        row = paste(scene, thing(height, width), rng, share=(0.5, 0.5), strict=True)
        rows, columns = np.nonzero(row["label"] == PASTED)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 6  # half of 12 rows
    wide = paste(scene, thing(100, 200), rng, share=(1.0, 1.0), strict=True)
    assert (wide["label"] == PASTED).any(1).sum() == 6
    with pytest.raises(ValueError, match="share must be two numbers with 0 < low <= high <= 1, got "):
        paste(scene, thing(), rng, share=(0.5, 1.5))


def test_anomaly_labels():
    np.testing.assert_array_equal(anomalies(np.array([[0, 18, 254, 255]], np.uint8)), [[0, 0, 1, 255]])


def test_an_evaluation_scene_is_the_same_every_time(scene):
    things = [thing(3, 4, 10), thing(5, 2, 20), thing(4, 4, 30)]
    first, again, other = (PastedScenes([scene] * 20, things, seed) for seed in (3, 3, 4))
    for i in (7, 0, 19):
        np.testing.assert_array_equal(first[i]["image"], again[i]["image"])
        np.testing.assert_array_equal(first[i]["label"], again[i]["label"])
    assert any((first[i]["image"] != other[i]["image"]).any() for i in range(20))
    assert len({first[i]["label"].tobytes() for i in range(20)}) > 15
    assert {int(first[i]["image"][first[i]["label"] == 1][0, 0]) for i in range(20)} == {10, 20, 30}
    assert set(np.unique(first[0]["label"])) == {0, 1, 255}


def test_a_probability_leaves_scenes_without_an_object(scene):
    rows = [PastedScenes([scene] * 400, [thing()], 0, probability=0.25)[i] for i in range(400)]
    pasted = sum((row["label"] == 1).any() for row in rows)
    assert abs(pasted - 100) < 5 * 8.7  # binomial, standard deviation 8.7
    assert any(set(np.unique(row["label"])) == {0, 255} for row in rows)


def test_empty_sets_and_objects_that_never_fit_are_refused(scene):
    with pytest.raises(ValueError, match="scenes must hold at least one scene, got none"):
        PastedScenes([], [thing()])
    with pytest.raises(ValueError, match="objects must hold at least one object, got none"):
        PastedScenes([scene], [])
    with pytest.raises(ValueError, match="object thing must fit into scene scene"):
        PastedScenes([scene], [thing(40, 40)])[0]
    with pytest.raises(ValueError, match=r"probability must lie in \[0\.0, 1\.0\], got 1\.5"):
        PastedScenes([scene], [thing()], probability=1.5)
    with pytest.raises(ValueError, match="the scene is 12 x 16, the object 13 x 13"):
        check_some_fit([scene], [thing(13, 13), thing(3, 20)])
    check_some_fit([scene], [thing(13, 13), thing(3, 16)])
