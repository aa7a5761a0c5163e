"""Where sets are looked for: the same order and the same words for images, scenes and objects."""

from __future__ import annotations

import pytest

from quantjax.data.objects import open_objects
from quantjax.data.places import find_folder, find_path
from quantjax.data.scenes import open_scenes
from quantjax.data.sources import open_source

OWN = {"wanted": "data set", "known": ("digits", "cifar10")}


def test_a_relative_path_is_looked_for_under_data_dir_then_here(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("data/both", "here/both", "here/only", "home/mine"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert find_path("both", tmp_path / "data", **OWN) == tmp_path / "data" / "both"
    assert find_path("only", tmp_path / "data", **OWN).resolve() == tmp_path / "here" / "only"
    assert find_path("both", None, **OWN).resolve() == tmp_path / "here" / "both"
    assert find_path(tmp_path / "here" / "both", tmp_path / "data", **OWN) == tmp_path / "here" / "both"
    assert find_path("~/mine", tmp_path / "data", **OWN) == tmp_path / "home" / "mine"
    assert find_path("mine", "~", **OWN) == tmp_path / "home" / "mine"


def test_where_a_folder_is_wanted_a_file_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "set").write_text("")
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_path("set", "data", **OWN).is_file()
    assert find_path("set", "data", folder=True, **OWN).resolve() == tmp_path / "set"
    with pytest.raises(FileNotFoundError, match=r"x is no known data set and no folder; looked at data/x, x\. Known"):
        find_path("x", "data", folder=True, **OWN)
    with pytest.raises(FileNotFoundError, match=r"no file or folder; .*Known names: digits, cifar10$"):
        find_path("x", "data", **OWN)


def test_the_first_folder_with_a_marker(tmp_path):
    for name in ("a/other", "b/frames", "c/frames"):
        (tmp_path / name).mkdir(parents=True)
    assert find_folder("roads", tmp_path, ("a", "b", "c"), ("scenes", "frames"), "x.org") == tmp_path / "b"


READERS = {
    "images": lambda where: open_source("textures", where),
    "scenes": lambda where: open_scenes("road_anomaly", where, "test"),
    "objects": lambda where: open_objects("coco", where, "train"),
}


@pytest.mark.parametrize("kind", READERS)
def test_all_readers_name_the_archives_that_wait_to_be_unpacked(tmp_path, kind):
    (tmp_path / "some.tar.gz").write_text("")
    with pytest.raises(FileNotFoundError, match=r"unpack it into .* \(archives lying there: some\.tar\.gz\)$"):
        READERS[kind](tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not bundled: pass the folder that holds it as data_dir\. Get"):
        READERS[kind](None)
