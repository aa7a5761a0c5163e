import jax
import numpy as np
import pytest

from experiments.progress import Progress
from experiments.scenes import calibration, evaluation, networks, outcome
from experiments.scenes.config import UEM, resolve
from experiments.scenes.sets import Sets
from quantjax import detector
from quantjax.detector.scenes import template
from quantjax.rows import IGNORED

CLASSES = ("road", "sky", "car")


def draw(path, leaf):
    rng = np.random.default_rng(sum(leaf.shape))
    spread = "var" in str(path[-1]) or "deviation" in str(path[-1])
    size = [max(length, 0) for length in leaf.shape]
    return (rng.uniform(0.5, 1.5, size) if spread else 0.2 * rng.standard_normal(size)).astype(leaf.dtype)


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(1)
    return [
        {
            "image": rng.integers(0, 256, (28, 42, 3), dtype=np.uint8),
            "label": rng.choice([0, 1, 2, IGNORED], (28, 42)).astype(np.uint8),
        }
        for _ in range(5)
    ]


@pytest.mark.parametrize("preset", ["short", "paper"])
def test_the_detector_of_a_run_scores_as_the_run_and_keeps_what_it_promises(tmp_path, scenes, preset):
    settings = UEM(
        crop=(28, 28), stride=(14, 14), channels=8, preset=preset, window_batch=2, variant="g-g", image_height=28
    )
    config = resolve(settings, accelerator=False)
    network, estimator = networks.segmentor(config, 3), networks.estimator(config)
    empty = ({}, {})
    if preset == "paper":
        empty = ({"standardisation": {"mean": np.float32(-9.0), "deviation": np.float32(4.0)}}, {})
    shapes = template(calibration.build(config, network, estimator, empty, CLASSES, {}))
    arrays = jax.tree_util.tree_map_with_path(draw, shapes)
    variables = (arrays["segmentor"] | empty[0], arrays["estimator"])
    sets = Sets([], scenes, [], {}, CLASSES)
    record = outcome.save_detector(tmp_path / "d", config, network, estimator, variables, {}, sets, Progress)
    loaded = detector.load(tmp_path / "d")

    run = evaluation.make_scorer(config, network, estimator, variables[0])
    got, wanted = detector.predict(loaded, scenes[0]["image"], batch_size=2), run(variables, scenes[0]["image"])
    np.testing.assert_allclose(got.score, wanted["lr"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(got.label, wanted["prediction"])

    half = record["n"]
    labelled = [int((row["label"] != IGNORED).sum()) for row in scenes]
    assert half in {a + b for i, a in enumerate(labelled) for b in labelled[i + 1 :]}  # two scenes of the five
    assert record["promised_tpr"] == 99.0
    assert loaded.threshold == record["threshold"]
    assert loaded.image_height == 28
    score = detector.predictor(loaded, batch_size=2).score
    kept = np.concatenate([(score(row["image"]) <= loaded.threshold)[row["label"] != IGNORED] for row in scenes])
    inside = np.ceil(0.99 * (half + 1))  # of the calibrating half
    assert kept.sum() == round(inside + record["achieved_tpr"] / 100.0 * (len(kept) - half))
