"""The main command with each objective of stage 1, on forty images of two classes, and what it refuses."""

import json
from typing import get_args, get_type_hints

import jax
import numpy as np
import pytest

from experiments.images.config import QuantOD, identity, resolve
from experiments.images.sets import content, open_sources
from experiments.quantod import main
from quantjax.classification import OBJECTIVES
from quantjax.convert.files import read_safetensors
from quantjax.report import read_jsonl
from quantjax.trees import flatten


@pytest.fixture(scope="module", autouse=True)
def loose_ranks():
    """The experiments run as users run them."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of blots, outliers to judge by, and outliers to train with, which have both splits."""
    place, rng = tmp_path_factory.mktemp("objectives"), np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 90, (40, 8, 8, 3))
    images[labels == 0, :4] += 120
    images = images.astype(np.uint8)
    np.savez(place / "mine.npz", train_images=images, train_labels=labels, test_images=images + 1, test_labels=labels)
    np.savez(place / "other.npz", images=255 - images[:20])
    auxiliary = rng.integers(0, 256, (12, 8, 8, 3), np.uint8)
    np.savez(place / "beside.npz", train_images=auxiliary[:8], test_images=auxiliary[8:])
    return place


def flags(folder, *more):
    given = ["--inlier", "mine.npz", "--outliers", "other.npz", "--data-dir", folder, "--workdir", folder / "runs"]
    given += ["--backbone", "wrn10_1", "--image-size", "8", "--batch-size", "16", "--epochs", "3", "--scores", "energy"]
    return [*map(str, given), *more]


def exposed(name):
    return ["--objective", name, *(["--auxiliary", "beside.npz"] if OBJECTIVES[name].auxiliary else [])]


@pytest.fixture(scope="module")
def first(folder):
    """The folder of a finished run with virtual outliers."""
    assert main(flags(folder, "--run", "vos", *exposed("vos"))) == 0
    return folder / "runs" / "vos"


def test_virtual_outliers_leave_a_classifier_like_any_other(first):
    results = json.loads((first / "results.json").read_text())
    assert results["calibration"]["source"] == "training images in neither stage"
    assert results["config"]["objective"] == "vos"
    assert "auxiliary" not in results["config"]
    assert not [name for name in flatten(read_safetensors(first / "classifier.safetensors")) if "objective" in name]


@pytest.mark.parametrize("name", ["logit_norm", "outlier_exposure", "energy_margin"])
def test_a_classifier_goes_on(folder, first, name, capsys):
    """All rows train, so half of the test inliers calibrates; weights move by little, at a hundredth of the rate."""
    weights = first / "classifier.safetensors"
    assert main(flags(folder, "--run", name, "--weights", str(weights), *exposed(name))) == 0
    printed = capsys.readouterr().out
    assert ("outliers to train with: 8" in printed) == (OBJECTIVES[name].auxiliary > 0)  # its training images
    results = json.loads((folder / "runs" / name / "results.json").read_text())
    assert results["calibration"]["source"] == "half of the test inliers"
    assert results["config"]["objective"] == name
    log = read_jsonl(folder / "runs" / name / "metrics.jsonl")
    assert [row["epoch"] for row in log if row["stage"] == "classifier"] == [1, 2, 3]
    before = flatten(read_safetensors(weights))
    after = flatten(read_safetensors(folder / "runs" / name / "classifier.safetensors"))
    kernel = "params/head/linear/kernel"
    assert 0.0 < np.abs(after[kernel] - before[kernel]).max() < 0.1


def test_the_objectives_of_the_command_are_those_of_the_library():
    assert set(get_args(get_type_hints(QuantOD)["objective"])) == set(OBJECTIVES)


def test_outliers_to_train_with_count_by_content(folder):
    how = {"inlier": "mine.npz", "outliers": ("other.npz",), "data_dir": folder}
    plain = resolve(QuantOD(**how), accelerator=False)
    other = resolve(QuantOD(**how, objective="outlier_exposure", auxiliary="beside.npz"), accelerator=False)
    found = [identity(config) | content(config, open_sources(config)) for config in (plain, other)]
    assert found[1].keys() - found[0].keys() == {"objective", "auxiliary", "auxiliary_content"}
    assert all(found[1][key] == value for key, value in found[0].items())


def test_outliers_to_train_with_may_not_be_judged_by_under_another_name(folder, capsys):
    with np.load(folder / "other.npz") as other:
        np.savez(folder / "copy.npz", images=other["images"][::-1])
    command = flags(folder, "--objective", "outlier_exposure", "--auxiliary", "copy.npz")
    assert main(command) == 1
    assert "--auxiliary copy.npz and --outliers other.npz hold the same images" in capsys.readouterr().err
