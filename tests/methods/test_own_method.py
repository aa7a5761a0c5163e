"""A method of one's own is one value in one file: fitted, saved, loaded, used, listed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import detector, methods
from quantjax.methods import Fitted, Method


def fit(rows, settings):
    return Fitted(settings, {"centre": rows.features.mean(0)})


def score(settings, params, view):
    """Distance to the centre of all training features, to some power."""
    return jnp.linalg.norm(view.output.features - params["centre"][None], axis=1) ** settings["power"]


def template(settings, dimension, num_classes):
    return {"centre": jax.ShapeDtypeStruct((dimension,), jnp.float32)}


CENTRE = Method(
    "centre", "nobody", ("features",), score, defaults={"power": 1.0}, learns_from=("features",),
    fit=fit, template=template,
)  # fmt: skip


@pytest.fixture
def registered():
    yield methods.register(CENTRE)
    methods.unregister("centre")


def test_a_method_of_one_s_own(registered, tmp_path, rng):
    from experiments.images.config import QuantOD, resolve

    inliers = rng.normal(size=(200, 5)).astype(np.float32)
    made = detector.fit("centre", features=inliers[:100], settings={"power": 2.0})
    made = detector.calibrate(made, inliers[100:], true_positive_rate=0.9)
    detector.save(made, tmp_path / "d")
    decided = detector.predict(detector.load(tmp_path / "d"), np.stack([inliers[:100].mean(0), np.full(5, 9.0)]))
    np.testing.assert_array_equal(decided.outlier, [False, True])
    np.testing.assert_allclose(decided.score[1], np.sum((9.0 - inliers[:100].mean(0)) ** 2), rtol=1e-5)
    assert resolve(QuantOD(scores=("centre",)), accelerator=False).scores == ("centre",)
    assert "| `centre` | features | features | power 1 | nobody |" in methods.to_markdown()


def test_names_are_taken_once(registered):
    methods.register(CENTRE)  # the same value again: a module that is imported twice
    with pytest.raises(ValueError, match="there is a method called 'centre' already"):
        methods.register(CENTRE._replace(paper="another"))
    with pytest.raises(ValueError, match="must be lower case letters"):
        methods.register(CENTRE._replace(name="My Method"))


def test_a_detector_of_a_method_that_is_gone(tmp_path, rng):
    methods.register(CENTRE)
    made = detector.fit("centre", features=rng.normal(size=(20, 3)))
    detector.save(made._replace(threshold=1.0), tmp_path / "d")
    methods.unregister("centre")
    with pytest.raises(ValueError, match=r"method must be one of .*; got 'centre'"):
        detector.load(tmp_path / "d")
