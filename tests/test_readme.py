"""README's Python examples run as they stand; its test command is the one that is checked."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(autouse=True)
def as_users_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        yield


def block(word: str) -> str:
    [found] = [b for b in BLOCKS if word in b]
    return found


def test_a_flow_on_features_of_ones_own(rng):
    inliers = rng.normal(size=(512, 6)) @ rng.normal(size=(6, 6))
    np.save("features.npy", np.concatenate([inliers, np.full((1, 6), 30.0)]))
    scope: dict = {}
    exec(block("features.npy"), scope)
    scores = np.asarray(scope["scores"])
    assert scores.shape == (513,)
    assert np.isfinite(scores).all()
    assert scores[-1] > np.quantile(scores[:-1], 0.95)


def test_the_quantile_loss_in_a_foreign_loop():
    scope: dict = {}
    exec(block("quantile_nll(jnp.sum"), scope)
    drawn_from = {"mean": np.ones(3, np.float32), "log_std": np.full(3, np.log(2.0), np.float32)}
    assert float(scope["loss"](scope["params"])) < float(scope["loss"](drawn_from))


def test_the_detector_example_names_what_exists():
    from quantjax import detector

    code = block("detector.predictor")
    for name in re.findall(r"detector\.(\w+)\(", code):
        assert callable(getattr(detector, name))
    for field in re.findall(r"decision\.(\w+)", code):
        assert field in detector.Prediction._fields


def test_the_estimator_beside_a_segmentor_of_ones_own(monkeypatch):
    from quantjax.data import streets

    monkeypatch.setattr(streets, "ROWS", {"train": 4, "test": 1})
    scope: dict = {}
    exec(block("FrozenSegmentor"), scope)
    found, image = scope["maps"], scope["scenes"][0]["image"]
    assert found["lr"].shape == found["prediction"].shape == image.shape[:2]
    assert found["lr"].std() > 0
    assert np.isfinite(found["lr"]).all()


def test_a_backbone_of_ones_own():
    scope: dict = {}
    exec(block("class Strided"), scope)
    assert scope["logits"].shape == (2, 32, 32, 3)
    assert np.isfinite(scope["logits"]).all()
