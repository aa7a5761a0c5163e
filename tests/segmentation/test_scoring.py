"""Windows and scores on a network that can be computed by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import scores
from quantjax.scores import Standardisation
from quantjax.segmentation import SCORES, FrozenSegmentor, Scales, make_estimator, make_scorer

SCALE = Standardisation(jnp.float32(0.2), jnp.float32(0.7))
WEIGHTS = np.linspace(-1.0, 1.5, 12).astype(np.float32).reshape(3, 4)


def known(variables, images):
    """Maps of half the size, and logits linear in the colours; the estimator reads the last map."""
    small = images[:, ::2, ::2]
    return (jnp.zeros_like(small), small), small @ variables


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (6, 10, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def estimator():
    network = make_estimator((2,))
    kernel = np.array([[0.5, -1.0], [1.0, 0.25], [-0.5, 2.0]], np.float32)
    head = {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
    return network, {
        "projector": {"params": {"linear0": {"kernel": kernel, "bias": np.zeros(2, np.float32)}}},
        "head": {"params": {"linear": head}, "state": ()},
    }


def doubled(values):
    """Bilinear enlargement by two, half-pixel centres: 3/4 of the nearest and 1/4 of the next, the border repeated."""
    for axis in (0, 1):
        padded = np.pad(values, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
        before, here, after = (np.take(padded, np.arange(n, n + values.shape[axis]), axis) for n in (0, 1, 2))
        pairs = np.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], axis + 1)
        values = pairs.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])
    return values


def test_every_score_is_made_of_averaged_logits(image, estimator):
    network, variables = estimator
    run = make_scorer(
        FrozenSegmentor(known), network, SCORES, window=(6, 6), stride=(6, 4), batch_size=2, scales=Scales(SCALE, SCALE)
    )
    found = run((WEIGHTS, variables), image)
    logits, u, hits = np.zeros((6, 10, 4)), np.zeros((6, 10, 2)), np.zeros((1, 10, 1))
    kernel = variables["projector"]["params"]["linear0"]["kernel"]
    for left in (0, 4):
        part = image[::2, left : left + 6 : 2].astype(np.float64) / 255
        logits[:, left : left + 6] += doubled(part @ WEIGHTS)
        u[:, left : left + 6] += doubled(part @ kernel)
        hits[:, left : left + 6] += 1
    logits, u = (jnp.asarray(total / hits, jnp.float32) for total in (logits, u))
    wanted = {
        "id": scores.inlier(logits, SCALE),
        "ood": scores.unknown(u, SCALE),
        "lr": scores.likelihood_ratio(u, logits, SCALE, SCALE),
        **{name: getattr(scores, name)(logits) for name in ("msp", "max_logit", "entropy", "energy", "rba")},
        "msp_probability": scores.msp(logits, form="probability"),
    }
    assert set(wanted) == set(SCORES)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-5, err_msg=name)
    np.testing.assert_array_equal(found["prediction"], np.argmax(logits, -1))


def test_a_segmentor_alone_and_a_prediction_among_its_classes(image):
    run = make_scorer(
        FrozenSegmentor(known), None, {"last": lambda logits, u, scales: logits[..., -1]},
        window=(6, 10), stride=(6, 10), num_classes=2,
    )  # fmt: skip
    found = run((WEIGHTS, ()), image)
    logits = doubled(image[::2, ::2].astype(np.float64) / 255 @ WEIGHTS)
    np.testing.assert_allclose(found["last"], logits[..., -1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["prediction"], np.argmax(logits[..., :2], -1))
