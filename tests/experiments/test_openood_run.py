"""--protocol openood from image lists to CSV files, on a benchmark of drawn images; what cannot run says so."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.images.config import QuantOD, identity, resolve
from experiments.images.sets import content, load_sets, open_sources
from experiments.progress import Progress
from experiments.quantod import main
from quantjax import data, detector, metrics
from quantjax.data.image_lists import image_list

CLASSES, SIDE = 3, 12
SIZES = {
    "train_cifar10": 120, "val_cifar10": 40, "test_cifar10": 50, "test_cifar10c": 30, "test_cifar100": 24,
    "test_tin": 20, "test_mnist": 16, "test_svhn": 15, "test_texture": 14, "test_places365": 13,
}  # fmt: skip
NEAR, FAR = ("cifar100", "tin"), ("mnist", "svhn", "texture", "places365")
METHODS = ("msp", "energy", "mahalanobis")


def picture(name, label, rng):
    """A class is a colour; near outliers are two colours mixed, far ones noise; shifted inliers are darker."""
    colours = 200.0 * np.eye(CLASSES)
    if name.startswith("test_") and name.removeprefix("test_") in FAR:
        return rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    colour = colours[label] if label >= 0 else 0.5 * (colours[0] + colours[1])
    drawn = colour * (0.6 if name == "test_cifar10c" else 1.0) + 25.0 * rng.normal(size=(SIDE, SIDE, 3))
    return np.clip(drawn, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """data/ as OpenOOD lays it out, the training list class by class."""
    root, rng = tmp_path_factory.mktemp("openood"), np.random.default_rng(7)
    lists = root / "data/benchmark_imglist/cifar10"
    lists.mkdir(parents=True)
    for name, count in SIZES.items():
        inlier = "cifar10" in name.replace("cifar100", "")
        labels = np.sort(np.arange(count) % CLASSES) if inlier else np.full(count, -1)
        folder = root / "data/images_classic" / name
        folder.mkdir(parents=True)
        lines = []
        for k, label in enumerate(labels.tolist()):
            Image.fromarray(picture(name, label, rng)).save(folder / f"{k:03d}.png")
            lines.append(f"{name}/{k:03d}.png {label}\n")
        (lists / f"{name}.txt").write_text("".join(lines))
    return root


def command(site, *flags):
    lists = str(site / "data/benchmark_imglist/cifar10")
    small = ["--backbone", "wrn10_1", "--epochs", "3", "--batch-size", "40", "--image-size", str(SIDE)]
    where = ["--workdir", str(site / "runs"), "--protocol", "openood", "--image-lists", lists]
    return [*where, *small, "--scores", *METHODS, *flags]


@pytest.fixture(scope="module")
def finished(site):
    with jax.numpy_rank_promotion("allow"):
        assert main(command(site, "--full-spectrum")) == 0
    [folder] = (site / "runs").glob("quantod-cifar10-*")
    return folder, json.loads((folder / "results.json").read_text())


def test_rows_say_near_and_far(finished):
    _, results = finished
    assert results["groups"] == {"near": list(NEAR), "far": list(FAR)}
    assert results["outliers"] == [*NEAR, *FAR]
    assert {(row["outlier"], row["group"]) for row in results["rows"]} == {
        *((name, "near") for name in NEAR),
        *((name, "far") for name in FAR),
    }
    assert (results["inlier"], len(results["rows"])) == ("cifar10", 6 * len(METHODS))
    assert results["accuracy"] > 90.0


def scores_of(folder, lists, name):
    """Of the saved detector on the images of a list."""
    images, _ = data.load(image_list(lists / f"{name}.txt"), SIDE)
    return detector.predictor(detector.load(folder / "detector")).predict(images).score


def test_thresholds_come_from_the_validation_list_and_rates_from_the_lists(site, finished):
    folder, results = finished
    lists = site / "data/benchmark_imglist/cifar10"
    name = json.loads((folder / "detector/detector.json").read_text())["score"]["name"]
    calibration = results["calibrations"][name]
    assert (calibration["source"], calibration["n"]) == ("inliers of the validation list", SIZES["val_cifar10"])
    validation, test, shifted, tin, mnist = (
        scores_of(folder, lists, one)
        for one in ("val_cifar10", "test_cifar10", "test_cifar10c", "test_tin", "test_mnist")
    )
    # the ceil(41 * 0.95) = 39th smallest of 40
    np.testing.assert_allclose(calibration["threshold"], np.sort(validation)[38], rtol=1e-5)
    np.testing.assert_allclose(calibration["achieved_tpr"], 100.0 * np.mean(test <= calibration["threshold"]))
    rows = {row["outlier"]: row for row in results["rows"] if row["method"] == name}
    full = {row["outlier"]: row for row in results["full_spectrum"]["rows"] if row["method"] == name}
    for outlier, scores in (("tin", tin), ("mnist", mnist)):
        np.testing.assert_allclose(rows[outlier]["auroc"], 100.0 * metrics.auroc(test, scores), atol=0.2)
        both = np.concatenate([test, shifted])
        np.testing.assert_allclose(full[outlier]["auroc"], 100.0 * metrics.auroc(both, scores), atol=0.2)


def test_csv_files_repeat_the_results(finished):
    folder, results = finished
    for method in METHODS:
        for kind, rows, accuracy in (
            ("ood", results["rows"], results["accuracy"]),
            ("fsood", results["full_spectrum"]["rows"], results["full_spectrum"]["accuracy"]),
        ):
            lines = {line[0]: line[1:] for line in csv.reader((folder / f"openood/{kind}/{method}.csv").open())}
            assert list(lines) == ["", *NEAR, "nearood", *FAR, "farood"]
            near = [row["auroc"] for row in rows if row["method"] == method and row["outlier"] in NEAR]
            assert lines["nearood"][1] == f"{np.mean(near):.2f}"
            assert {line[4] for name, line in lines.items() if name} == {f"{accuracy:.2f}"}
    assert results["full_spectrum"]["inliers"] == ["cifar10c"]
    assert "| Method | cifar100 | tin | near average | mnist |" in (folder / "results.md").read_text()


def settings(site, **changes):
    given = {"protocol": "openood", "image_lists": site / "data/benchmark_imglist/cifar10", "image_size": SIDE}
    return resolve(QuantOD(**{**given, **changes}), accelerator=False)


def test_the_sets_are_those_of_the_lists(site):
    config = settings(site, full_spectrum=True)
    sets = load_sets(config, Progress)
    found = {
        "train_cifar10": sets.train_images, "val_cifar10": sets.validation_images, "test_cifar10": sets.test_images,
        "test_cifar10c": sets.shifted["cifar10c"].images,
    } | {f"test_{name}": images for name, images in sets.outliers.items()}  # fmt: skip
    assert {name: len(images) for name, images in found.items()} == SIZES
    assert sorted(np.bincount(sets.train_labels)) == [40, 40, 40]
    assert len(np.unique(sets.train_labels[-20:])) == CLASSES  # mixed, as the list goes class by class
    folder = site / "data/images_classic"
    np.testing.assert_array_equal(sets.outliers["tin"][3], np.asarray(Image.open(folder / "test_tin/003.png")))
    np.testing.assert_array_equal(sets.test_images[7], np.asarray(Image.open(folder / "test_cifar10/007.png")))


def test_what_is_computed_is_known_by_the_lists_content_and_not_their_place(site):
    config = settings(site)
    assert "image_lists" not in identity(config)
    assert "full_spectrum" not in identity(config)
    assert identity(settings(site, full_spectrum=True))["full_spectrum"] is True
    assert content(config, open_sources(config)).keys() == {"inlier_content", "outliers_content", "lists_content"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_lists": None}, "--protocol openood needs --image-lists FOLDER"),
        ({"protocol": "full"}, "--image-lists belongs to --protocol openood"),
        ({"protocol": "full", "image_lists": None, "full_spectrum": True}, "--full-spectrum belongs to --protocol"),
        ({"inlier": "svhn"}, r"takes its sets from .*, inliers cifar10, outliers cifar100 tin mnist svhn .*: leave"),
        ({"outliers": ("svhn",)}, "leave --inlier and --outliers out"),
    ],
)
def test_flags_that_contradict_the_lists_are_refused(site, changes, says):
    with pytest.raises(ValueError, match=says):
        settings(site, **changes)


def test_a_benchmark_has_the_sizes_of_its_inliers(site):
    config = settings(site, image_size=None)
    assert (config.inlier, config.image_size, config.backbone) == ("cifar10", 32, "wrn40_2")
    assert config.outliers == (*NEAR, *FAR)


def test_images_that_are_cut_already_stay_as_they_are(tmp_path):
    """ImageNet-C has the network's size; all others get a short side of 12, then the middle 8."""
    ramp = np.repeat(np.arange(8, dtype=np.uint8)[None, :, None] * 30, 8, axis=0).repeat(3, axis=2)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    names = ("ssb_hard", "ninco", "inaturalist", "textures", "openimage_o")
    names += ("imagenet200", "imagenet200_v2", "imagenet200_c", "imagenet200_r")
    for stem in (*(f"test_{name}" for name in names), "train_imagenet200", "val_imagenet200"):
        (tmp_path / f"{stem}.txt").write_text("ramp.png 0\nramp.png 1\n")
    for name in names[:5]:
        Image.fromarray(255 - ramp).save(tmp_path / f"{name}.png")
        (tmp_path / f"test_{name}.txt").write_text(f"{name}.png -1\n")
    changes = {"image_lists": tmp_path, "image_size": 8, "short_side": 12, "full_spectrum": True}
    sets = load_sets(resolve(QuantOD(protocol="openood", **changes), accelerator=False), Progress)
    np.testing.assert_array_equal(sets.shifted["imagenet_c"].images[0], ramp)
    assert sets.shifted["imagenet_v2"].images[0, 0, 0, 0] > 20  # two of twelve columns are cut away
    assert (sets.test_images[0] == sets.shifted["imagenet_r"].images[1]).all()
