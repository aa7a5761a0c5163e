"""Opening scenes by name: what is there, and what the message says when it is not."""

from __future__ import annotations

import numpy as np
import pytest

from quantjax.data.scenes import SCENE_SETS, open_scenes


def test_the_bundled_streets_need_no_folder():
    scenes = open_scenes("streets", None, "test")
    row = scenes[0]
    assert row["image"].shape == (*row["label"].shape, 3)
    assert row["label"].max() < len(scenes.class_names)
    assert open_scenes("streets", None, "test", 56)[0]["label"].shape == (56, 112)


@pytest.mark.parametrize("name", list(SCENE_SETS))
def test_a_set_that_is_not_there_says_where_to_get_it(tmp_path, name):
    known = SCENE_SETS[name]
    with pytest.raises(FileNotFoundError, match=rf"{name} was not found; looked for .*Get it from https://"):
        open_scenes(name, tmp_path, known.splits[-1])
    with pytest.raises(FileNotFoundError, match=rf"{name} is not bundled: pass the folder"):
        open_scenes(name, None, known.splits[-1])


def test_unknown_names_and_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"name must be one of camvid, cityscapes, .*; got 'kitti'"):
        open_scenes("kitti", tmp_path, "test")
    with pytest.raises(ValueError, match="split of road_anomaly must be one of test; got 'train'"):
        open_scenes("road_anomaly", tmp_path, "train")


# Counts of the published sets: 367 + 101 + 233 CamVid scenes (SegNet's split), 60 of RoadAnomaly.
@pytest.mark.parametrize(("split", "scenes"), [("train", 367), ("val", 101), ("test", 233)])
def test_camvid_as_published(data_dir, split, scenes):
    source = open_scenes("camvid", data_dir, split, height=240)
    assert len(source) == scenes
    rows = [source[i] for i in range(0, scenes, 20)]
    assert {row["image"].shape for row in rows} == {(240, 320, 3)}
    assert set(np.unique([row["label"] for row in rows])) == {*range(11), 255}
    road = np.mean([(row["label"][160:] == 3).mean() for row in rows])
    assert road > 0.4  # the lower third is mostly road


def test_road_anomaly_as_published(data_dir):
    source = open_scenes("road_anomaly", data_dir, "test")
    assert len(source) == 60
    for i in range(0, 60, 10):
        row = source[i]
        assert row["image"].shape == (720, 1280, 3)
        assert set(np.unique(row["label"])) == {0, 1}
