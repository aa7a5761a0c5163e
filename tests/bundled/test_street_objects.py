"""Objects for the streets: real photographs, two worlds of shapes, hidden from a detector that sees colour only."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_sample_image
from sklearn.metrics import average_precision_score

from quantjax.bundled import street_objects
from quantjax.bundled.street_objects import PHOTOGRAPHS, RECIPES, StreetObjects
from quantjax.bundled.street_textures import SCENE_TEXTURES
from quantjax.bundled.streets import Streets
from quantjax.data.mix import paste
from quantjax.rows import PASTED


@pytest.fixture(scope="module")
def objects():
    return {split: [source[k] for k in range(len(source))] for split in RECIPES for source in [StreetObjects(split)]}


def surfaces(rows):
    return [row["name"].split("_", 3)[3] for row in rows]


def test_rows_are_cut_to_their_masks(objects):
    assert {split: len(rows) for split, rows in objects.items()} == {"train": 120, "test": 60}
    for row in objects["train"] + objects["test"]:
        mask = row["mask"]
        assert mask.dtype == bool
        assert row["image"].dtype == np.uint8
        assert row["image"].shape == (*mask.shape, 3)
        assert 16 <= max(mask.shape) <= 60
        assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
        assert 0.12 < mask.mean() < 0.95
    names = [row["name"] for row in objects["train"] + objects["test"]]
    assert len(set(names)) == len(names)


def test_the_splits_share_no_photograph_and_no_shape(objects):
    used = {split: {PHOTOGRAPHS[s].path for s in surfaces(rows) if s in PHOTOGRAPHS} for split, rows in objects.items()}
    assert used["train"] == {"datasets/images/flower.jpg", "mpl-data/sample_data/grace_hopper.jpg"}
    assert used["test"] == {"datasets/images/china.jpg"}
    families = {split: {row["class_name"] for row in rows} for split, rows in objects.items()}
    assert {split: len(found) for split, found in families.items()} == {"train": 5, "test": 5}
    assert not families["train"] & families["test"]
    assert not set(RECIPES["train"].shapes.values()) & set(RECIPES["test"].shapes.values())


def test_half_of_the_test_objects_are_textured_like_the_scene(objects):
    shares = {split: np.mean([s in SCENE_TEXTURES for s in surfaces(rows)]) for split, rows in objects.items()}
    assert shares == {"train": pytest.approx(0.3), "test": pytest.approx(0.5)}
    assert {s for s in surfaces(objects["test"]) if s in SCENE_TEXTURES} == set(SCENE_TEXTURES)


def test_every_shape_comes_in_both_kinds_of_surface(objects):
    for rows in objects.values():
        kinds = {(row["class_name"], s in SCENE_TEXTURES) for row, s in zip(rows, surfaces(rows), strict=True)}
        assert len(kinds) == 10


def test_photographs_are_those_of_the_packages():
    np.testing.assert_array_equal(street_objects.photograph("temple"), load_sample_image("china.jpg"))
    np.testing.assert_array_equal(street_objects.photograph("dahlia"), load_sample_image("flower.jpg"))
    uniform, flag = street_objects.photograph("uniform"), street_objects.photograph("flag")
    assert uniform.shape == (250, 512, 3)
    assert flag.shape == (400, 150, 3)
    # The two parts of the portrait leave her face (rows 130 to 330, columns 150 to 380) out.
    assert all(left >= 380 or right <= 150 or top >= 330 for _, p, (left, top, right, _) in PHOTOGRAPHS.values()
               if "hopper" in p)  # fmt: skip


def test_an_object_shows_its_photograph(objects):
    # Light scales the channels by 0.6 * 0.8 to 1.15 * 1.3; the dahlia has nearly no blue in its petals, the temple's
    # picture is bright: means of many objects keep that order.
    def mean(rows, surface):
        return np.mean(
            [r["image"][r["mask"]].mean(0) for r, s in zip(rows, surfaces(rows), strict=True) if s == surface], 0
        )

    dahlia, uniform = mean(objects["train"], "dahlia"), mean(objects["train"], "uniform")
    temple = mean(objects["test"], "temple")
    assert dahlia[0] > dahlia[1] > dahlia[2]
    assert uniform.mean() < temple.mean()


def test_objects_are_the_same_every_time(objects):
    again = StreetObjects("test")
    for k in (31, 4):
        np.testing.assert_array_equal(again[k]["image"], objects["test"][k]["image"])
        np.testing.assert_array_equal(again[np.int32(k)]["mask"], objects["test"][k]["mask"])
    assert not np.array_equal(StreetObjects("test", seed=1)[4]["image"], objects["test"][4]["image"])


def pasted(split, count):
    """Pixels [P, 3] and whether they belong to an object [P]."""
    scenes, things, rng = Streets(split), StreetObjects(split), np.random.default_rng(0)
    rows = [paste(scenes[k], things[int(rng.integers(len(things)))], rng, strict=True) for k in range(count)]
    labels = np.stack([row["label"] for row in rows])
    return np.stack([row["image"] for row in rows]).reshape(-1, 3), labels.ravel() == PASTED


def test_colour_by_itself_does_not_find_them():
    """The likelihood ratio of colours, counted in 12^3 cells on training scenes, hardly helps on test scenes."""

    def cell(pixels):
        return np.ravel_multi_index((pixels.astype(int) * 12 // 256).T, (12, 12, 12))

    (pixels, unknown), (others, truth) = pasted("train", 60), pasted("test", 40)
    found, known = (np.bincount(cell(pixels[rows]), minlength=12**3) + 1.0 for rows in (unknown, ~unknown))
    precision = average_precision_score(truth, (found / known)[cell(others)])
    assert 0.005 < truth.mean() < 0.05
    assert precision < 0.15


def test_cutting_imports_neither_scikit_learn_nor_matplotlib():
    code = (
        "import sys\n"
        "from quantjax.bundled.street_objects import StreetObjects\n"
        "[StreetObjects('train')[k] for k in range(20)]\n"
        "assert not {'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_had_is_said(monkeypatch):
    with pytest.raises(ValueError, match="split must be one of test, train; got 'val'"):
        StreetObjects("val")
    with pytest.raises(IndexError, match=r"object 120 of train is not in 0\.\.119"):
        StreetObjects("train")[120]
    street_objects.photograph.cache_clear()
    monkeypatch.setattr(street_objects, "find_spec", lambda package: None)
    with pytest.raises(FileNotFoundError, match=r"china\.jpg, which ships with sklearn, but sklearn is missing"):
        StreetObjects("test")[0]
