"""Decoding, resizing and cropping of single images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from quantjax.data.images import fit, read_image, resize_and_crop, to_rgb


@pytest.mark.parametrize("shape", ["40x57", "64x64", "33x32", "20x27", "101x75", "32x37"])
def test_resize_and_crop_equal_torchvision(golden, shape):
    record = golden("resize_crop")
    np.testing.assert_array_equal(resize_and_crop(record[f"in_{shape}"], 32), record[f"out_{shape}"])


def test_an_image_of_the_right_size_is_untouched(rng):
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit(image, 32), image)


def test_every_mode_becomes_rgb(tmp_path, rng):
    grey = rng.integers(0, 256, (5, 4), dtype=np.uint8)
    colour = np.stack([grey, grey // 2, grey // 3], -1)
    palette = Image.fromarray(grey, "L").convert("P")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([colour, np.full_like(grey, 9)])).save(tmp_path / "alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 7).save(tmp_path / "deep.png")
    palette.save(tmp_path / "palette.png")

    three_times = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), three_times)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), three_times)
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), colour)


def test_arrays_become_rgb(rng):
    four = rng.integers(0, 256, (3, 2, 4), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(four), four[..., :3])
    np.testing.assert_array_equal(to_rgb(four[..., 0]), np.repeat(four[..., :1], 3, -1))
    np.testing.assert_array_equal(to_rgb(four[..., :1]), np.repeat(four[..., :1], 3, -1))
    with pytest.raises(ValueError, match=r"uint8 in 0\.\.255, got float64"):
        to_rgb(four / 255)
    with pytest.raises(ValueError, match=r"got \[3, 2, 2\]"):
        to_rgb(four[..., :2])


def test_a_text_file_called_png_is_named(tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"notes\.png is named like an image but is none of the kinds .*; remove it"):
        read_image(tmp_path / "notes.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_named(tmp_path, rng, suffix):
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be decoded .*replace it"):
        read_image(tmp_path / f"cut.{suffix}")


def test_the_kind_of_a_file_is_read_from_its_content_and_only_named_kinds_are_decoded(tmp_path, rng):
    pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), pixels)
    for kind in ("TGA", "PCX", "SGI", "ICO"):
        Image.fromarray(pixels).save(tmp_path / "b.png", format=kind)
        with pytest.raises(ValueError, match=r"b\.png is named like an image but is none of the kinds"):
            read_image(tmp_path / "b.png")


# EXIF's orientations: how the stored pixels are turned to stand upright.
TURNS = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_photographs_stand_upright(tmp_path, rng, suffix, orientation):
    file = tmp_path / f"a.{suffix}"
    image = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    image.save(file)
    stored = np.asarray(Image.open(file).convert("RGB"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(file, exif=exif)
    np.testing.assert_array_equal(read_image(file), TURNS[orientation](stored))
    if suffix != "tif":  # Pillow turns a TIFF itself
        np.testing.assert_array_equal(read_image(file, upright=False), stored)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_leaves_the_picture_readable(tmp_path, rng):
    pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xffnothing")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


DEEP = {  # name, values -> uint8, or the message
    "16 bits": ("png", np.array([[0, 255, 256, 65535]], np.uint16), [0, 0, 1, 255]),
    "16 bits, TIFF": ("tif", np.array([[0, 255, 256, 65535]], np.uint16), [0, 0, 1, 255]),
    "32 bits, 0..255": ("tif", np.array([[0, 1, 128, 255]], np.int32), [0, 1, 128, 255]),
    "32 bits, 0..65535": ("tif", np.array([[0, 255, 256, 65535]], np.int32), [0, 0, 1, 255]),
    "float, 0..1": ("tif", np.array([[0.0, 0.5, 1.0, 0.1]], np.float32), [0, 128, 255, 26]),
    "float, 0..255": ("tif", np.array([[0.0, 1.4, 254.6, 7.0]], np.float32), [0, 1, 255, 7]),
    "32 bits, more": ("tif", np.array([[0, 65536]], np.int32), r"0\.\.65535 \(int32\), got 0\.\.65536"),
    "32 bits, negative": ("tif", np.array([[0, -1]], np.int32), r"got -1\.\.0"),
    "float, more": ("tif", np.array([[0, 256.0]], np.float32), r"0\.\.255 \(float32\), got 0\.0\.\.256\.0; scale them"),
    "float, negative": ("tif", np.array([[0, -0.5]], np.float32), r"got -0\.5"),
    "float, NaN": ("tif", np.array([[0, np.nan]], np.float32), "got nan"),
    "float, infinite": ("tif", np.array([[0, np.inf]], np.float32), "got 0.0..inf"),
}


@pytest.mark.parametrize("case", DEEP)
def test_deep_grey_keeps_its_range_by_one_rule(tmp_path, case):
    suffix, values, wanted = DEEP[case]
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(file)
    if isinstance(wanted, str):
        with pytest.raises(ValueError, match=rf"a\.tif: grey values must lie in .*{wanted}"):
            read_image(file)
    else:
        np.testing.assert_array_equal(read_image(file)[0], np.array(wanted, np.uint8)[:, None].repeat(3, 1))
