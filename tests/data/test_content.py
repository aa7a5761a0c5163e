"""Digests of sources: equal for copies, another one as soon as anything that a source reads changes."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from quantjax.data import content, open_objects, open_scenes, open_source
from quantjax.data.content import digest, file_digest


def picture(file, value=0, mode=np.uint8):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 4 if file.name.startswith("n") else 3), 128 + value, mode)).save(file)


def write(folder, value=0):
    """Sets of every kind; `value` changes one byte or two of the last file of each."""
    for k in range(3):
        last = value if k == 2 else 0
        picture(folder / "plain" / f"{k}.png", last)
        picture(folder / "classes" / "test" / f"class {k}" / "x.png", last)
        picture(folder / "cutouts" / f"n{k}_thing.png", last)
        picture(folder / "masked" / "images" / f"{k}.png")
        (folder / "masked" / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 1 + last, np.uint8)).save(folder / "masked" / "masks" / f"{k}.png")
        picture(folder / "CamVid" / "test" / f"{k}.png")
        (folder / "CamVid" / "testannot").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), last, np.uint8)).save(folder / "CamVid" / "testannot" / f"{k}.png")
    np.savez(folder / "set.npz", images=np.zeros((3, 4, 4, 3), np.uint8), labels=np.array([0, 1, 1 + value]))
    coco(folder / "coco", value)
    return folder


def coco(folder, value):
    """Two photographs whose outlines lie in one annotation file."""
    for part in ("train2017", "val2017"):
        picture(folder / part / "1.png")
    (folder / "annotations").mkdir()
    outline = [[0, 0, 99, 0, 99, 99 - value, 0, 99]]
    about = {
        "images": [{"id": 1, "file_name": "1.png", "height": 480, "width": 480}],
        "annotations": [{"image_id": 1, "category_id": 1, "area": 9801, "segmentation": outline}],
        "categories": [{"id": 1, "name": "kite"}, {"id": 2, "name": "car"}],
    }
    for part in ("train2017", "val2017"):
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(about))


KINDS = {
    "images": lambda folder: open_source("plain", folder),
    "class folders": lambda folder: open_source("classes", folder),
    "npz": lambda folder: open_source("set.npz", folder),
    "scenes": lambda folder: open_scenes("camvid", folder, "test"),
    "cut-outs": lambda folder: open_objects("cutouts", folder, "test"),
    "objects with masks": lambda folder: open_objects("masked", folder, "test"),
    "coco": lambda folder: open_objects("coco", folder, "train", ("car",)),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """(a folder of sets, its copy elsewhere, the same with one value changed)"""
    here = write(tmp_path_factory.mktemp("here") / "data")
    there = tmp_path_factory.mktemp("there") / "moved"
    shutil.copytree(here, there)
    return here, there, write(tmp_path_factory.mktemp("other") / "data", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_equal_and_changes_are_seen(places, kind):
    here, there, other = (digest(KINDS[kind](place)) for place in places)
    assert here == there != other
    assert len(here) == 16


def test_bundled_sets_count_by_version(monkeypatch):
    before = digest(open_scenes("streets", None, "test")), digest(open_objects("bundled", None, "test"))
    assert before == (digest(open_scenes("streets", None, "test")), digest(open_objects("bundled", None, "test")))
    assert before[0] != digest(open_scenes("streets", None, "train"))
    assert before[0] != digest(open_scenes("streets", None, "test", 56))
    monkeypatch.setattr("quantjax.__version__", "99")
    assert before[0] != digest(open_scenes("streets", None, "test"))
    assert before[1] != digest(open_objects("bundled", None, "test"))


def test_a_source_of_others_counts_row_by_row():
    class Records:
        def __init__(self, *rows):
            self.rows = rows

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            return {"image": np.full(2, self.rows[index], np.uint8), "label": 0}

    assert digest(Records(1, 2)) == digest(Records(1, 2)) != digest(Records(1, 3))


def test_order_and_nesting_count():
    assert len({digest(1, 2), digest(2, 1), digest([1, 2]), digest([1], [2]), digest("1", 2)}) == 5


def test_a_file_counts_by_content_whatever_its_time(tmp_path):
    import os

    file = tmp_path / "a"
    file.write_bytes(b"1")
    before, about = file_digest(file), file.stat()
    file.write_bytes(b"2")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert file_digest(file) != before
    with pytest.raises(FileNotFoundError, match="missing"):
        content.digest(tmp_path / "missing")
