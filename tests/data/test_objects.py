"""Opening objects by name."""

from __future__ import annotations

import numpy as np
import pytest

from quantjax.data.objects import open_objects


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_bundled_objects_need_no_folder(split):
    objects = open_objects("bundled", None, split)
    row = objects[0]
    assert row["image"].shape == (*row["mask"].shape, 3)
    assert row["mask"].dtype == bool
    assert row["mask"].any()


def test_any_folder_opens_by_its_path(save, picture, tmp_path):
    solid = np.dstack([picture(), np.full((6, 8), 255, np.uint8)])
    for name in ("a", "b", "c"):
        save(f"mine/{name}.png", solid)
    assert len(open_objects("mine", tmp_path, "train")) == 2
    assert len(open_objects(str(tmp_path / "mine"), None, "test")) == 1


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="coco was not found; looked for annotations in"):
        open_objects("coco", tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="cutouts is not bundled: pass the folder"):
        open_objects("cutouts", None, "train")
    with pytest.raises(FileNotFoundError, match=r"nowhere is no known set of objects and no folder.*coco, bundled"):
        open_objects("nowhere", tmp_path, "train")
    with pytest.raises(ValueError, match="split must be one of test, train; got 'val'"):
        open_objects("cutouts", tmp_path, "val")


def test_the_cutouts_as_published(data_dir):
    """300 cut-outs, one per ImageNet class: 200 to train with and 100 others, none over 192 pixels long."""
    train, test = (open_objects("cutouts", data_dir, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (200, 100)
    rows = [train[0], train[199], test[0], test[99]]
    assert len({row["class_name"] for row in rows}) == 4
    assert max(row["name"] for row in rows[:2]) < min(row["name"] for row in rows[2:])
    for row in rows:
        assert max(row["mask"].shape) <= 192
        assert 0.1 < row["mask"].mean() <= 1
