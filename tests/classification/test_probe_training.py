"""A linear layer on features far from zero and of unlike scales."""

import numpy as np
import pytest

from quantjax.classification import fit_probe


def zeros(classes):
    return {"kernel": np.zeros((3, classes), "f"), "bias": np.zeros(classes, "f")}


def test_weights_are_for_the_features_as_they_are(rng):
    labels = np.arange(60) % 2
    features = rng.normal(size=(60, 3)).astype(np.float32) * np.float32([1.0, 50.0, 0.0]) + np.float32([0, 900, 7])
    features[:, 0] += 8.0 * labels
    seen = []
    head = fit_probe(
        zeros(2), features, labels, epochs=60, batch_size=20, report=lambda step, values: seen.append(values["loss"])
    )
    assert ((features @ head["kernel"] + head["bias"]).argmax(1) == labels).all()
    assert seen[0] == pytest.approx(np.log(2), abs=0.2)  # of two classes that are equally likely
    assert seen[-1] < 0.5 * seen[0]
    with pytest.raises(ValueError, match="labels"):
        fit_probe(zeros(2), features, labels[:-1], epochs=1, batch_size=20)
