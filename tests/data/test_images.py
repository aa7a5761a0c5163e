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
    with pytest.raises(ValueError, match=r"notes\.png is named like an image but is none; remove it"):
        read_image(tmp_path / "notes.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_named(tmp_path, rng, suffix):
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be decoded .*replace it"):
        read_image(tmp_path / f"cut.{suffix}")
