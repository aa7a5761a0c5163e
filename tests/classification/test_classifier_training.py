"""Stage 1 from Python: what it learns, what it refuses, and parts that add up; compiled once each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from quantjax.classification import fit_classifier, sgd
from quantjax.extractors import NONE, standardise
from quantjax.extractors.wrn import WideResNet

MODEL = WideResNet(2, depth=10, width=1, dropout_rate=0.0)


@pytest.fixture(scope="module")
def halves():
    """Images that are bright above or below the middle, which a flip keeps, and which half it is."""
    rng = np.random.default_rng(0)
    labels = np.arange(32, dtype=np.int32) % 2
    images = rng.integers(0, 60, (32, 8, 8, 3))
    images[labels == 0, :4] += 150
    images[labels == 1, 4:] += 150
    return images.astype(np.uint8), labels


@pytest.mark.parametrize(("accumulate", "epochs", "accuracy"), [(1, 8, 0.9), (2, 3, 0.49)])
def test_it_learns_two_classes(halves, accumulate, epochs, accuracy):
    seen = []
    images, labels = halves
    variables = fit_classifier(
        MODEL, images, labels, epochs=epochs, batch_size=16, accumulate=accumulate,
        report=lambda step, row: seen.append(row),
    )  # fmt: skip
    output = jax.jit(MODEL.apply)(variables, standardise(jnp.asarray(images), NONE))
    assert (np.asarray(output.logits).argmax(1) == labels).mean() > accuracy
    assert [row["epoch"] for row in seen] == list(range(1, epochs + 1))
    assert seen[-1]["loss"] < seen[0]["loss"]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 3}, "accumulate must divide batch_size, 32, got 3"),
        ({"accumulate": 0}, r"accumulate must lie in \[1, 32\]"),
        ({"labels": np.zeros(3, np.int32)}, "images has 32, labels has 3"),
        ({"images": np.zeros((32, 8, 8), np.uint8)}, r"images must have shape \[N, H, W, 3\]"),
    ],
)
def test_what_cannot_be_trained_is_refused(halves, options, message):
    given = {"images": halves[0], "labels": halves[1]} | options
    with pytest.raises(ValueError, match=message):
        fit_classifier(MODEL, given.pop("images"), given.pop("labels"), batch_size=32, **given)


def test_the_optimiser_is_that_of_the_paper():
    """Two steps by hand: decay added to the gradient, momentum, Nesterov's look ahead, cosine over ten steps."""
    optimizer = sgd(10)
    w, velocity = 2.0, 0.0
    params = jnp.array(w)
    state = optimizer.init(params)
    for i, gradient in enumerate((1.0, -0.5)):
        updates, state = optimizer.update(jnp.array(gradient), state, params)
        params = optax.apply_updates(params, updates)
        g = gradient + 5e-4 * w
        velocity = 0.9 * velocity + g
        rate = 1e-6 + (0.1 - 1e-6) * 0.5 * (1 + np.cos(np.pi * i / 10))
        w -= rate * (g + 0.9 * velocity)
        assert float(params) == pytest.approx(w, rel=1e-5)
