"""Folders as people have them: hidden leftovers, pictures of other kinds, layouts that can be read in two ways."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from quantjax.data.arrays import load
from quantjax.data.objects import open_objects
from quantjax.data.scenes import open_scenes
from quantjax.data.sources import open_source


def open_splits(*where):
    return tuple(open_source(*where, split=split, divide=True) for split in ("train", "test"))


@pytest.fixture
def tree(tmp_path):
    """Make files under tmp_path/set: names ending in / are folders, others 4 x 4 pictures."""
    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "picture.png")

    def make(names: str):
        for name in names.split():
            path = folder / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                shutil.copy(tmp_path / "picture.png", path)  # whatever it is called, it is a PNG
        return folder

    return make


READ_WHOLE = {  # files -> (classes, number of images), nothing else to be seen
    "hidden files": ("a.png .b.png ._a.png", ((), 1)),
    "hidden folders": (
        "cat/1.png dog/1.png .ipynb_checkpoints/1.png .thumbnails/2.png .Trash-1000/x/3.png",
        ("cat dog", 2),
    ),
    "hidden folders inside a class": ("cat/1.png cat/.ipynb_checkpoints/1.png dog/1.png dog/._1.png", ("cat dog", 2)),
    "left by a system": ("cat/1.png dog/1.png __MACOSX/cat/1.png @eaDir/1.png", ("cat dog", 2)),
    "a folder named like an image": ("a.png x.jpg/", ((), 1)),
    "a class folder named like an image": ("x.jpg/1.png y/1.png", ("x.jpg y", 2)),
    "more suffixes": ("a.jfif b.jpe c.JPG d.png", ((), 4)),
    "texts beside classes": ("cat/1.png dog/1.png readme.txt notes/readme.md", ("cat dog", 2)),
    "one split without classes": ("test/1.png test/2.png", ((), 2)),
    "splits with hidden company": ("train/a/1.png test/a/1.png test/b/2.png .cache/3.png", ("a b", 2)),
    "val stands in for test": ("train/a/1.png train/b/1.png val/a/1.png val/b/1.png", ("a b", 2)),
    "a class called train": ("bus/1.png trains/1.png", ("bus trains", 2)),
}


@pytest.mark.parametrize("case", READ_WHOLE)
def test_a_folder_is_read_whole(tree, case):
    files, (classes, count) = READ_WHOLE[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_source(tree(files), split="test")
    assert (tuple(source.class_names), len(source)) == (tuple(classes.split() if classes else ()), count)
    assert all((source[i]["image"] == 9).all() for i in range(count))


REFUSED = {
    "flat beside classes": ("1.png 2.png cat/3.png dog/4.png", r"2 images beside the class folders cat/, dog/"),
    "a class called train beside others": ("bus/1.png train/2.png car/3.png", r"train/ beside the folders bus/, car/"),
    "classes called like splits": ("train/1.png test/2.png val/3.png", r"test/, train/, val/ with images but no class"),
    "images beside splits": ("1.png train/a/2.png test/a/3.png", r"test/, train/ beside 1 images"),
    "classes below classes": ("train/steam/1.png test/blood/2.png", r"no class folder in common"),
    "a class that loses all its files": (
        "cat/1.png dog/1.jp2 dog/2.bmp2",
        r"dog/ is read: .*2 files .*1 \.bmp2, 1 \.jp2",
    ),
    "nothing that is read": ("1.jxl 2.jxl", r"holds no image.*2 files look like images .*2 \.jxl"),
    "only hidden": (".a.png .b/c.png", r"holds no image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_is_refused_rather_than_read_in_part(tree, case):
    files, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        open_source(tree(files), split="test")
    with pytest.raises(ValueError, match=message):
        open_splits(tree(files))


def test_links_to_folders_are_followed_but_not_in_circles(tree, tmp_path):
    folder = tree("cat/1.png")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "picture.png", tmp_path / "elsewhere" / "2.png")
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "back").symlink_to(folder)
    assert (open_source(folder).class_names, len(open_source(folder))) == (("cat", "dog"), 2)
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(ValueError, match=r"gone\.png cannot be decoded"):
        load(open_source(folder))


def test_what_looks_like_an_image_and_is_not_read_is_counted_in_one_line(tree):
    folder = tree("cat/1.png cat/2.jp2 dog/1.png dog/2.tga dog/3.jpg_large cat/4 cat/notes.txt")
    with pytest.warns(UserWarning, match="look like images") as caught:
        assert len(open_source(folder)) == 2
    (message,) = [str(warning.message) for warning in caught]
    assert "4 files look like images and are not read (1 .jp2, 1 .jpg_large, 1 .tga, 1 without a suffix)" in message
    assert message.endswith("; convert to .png or .jpg")
    assert "\n" not in message


def test_a_format_is_read_where_there_is_a_decoder(tree, monkeypatch):
    from quantjax.data import images

    monkeypatch.setattr(images, "has_decoder", lambda suffix: False)
    folder = tree("cat/1.png dog/1.heic")
    with pytest.raises(ValueError, match=r"1 \.heic.*install pillow-heif \(pip install 'quantjax\[heif\]'\)"):
        open_source(folder)
    monkeypatch.setattr(images, "has_decoder", lambda suffix: True)
    assert len(open_source(folder)) == 2


def test_heic_photographs_are_read(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.from_pillow(Image.new("RGB", (64, 64), (200, 10, 10))).save(tmp_path / "a.heic")
    assert open_source(tmp_path)[0]["image"][..., 0].mean() > 180


def test_an_own_set_without_a_split_is_split_by_class(tree, tmp_path):
    """20 % of each class, rounded, at least one; one row is only trained on."""
    names = [f"cat/{k}.png" for k in range(10)] + [f"dog/{k}.png" for k in range(3)] + ["eel/1.png"]
    folder = tree(" ".join(names))
    train, test = open_splits(folder)
    assert np.bincount(train.labels).tolist() == [8, 2, 1]
    assert np.bincount(test.labels).tolist() == [2, 1]
    assert train.class_names == test.class_names == ("cat", "dog", "eel")
    assert sorted({*train.paths} | {*test.paths}) == sorted(folder / name for name in names)
    assert open_splits(folder)[1].paths == test.paths
    assert len(open_source(folder)) == 14  # as a set of outliers it is whole
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone / "train")
    assert len(open_splits(alone)[1]) == 3


def test_an_npz_without_a_split_is_split_by_class(tmp_path):
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=[0] * 6 + [1] * 6)
    train, test = open_splits("own.npz", tmp_path)
    assert np.bincount(test.labels).tolist() == [1, 1]
    assert sorted([*train.images[:, 0, 0], *test.images[:, 0, 0]]) == list(range(12))
    np.savez(tmp_path / "both.npz", train_images=images, train_labels=[0] * 12, test_images=images[:2])
    assert [len(source) for source in open_splits("both.npz", tmp_path)] == [12, 2]
    assert [len(source) for source in open_splits("digits")] == [
        len(open_source("digits", split=s)) for s in ("train", "test")
    ]


SCENES = {
    "camvid": ("CamVid/test/{}.png", "CamVid/testannot/{}.png"),
    "cityscapes": ("leftImg8bit/val/ulm/{}_leftImg8bit.png", "gtFine/val/ulm/{}_gtFine_labelIds.png"),
    "road_anomaly": ("RoadAnomaly/frames/{}.png", "RoadAnomaly/frames/{}.labels/labels_semantic.png"),
    "fs_laf": ("Fishyscapes/laf_images/{}_leftImg8bit.png", "Fishyscapes/fishyscapes_lostandfound/0_{}_labels.png"),
    "smiyc_at": ("dataset_AnomalyTrack/images/validation_{}.png",
                 "dataset_AnomalyTrack/labels_masks/validation_{}_labels_semantic.png"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_hidden_files_are_no_scenes_and_no_labels(save, picture, tmp_path, name):
    for pattern, pixels in zip(SCENES[name], (picture(), np.zeros((6, 8), np.uint8)), strict=True):
        file = save(pattern.format("a"), pixels)
        (file.parent / f"._{file.name}").write_bytes(b"resource fork")
        save(str((file.parent / ".ipynb_checkpoints" / file.name).relative_to(tmp_path)), pixels)
        hidden = file.parents[1] / ".thumbnails" / file.name
        save(str(hidden.relative_to(tmp_path)), pixels)
        (file.parent / "folder_leftImg8bit.png").mkdir(exist_ok=True)
    scenes = open_scenes(name, tmp_path, "val" if name == "cityscapes" else "test")
    assert len(scenes) == 1
    assert scenes[0]["label"].shape == (6, 8)


def test_hidden_files_are_no_objects_and_mark_no_set(save, picture, tmp_path):
    solid = np.dstack([picture(), np.full((6, 8), 255, np.uint8)])
    save("cutouts/.hidden.png", solid)
    with pytest.raises(FileNotFoundError, match="cutouts was not found"):
        open_objects("cutouts", tmp_path, "train")
    for name in "abc":
        save(f"cutouts/{name}.png", solid)
        save(f"cutouts/._{name}.png", solid)
        (tmp_path / f"cutouts/{name}.jpg").mkdir()
    assert len(open_objects("cutouts", tmp_path, "train")) == 2
