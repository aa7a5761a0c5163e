"""Cut-outs with alpha and photographs with masks: cropped to the object, split by name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from quantjax.data.coco import coco_objects
from quantjax.data.cutouts import Cutouts, class_of, cropped, folder_objects


@pytest.fixture
def alpha():
    values = np.zeros((6, 8), np.uint8)
    values[1:4, 2:7] = 255
    values[1, 2] = 127
    return values


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_cut_out_is_its_opaque_box(save, picture, alpha, suffix):
    pixels = picture()
    pixels[alpha == 0] = 0  # WebP drops the colour of transparent pixels
    file = save(f"n01_golden_retriever.{suffix}", np.dstack([pixels, alpha]))
    row = Cutouts([file])[0]
    np.testing.assert_array_equal(row["mask"], alpha[1:4, 2:7] >= 128)
    np.testing.assert_array_equal(row["image"][row["mask"]], pixels[1:4, 2:7][row["mask"]])
    assert (row["name"], row["class_name"]) == ("n01_golden_retriever", "golden retriever")


def test_the_first_two_thirds_by_name_are_for_training(save, picture):
    solid = np.dstack([picture(), np.full((6, 8), 255, np.uint8)])
    for k in range(10):
        folder = save(f"things/{k:02d}_{'car' if k == 3 else 'dog'}.png", solid).parent
    names = {
        split: [folder_objects(folder, split)[i]["name"][:2] for i in range(n)]
        for split, n in [("train", 6), ("test", 4)]
    }
    assert names == {"train": ["00", "01", "02", "03", "04", "05"], "test": ["06", "07", "08", "09"]}
    assert len(folder_objects(folder, "train", ("car",))) == 5
    assert len(folder_objects(folder, "test", ("car",))) == 4


def test_photographs_with_masks(save, picture, tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[2:, :3] = 7
    pixels = picture()
    for name in ("a", "b", "c"):
        save(f"images/{name}.png", pixels)
        save(f"masks/{name}.png", mask)
    row = folder_objects(tmp_path, "train")[1]
    assert row["mask"].all()
    np.testing.assert_array_equal(row["image"], pixels[2:, :3])
    save("masks/a.png", mask[:5])
    with pytest.raises(ValueError, match=r"a\.png must have the size of its image, 6 x 8, got 5 x 8"):
        folder_objects(tmp_path, "train")[0]
    (tmp_path / "masks/c.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"an image without its mask: .*c\.png is missing"):
        folder_objects(tmp_path, "test")


def coloured(mask: np.ndarray, *colour: int) -> np.ndarray:
    return (mask[..., None] > 0) * np.array(colour, np.uint8)


def test_every_channel_of_a_mask_counts(save, picture, tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[2:, :3] = 1
    pixels = picture()
    kinds = [coloured(mask, 0, 255, 0), coloured(mask, 0, 0, 9), mask.astype(bool), mask * np.uint16(300)]
    for k, values in enumerate(kinds):
        save(f"images/{k}.png", pixels)
        save(f"masks/{k}.png", values)
        if k == 3:
            with pytest.raises(ValueError, match=r"3\.png must hold labels in 0\.\.255, got 0\.\.300"):
                folder_objects(tmp_path, "test")[1]
    for k in range(3):
        row = folder_objects(tmp_path, "train" if k < 2 else "test")[k % 2]
        np.testing.assert_array_equal(row["image"], pixels[2:, :3])
    save("masks/0.png", np.dstack([coloured(mask, 9, 9, 9), mask]))
    with pytest.raises(ValueError, match=r"0\.png has transparent pixels"):
        folder_objects(tmp_path, "train")[0]


def test_own_photographs_are_turned_upright_and_coco_s_are_not(save, picture, tmp_path):
    pixels = picture()
    for where, shape in (("own", (8, 6)), ("coco", (6, 8))):
        mask = np.zeros(shape, np.uint8)
        mask[0, 0] = 255
        names = ("images/a.jpg", "masks/a.png") if where == "own" else (
            "val2017/a.jpg", "annotations/ood_seg_val2017/a.png")  # fmt: skip
        file = save(f"{where}/{names[0]}", pixels)
        turned(file, 6)
        save(f"{where}/{names[1]}", mask)
        image = np.asarray(Image.open(file))
        wanted = image[-1, 0] if where == "own" else image[0, 0]  # 6: the first column comes from the lowest row
        objects = (
            folder_objects(tmp_path / where, "test") if where == "own" else coco_objects(tmp_path / where, "test", ())
        )
        np.testing.assert_array_equal(objects[0]["image"], wanted[None, None])


def turned(file, orientation):
    """Write an EXIF orientation into a picture."""
    image = Image.open(file)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(file, exif=exif)


def test_files_that_are_no_cut_outs_are_named(save, picture, tmp_path):
    with pytest.raises(ValueError, match=r"plain\.png cannot be read as a cut-out \(it has no alpha channel"):
        Cutouts([save("plain.png", picture())])[0]
    empty = save("empty.png", np.dstack([picture(), np.zeros((6, 8), np.uint8)]))
    with pytest.raises(ValueError, match="the mask of empty marks no pixel"):
        Cutouts([empty])[0]
    (tmp_path / "text.webp").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.webp is named like an image but is none"):
        Cutouts([tmp_path / "text.webp"])[0]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="nothing holds no object for split 'train'"):
        folder_objects(tmp_path / "nothing", "train")


def test_names_and_boxes(tmp_path):
    assert class_of(tmp_path / "n02_polar_bear.webp") == "polar bear"
    assert class_of(tmp_path / "vase.png") == "vase"
    mask = np.eye(5, dtype=bool)
    assert cropped(np.zeros((5, 5, 3), np.uint8), mask, "", "")["mask"].shape == (5, 5)
