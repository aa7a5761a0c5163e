"""The main command on class tokens of a frozen transformer: stage 1 is a linear probe on cached features."""

import contextlib
import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images import classifier, features
from experiments.images.config import QuantOD, resolve
from experiments.quantod import main
from quantjax.convert.files import read_safetensors, write_safetensors
from quantjax.extractors import BACKBONES, FEATURE_BACKBONES, IMAGENET
from quantjax.extractors.probe import join, split
from quantjax.report import read_jsonl

NAME = "vit_tiny_scratch"


@pytest.fixture(scope="module", autouse=True)
def loose_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A transformer's weights, random, for positions of another grid than the run's."""
    file = tmp_path_factory.mktemp("published") / "transformer.safetensors"
    write_safetensors(file, random_params())
    return file


def random_params():
    init = FEATURE_BACKBONES[NAME].build().init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        normal = rng.normal(size=leaf.shape).astype(np.float32)
        return np.ones(leaf.shape, np.float32) if name == "scale" else 0.0 * normal if name == "bias" else 0.05 * normal

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def run(published, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("probe")
    command = ["--workdir", str(workdir), "--backbone", NAME, "--weights", str(published), "--image-size", "28"]
    command += ["--flow-epochs", "2", "--blocks", "1", "--width", "32", "--epochs", "15"]
    assert main([*command, "--scores", "quantod", "odin", "--outliers", "gratings"]) == 0
    return next(workdir.glob("quantod-*"))


@pytest.mark.long
def test_the_command_runs_whole_on_class_tokens(run):
    results = json.loads((run / "results.json").read_text())
    assert {row["method"] for row in results["rows"]} == {"quantod", "odin"}
    assert results["accuracy"] > 60.0  # of eight digits, from random features
    assert results["calibration"]["source"] == "training images in neither stage"
    assert {row["method"]: row["auroc"] for row in results["rows"]}["quantod"] > 90.0
    stages = [row["stage"] for row in read_jsonl(run / "metrics.jsonl")]
    assert (stages.count("classifier"), stages.count("flow")) == (15, 2)


def test_the_transformer_stays_and_sees_every_image_once(run, published):
    kept, head = split(read_safetensors(run / "classifier.safetensors"))
    given = read_safetensors(published)["params"]
    assert kept.pop("positions").shape[:2] == (2, 2)
    assert jax.tree.all(jax.tree.map(np.array_equal, kept, {k: given[k] for k in kept}))
    assert head["kernel"].shape == (96, 8)
    cached = list((run.parent / "cache").glob("features-*/plain.npz"))
    assert len(cached) == 3  # training set, inliers and outliers: that of stage 1 is the same


def test_a_finished_probe_skips_stage_one(run):
    file = run / "classifier.safetensors"
    config = resolve(QuantOD(backbone=NAME, weights=file, image_size=28), accelerator=False)
    again = classifier.read_weights(config, 8)
    assert again.finished
    assert again.preprocessing == IMAGENET
    assert jax.tree.all(jax.tree.map(np.array_equal, again.variables, read_safetensors(file)))
    alone = dataclasses.replace(config, preprocessing="clip")
    assert classifier.read_weights(alone, 8).preprocessing != IMAGENET
    with pytest.raises(ValueError, match="is for 8 classes, but num_classes is 5"):
        classifier.read_weights(config, 5)


def test_the_saved_detector_repeats_the_decisions(run):
    from quantjax import data, detector
    from quantjax.data.sources import open_source

    images, _ = data.load(open_source("gratings", None, split="test"), size=28)
    loaded = detector.load(run / "detector")
    assert (loaded.backbone, loaded.image_size, len(loaded.class_names)) == (NAME, 28, 8)
    decided = detector.predictor(loaded, batch_size=32).predict(images[:32])
    assert decided.outlier.mean() > 0.8


@contextlib.contextmanager
def silent(title):
    yield lambda done, total, **extra: None


def test_one_cache_serves_every_probe(tmp_path, rng):
    """Features are the transformer's; logits are of the head at hand, from the cache or not."""
    full = BACKBONES[NAME].build(3)
    model = full.clone(build=partial(full.build, depth=1, layers=(0,)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 14, 14, 3)))
    transformer, _ = split(jax.tree.map(lambda leaf: 0.1 * rng.normal(size=leaf.shape).astype("f"), shapes))
    heads = [{"kernel": rng.normal(size=(96, 3)).astype("f"), "bias": np.arange(3, dtype="f")} for _ in range(2)]
    one, two = (features.build(model, join(transformer, h), IMAGENET, 14, 4, "float32") for h in heads)
    assert one.fingerprint == two.fingerprint
    images = rng.integers(0, 256, (5, 14, 14, 3), np.uint8)
    first = features.extract(one, "a", images, tmp_path, silent)
    second = features.extract(two._replace(run=None), "a", images, tmp_path, silent)
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_allclose(first.logits, first.features @ heads[0]["kernel"] + np.arange(3, dtype="f"), atol=1e-5)
    assert np.abs(first.logits - second.logits).max() > 0.1
    logits, _ = one.run(one.variables, images)
    np.testing.assert_allclose(first.logits, logits, atol=1e-4)


def settings(tmp_path, **change):
    (tmp_path / "w.npz").touch()
    return resolve(QuantOD(**{"weights": tmp_path / "w.npz", **change}), accelerator=False)


def test_defaults_of_transformers(tmp_path):
    probe = settings(tmp_path, backbone="dinov2_vits14")
    assert (probe.image_size, probe.network_size, probe.epochs, probe.score_batch_size) == (32, 224, 50, 16)
    assert settings(tmp_path, backbone="clip_vitb16", inlier="mine=/x").image_size == 224
    assert resolve(QuantOD(), accelerator=False).image_size == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_size": 32, "inlier": "mine=/x"},
            "--image-size must be a multiple of 14, the patch of dinov2_vits14, got 32; give 28",
        ),
        ({"network_size": 32}, "--network-size must be a multiple of 14, the patch of dinov2_vits14, got 32; give 28"),
        ({"weights": None}, "--backbone dinov2_vits14 is frozen and needs --weights FILE"),
        ({"epochs": 0}, "--epochs must lie"),
    ],
)
def test_probes_that_cannot_run(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, backbone="dinov2_vits14", **change)
