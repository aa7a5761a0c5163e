"""COCO's annotations: run lengths and polygons against pycocotools, and which photographs are chosen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from quantjax.data.coco import coco_objects
from quantjax.data.objects import OVERLAP, open_objects
from quantjax.data.outlines import decompressed, filled, rasterised

SQUARE = [10, 20, 30, 20, 30, 45, 10, 45]  # x 10..30, y 20..45


def test_run_lengths_equal_pycocotools(golden):
    record = golden("coco")
    for mask, text in zip(record["masks"], record["texts"], strict=True):
        outline = {"counts": str(text), "size": list(mask.shape)}
        np.testing.assert_array_equal(rasterised(outline, mask.shape), mask)


def test_run_lengths_by_hand():
    # Down the columns of a 2 x 3 mask: 1 outside, 3 inside, 2 outside.
    mask = rasterised({"counts": [1, 3, 2], "size": [2, 3]}, (2, 3))
    np.testing.assert_array_equal(mask, [[False, True, False], [True, True, False]])
    assert decompressed("132") == [1, 3, 2]
    with pytest.raises(ValueError, match="run lengths must cover 2 x 3 pixels, got 5"):
        rasterised({"counts": [1, 3, 1]}, (2, 3))


def test_polygons_differ_from_pycocotools_at_the_border_only(golden):
    """pycocotools rounds outlines on a grid of fifths; away from the border both must agree."""
    record = golden("coco")
    for polygon, wanted in zip(record["polygons"], record["filled"], strict=True):
        ours = filled(polygon, wanted.shape)
        shifted = [np.roll(wanted, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        border = np.logical_or.reduce(shifted) & ~np.logical_and.reduce(shifted)
        assert not (ours != wanted)[~border].any()
        assert (ours & wanted).sum() > 0.96 * (ours | wanted).sum()


def test_a_polygon_covers_the_pixels_whose_centres_it_holds():
    mask = rasterised([SQUARE, [0, 0, 3, 0, 0, 3]], (60, 60))
    wanted = np.zeros((60, 60), bool)
    wanted[20:45, 10:30] = True
    wanted[0, :2] = wanted[1, :1] = True  # centres under the diagonal x + y = 3; those on it, at (0, 2), are outside
    np.testing.assert_array_equal(mask, wanted)


@pytest.fixture
def coco(save, picture, tmp_path):
    """Photographs 1 to 5: dog and cat (crowd), person, too small, no object, train (kept, as the authors do)."""
    sizes = {1: (480, 500), 2: (480, 480), 3: (479, 600), 4: (490, 490), 5: (480, 481)}
    shown = {1: (18, 17), 2: (18, 1), 3: (18,), 4: (), 5: (7,)}
    annotations = []
    for key, (height, width) in sizes.items():
        save(f"coco/train2017/{key:012d}.jpg", picture(height, width))
        for k, category in enumerate(shown[key]):
            corners = [value + 100 * k for value in SQUARE]
            outline = crowd(corners, height, width) if category == 17 else [corners]
            annotations.append({"image_id": key, "category_id": category, "segmentation": outline, "area": 500.0})
    images = [
        {"id": key, "file_name": f"{key:012d}.jpg", "height": height, "width": width}
        for key, (height, width) in sizes.items()
    ]
    names = {1: "person", 7: "train", 17: "cat", 18: "dog"} | dict(enumerate(OVERLAP[1:], start=100))
    categories = [{"id": key, "name": name} for key, name in names.items()]
    content = {"images": images[::-1], "annotations": annotations, "categories": categories}
    file = tmp_path / "coco/annotations/instances_train2017.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    return tmp_path


def crowd(corners, height, width):
    mask = rasterised([corners], (height, width)).T.reshape(-1)
    changes = np.flatnonzero(np.diff(mask)) + 1
    return {"counts": np.diff([0, *changes, mask.size]).tolist(), "size": [height, width]}


def test_photographs_with_an_excluded_class_or_a_short_side_are_left_out(coco):
    objects = open_objects("coco", coco, "train")
    assert [objects[i]["name"] for i in range(len(objects))] == ["000000000001", "000000000005"]
    assert objects[0]["class_name"] == "cat, dog"
    assert len(open_objects("coco", coco, "train", exclude=("dog",))) == 1


def test_all_objects_of_a_photograph_are_one_mask_cropped_to_their_box(coco):
    row = open_objects("coco", coco, "train")[0]
    wanted = np.zeros((125, 120), bool)  # the squares at (20, 10) and (120, 110), each 25 x 20
    wanted[:25, :20] = wanted[100:, 100:] = True
    np.testing.assert_array_equal(row["mask"], wanted)
    assert row["image"].shape == (125, 120, 3)


def test_prepared_masks_are_read_without_annotations(save, picture, tmp_path):
    mask = np.zeros((9, 12), np.uint8)
    mask[2:5, 3:8] = 254
    pixels = picture(9, 12)
    save("coco/val2017/000000000009.png", pixels)
    save("coco/annotations/ood_seg_val2017/000000000009.png", mask)
    objects = open_objects("coco", tmp_path, "test")
    assert len(objects) == 1
    np.testing.assert_array_equal(objects[0]["image"], pixels[2:5, 3:8])
    assert objects[0]["mask"].all()


def test_bad_input_is_named(coco, save, picture):
    with pytest.raises(ValueError, match="exclude must name classes of COCO, got lorry"):
        coco_objects(coco / "coco", "train", ("lorry",))
    with pytest.raises(ValueError, match="has no photograph with an object left after leaving out dog, train"):
        coco_objects(coco / "coco", "train", ("dog", "train"))
    with pytest.raises(FileNotFoundError, match=r"instances_val2017\.json is missing"):
        coco_objects(coco / "coco", "test", ())
    save("coco/train2017/000000000001.jpg", picture(480, 400))
    with pytest.raises(ValueError, match=r"000000000001\.jpg must be 480 x 500, as its annotations say, got 480 x 400"):
        open_objects("coco", coco, "train")[0]
    (coco / "coco/train2017/000000000005.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 photographs, the first is 000000000005"):
        open_objects("coco", coco, "train")


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": []}'])
def test_damaged_annotations_are_named(coco, text):
    (coco / "coco/annotations/instances_train2017.json").write_text(text)
    with pytest.raises(ValueError, match=r"instances_train2017\.json (is no JSON|has no entry)"):
        open_objects("coco", coco, "train")


def change(coco, path, value, *, remove=False):
    """Set or remove one entry of the annotations, `annotations/0/area` say; returns its photographs' folder."""
    file = coco / "coco/annotations/instances_train2017.json"
    content = place = json.loads(file.read_text())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        place = place[part]
    if remove:
        del place[last]
    else:
        place[last] = value
    file.write_text(json.dumps(content))


READABLE = {
    "no area": ("annotations/0/area", None),
    "a side as a float": ("images/4/height", 480.0),
    "the folder in file_name": ("images/4/file_name", "train2017/000000000001.jpg"),
    "backslashes": ("images/4/file_name", "train2017\\000000000001.jpg"),
    "another suffix": ("images/4/file_name", "000000000001.png"),
    "a way out of the folder": ("images/4/file_name", "../../train2017/000000000001.jpg"),
}


@pytest.mark.parametrize("case", READABLE)
def test_annotations_in_other_spellings_give_the_same_objects(coco, case):
    wanted = open_objects("coco", coco, "train")[0]
    path, value = READABLE[case]
    change(coco, path, value, remove=value is None)
    objects = open_objects("coco", coco, "train")
    assert [objects[i]["name"] for i in range(len(objects))] == ["000000000001", "000000000005"]
    np.testing.assert_array_equal(objects[0]["mask"], wanted["mask"])
    np.testing.assert_array_equal(objects[0]["image"], wanted["image"])


UNFIT = {  # the first annotation is of photograph 1; removed where the value is None
    "no segmentation": ("annotations/0/segmentation", None, "annotation None has no segmentation.*a box is no mask"),
    "an empty one": ("annotations/0/segmentation", [], "annotation None has no segmentation"),
    "a number for one": ("annotations/0/segmentation", 7, "has no segmentation.*got 7"),
    "an area in words": ("annotations/0/area", "big", "must have an area in pixels, got 'big'"),
    "an unknown category": ("annotations/0/category_id", 999, "names category_id 999, which the file does not list"),
    "a category in words": ("annotations/0/category_id", "18", "names category_id '18', which"),
    "no category": ("annotations/0/category_id", None, "must have category_id as a whole number, got None"),
    "an unknown image": ("annotations/0/image_id", 12, "names image_id 12, which"),
    "an image in words": ("annotations/0/image_id", "1", "names image_id '1', which"),
    "a list for an id": ("annotations/0/image_id", [1], r"image_id as a whole number, got \[1\]"),
    "annotations by name": ("annotations", {"a": 1}, "annotations must be a list, got dict"),
    "an annotation in words": ("annotations/0", "dog", "annotations, number 0, must be an object, got dog"),
    "an image without a name": ("images/0/file_name", None, "images, number 0, must be an object with the text"),
    "a side in words": ("images/4/width", "500", "image 000000000001.jpg must have a width of whole pixels, got '500'"),
    "a side too many": ("images/4/width", float("nan"), "a width of whole pixels, got nan"),
    "a category without a name": ("categories/0/name", None, "categories, number 0, must be an object"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_unfit_annotations_are_named(coco, case):
    path, value, message = UNFIT[case]
    change(coco, path, value, remove=value is None)
    with pytest.raises(ValueError, match=rf"instances_train2017\.json: .*{message}"):
        open_objects("coco", coco, "train")


OUTLINES = {
    "an odd number of coordinates": [[1, 2, 3, 4, 5]],
    "text": [["a", "b"]],
    "a polygon not in a list": [1, 2, 3, 4, 5, 6],
    "NaN": [[1, 2, float("nan"), 4, 5, 6]],
    "runs of another size": {"counts": [480 * 500], "size": [500, 480]},
    "too many runs": {"counts": [10**13], "size": [480, 500]},
    "negative runs": {"counts": [-1, 480 * 500 + 1], "size": [480, 500]},
    "no runs": {"size": [480, 500]},
}


@pytest.mark.parametrize("case", OUTLINES)
def test_an_outline_that_is_none_names_its_photograph_and_annotation(coco, case):
    change(coco, "annotations/0/segmentation", OUTLINES[case])
    change(coco, "annotations/0/id", 4711)
    with pytest.raises(ValueError, match=r"000000000001\.jpg: the segmentation of annotation 4711 is neither"):
        open_objects("coco", coco, "train")[0]
