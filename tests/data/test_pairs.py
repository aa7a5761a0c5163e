"""Label files to labels, and scenes resized without a new label value."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from quantjax.data.label_files import read_values
from quantjax.data.pairs import Pair, ScenePairs, resize_box, resized, table


@pytest.fixture
def pair(save, picture):
    def make(values, image=None):
        return Pair(save("a.png", picture() if image is None else image), save("a_labels.png", values), "a")

    return make


LOOKUP = table({0: 0, 2: 1, 255: 255})


def test_values_are_looked_up(pair, rng):
    values = rng.choice(np.array([0, 2, 255], np.uint8), (6, 8))
    row = ScenePairs([pair(values)], LOOKUP)[0]
    assert row["label"].dtype == np.uint8
    np.testing.assert_array_equal(row["label"], np.select([values == 0, values == 2], [0, 1], 255))
    assert row["name"] == "a"
    assert row["image"].shape == (6, 8, 3)


def test_the_error_names_unknown_values_and_the_known_ones(pair):
    values = np.zeros((6, 8), np.uint8)
    values[0, :3] = 7, 8, 40
    with pytest.raises(
        ValueError, match=r"a_labels\.png must hold only the label values 0, 2, 255, got also 7\.\.8, 40"
    ):
        ScenePairs([pair(values)], LOOKUP)[0]


def test_a_label_of_another_size_is_refused(pair):
    with pytest.raises(ValueError, match=r"must have the size of its image, 6 x 8, got 6 x 9"):
        ScenePairs([pair(np.zeros((6, 9), np.uint8))], LOOKUP)[0]


def test_a_damaged_label_is_named(pair):
    broken = pair(np.zeros((6, 8), np.uint8))
    broken.label.write_bytes(broken.label.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"a_labels\.png is named like an image but is none .* or is damaged"):
        ScenePairs([broken], LOOKUP)[0]


def test_palettes_keep_their_indices_and_equal_channels_are_one(save, tmp_path):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(values, "P")
    image.putpalette([255 - k for k in range(256) for _ in range(3)])
    image.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_values(tmp_path / "palette.png"), values)
    for channels in (3, 4):
        channels = [values] * 3 + [np.full_like(values, 255)] * (channels - 3)
        np.testing.assert_array_equal(read_values(save("grey.png", np.stack(channels, -1))), values)
    np.testing.assert_array_equal(read_values(save("deep.png", values.astype(np.uint16))), values)
    with pytest.raises(ValueError, match=r"must hold labels in 0\.\.255, got 0\.\.1100"):
        read_values(save("deeper.png", values.astype(np.uint16) * 100))


def colours(*hexadecimal: str) -> np.ndarray:
    """A colour map [1, N, 3]."""
    return np.array([[list(bytes.fromhex(text)) for text in hexadecimal]], np.uint8)


REFUSED_LABELS = {
    "fractions": ("a.tif", np.array([[1.5, 0.0]], np.float32), r"whole numbers, one label per pixel, got 1\.5"),
    "NaN": ("a.tif", np.array([[np.nan, 0.0]], np.float32), "got nan"),
    "infinity": ("a.tif", np.array([[np.inf, 0.0]], np.float32), "got inf"),
    "negative": ("a.tif", np.array([[-1.0, 0.0]], np.float32), r"labels in 0\.\.255, got -1\.0"),
    "32 bits": ("a.tif", np.array([[256, 0]], np.int32), r"labels in 0\.\.255, got 0\.\.256"),
    "any colour": ("a.png", colours("010203", "040506"), r"in colour \(2 colours\); write the number of each"),
    "RoadAnomaly": ("a.png", colours("ff4500", "000000"), r"colour map of RoadAnomaly; take labels_semantic\.png"),
    "SegmentMeIfYouCan": ("a.png", colours("ff6600", "90ee90"), r"of SegmentMeIfYouCan; take NAME_labels_semantic"),
    "Cityscapes": ("a.png", colours("804080", "dc143c", "000000"), "of Cityscapes; take"),
    "CamVid": ("a.png", colours("404000", "0080c0"), r"of CamVid; take SegNet's trainannot/"),
    "transparent": ("a.png", np.array([[[1, 1, 1, 0], [0, 0, 0, 255]]], np.uint8), "transparent pixels"),
}


@pytest.mark.parametrize("case", REFUSED_LABELS)
def test_labels_that_are_no_whole_numbers_are_refused(save, case):
    name, values, message = REFUSED_LABELS[case]
    with pytest.raises(ValueError, match=rf"{name} .*{message}"):
        read_values(save(name, values))


def test_whole_numbers_are_read_whatever_their_type(save):
    values = np.array([[0, 3, 255]], np.uint8)
    for dtype in (np.float32, np.int32, np.uint16):
        np.testing.assert_array_equal(read_values(save("a.tif", values.astype(dtype))), values)


def test_height_resizes_image_and_label_alike(pair):
    values = np.zeros((6, 8), np.uint8)
    values[3:, 4:] = 2
    image = np.repeat(values[..., None] * 100, 3, -1)
    row = ScenePairs([pair(values, image)], LOOKUP, height=12)[0]
    assert row["image"].shape == (12, 16, 3)
    np.testing.assert_array_equal(row["label"], np.kron(values // 2, np.ones((2, 2), np.uint8)))
    assert row["image"][2, 2, 0] == 0
    assert row["image"][10, 14, 0] == 200


def test_254_and_255_survive_every_size(rng):
    label = rng.choice(np.array([0, 3, 254, 255], np.uint8), (24, 30))
    row = {"image": np.zeros((24, 30, 3), np.uint8), "label": label, "name": ""}
    for height in (7, 11, 23, 24, 25, 48, 61):
        assert set(np.unique(resized(row, height)["label"])) == {0, 3, 254, 255}


def test_a_box_of_whole_pixels_at_its_own_size_is_a_cut(rng):
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    label = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    out = resize_box(image, label, (3, 5, 13, 25), (10, 20))
    np.testing.assert_array_equal(out[0], image[3:13, 5:25])
    np.testing.assert_array_equal(out[1], label[3:13, 5:25])


def test_a_height_of_zero_is_refused():
    with pytest.raises(ValueError, match="height must be at least 1, got 0"):
        ScenePairs([], LOOKUP, height=0)
