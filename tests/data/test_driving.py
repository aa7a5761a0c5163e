"""Each driving set, written in its publisher's layout and read back pixel for pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest

from quantjax.data.driving import CITYSCAPES_IDS
from quantjax.data.scenes import open_scenes


def labels(*values):
    """A label image [6, 8] that holds each value."""
    return np.resize(np.array(values, np.uint8), (6, 8))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_camvid(save, picture, tmp_path, suffix):
    values = labels(*range(12))
    for name in ("0001_b", "0001_a"):
        save(f"CamVid/train/{name}.{suffix}", picture())
        save(f"CamVid/trainannot/{name}.png", values)
    scenes = open_scenes("camvid", tmp_path, "train")
    assert [scene["name"] for scene in (scenes[0], scenes[1])] == ["0001_a", "0001_b"]
    assert len(scenes.class_names) == 11
    np.testing.assert_array_equal(scenes[0]["label"], np.where(values == 11, 255, values))


def cityscapes(save, picture, kind, values):
    for city, name in (("ulm", "ulm_000001_000019"), ("bonn", "bonn_000000_000019")):
        save(f"cityscapes/leftImg8bit/val/{city}/{name}_leftImg8bit.png", picture())
        save(f"cityscapes/gtFine/val/{city}/{name}_gtFine_{kind}.png", values)


def test_cityscapes_training_ids(save, picture, tmp_path):
    values = labels(*range(19), 255)
    cityscapes(save, picture, "labelTrainIds", values)
    scenes = open_scenes("cityscapes", tmp_path, "val")
    assert [scenes[i]["name"] for i in range(len(scenes))] == ["bonn_000000_000019", "ulm_000001_000019"]
    np.testing.assert_array_equal(scenes[1]["label"], values)
    assert scenes.class_names[0] == "road"
    assert scenes.class_names[18] == "bicycle"


def test_cityscapes_published_ids_become_training_ids(save, picture, tmp_path):
    values = labels(*CITYSCAPES_IDS.values(), 0, 4, 29, 30)  # the last four: void, and classes outside the 19
    cityscapes(save, picture, "labelIds", values)
    wanted = np.resize(np.array([*range(19), 255, 255, 255, 255], np.uint8), (6, 8))
    np.testing.assert_array_equal(open_scenes("cityscapes", tmp_path, "val")[0]["label"], wanted)


def test_road_anomaly(save, picture, tmp_path):
    values = labels(0, 1, 2)
    names = ["animals01_x.jpg", "boat_y.jpg"]
    for name in names:
        save(f"RoadAnomaly/RoadAnomaly_jpg/frames/{name}", picture())
        save(f"RoadAnomaly/RoadAnomaly_jpg/frames/{name[:-4]}.labels/labels_semantic.png", values)
    save("RoadAnomaly/RoadAnomaly_jpg/frames/unlisted.jpg", picture())
    (tmp_path / "RoadAnomaly/RoadAnomaly_jpg/frame_list.json").write_text(json.dumps(names))
    scenes = open_scenes("road_anomaly", tmp_path, "test")
    assert len(scenes) == 2
    assert scenes.class_names == ()
    np.testing.assert_array_equal(scenes[1]["label"], np.where(values == 0, 0, 1))


FISHYSCAPES = {
    "flat": (
        "Fishyscapes/laf_images/04_Maurener_Weg_8_000000_000030_leftImg8bit.png",
        "Fishyscapes/fishyscapes_lostandfound/0000_04_Maurener_Weg_8_000000_000030_labels.png",
    ),
    "tool": (
        "dataset_LostAndFound/leftImg8bit/train/04_Maurener_Weg_8/04_Maurener_Weg_8_000000_000030_leftImg8bit.png",
        "dataset_FishyLAF/labels/val/04_Maurener_Weg_8_000000_000030_fishy-labels.png",
    ),
}


@pytest.mark.parametrize("layout", list(FISHYSCAPES))
def test_fishyscapes_in_both_layouts(save, picture, tmp_path, layout):
    image, label = FISHYSCAPES[layout]
    pixels, values = picture(), labels(0, 1, 255)
    save(image, pixels)
    save(label, np.repeat(values[..., None], 3, -1))  # published as three equal channels
    scenes = open_scenes("fs_laf", tmp_path, "test")
    assert len(scenes) == 1
    assert scenes[0]["name"] == "04_Maurener_Weg_8_000000_000030"
    np.testing.assert_array_equal(scenes[0]["image"], pixels)
    np.testing.assert_array_equal(scenes[0]["label"], values)


@pytest.mark.parametrize(
    ("name", "folder"), [("smiyc_at", "dataset_AnomalyTrack"), ("smiyc_ot", "dataset_ObstacleTrack")]
)
def test_segment_me_if_you_can(save, picture, tmp_path, name, folder):
    values = labels(0, 1, 255)
    suffix = "jpg" if name == "smiyc_at" else "webp"
    for frame in ("validation_1", "validation_19", "validation_25", "validation_3"):
        save(f"SegmentMeIfYouCan/{folder}/images/{frame}.{suffix}", picture())
        save(f"SegmentMeIfYouCan/{folder}/labels_masks/{frame}_labels_semantic.png", values)
    save(f"SegmentMeIfYouCan/{folder}/images/curvy-street_1.{suffix}", picture())  # a test image, label not public
    scenes = open_scenes(name, tmp_path, "test")
    kept = ["validation_1", "validation_3"]  # the obstacle track's tool leaves 19 and 21 to 29 out
    assert [row["name"] for row in map(scenes.__getitem__, range(len(scenes)))] == (
        kept if name == "smiyc_ot" else sorted([*kept, "validation_19", "validation_25"])
    )
    np.testing.assert_array_equal(scenes[0]["label"], values)


def test_an_image_without_its_label_is_named(save, picture, tmp_path):
    save("CamVid/test/a.png", picture())
    save("CamVid/test/b.png", picture())
    save("CamVid/testannot/a.png", labels(0))
    with pytest.raises(FileNotFoundError, match=r"an image without its label: .*testannot/b\.png is missing"):
        open_scenes("camvid", tmp_path, "test")


def test_a_label_without_its_image_is_named(save, tmp_path):
    save(FISHYSCAPES["flat"][1], labels(0))
    with pytest.raises(FileNotFoundError, match=r"a label without its image: .*_000030_leftImg8bit\.png is missing"):
        open_scenes("fs_laf", tmp_path, "test")


def test_an_empty_set_is_refused(save, tmp_path):
    save("CamVid/trainannot/a.png", labels(0))
    with pytest.raises(ValueError, match=r"CamVid holds no labelled image of this split"):
        open_scenes("camvid", tmp_path, "train")


@pytest.mark.parametrize("text", ["{", '{"frames": []}'])
def test_a_damaged_frame_list_is_named(save, picture, tmp_path, text):
    save("RoadAnomaly_jpg/frames/a.jpg", picture())
    (tmp_path / "RoadAnomaly_jpg/frame_list.json").write_text(text)
    with pytest.raises(ValueError, match=r"frame_list\.json .*JSON list of image names"):
        open_scenes("road_anomaly", tmp_path, "test")
