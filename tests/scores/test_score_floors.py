"""AUROC floors on real digits: classes 0-7 known, 8 and 9 unknown, so that a silent regression of a score fails.

Pixels are the features and a softmax regression is the classifier. Each floor lies about 0.015 below what was measured
when it was set, far above chance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import metrics, scores
from quantjax.losses import cross_entropy

FLOORS = {
    "msp": 0.93,
    "max_logit": 0.95,
    "energy": 0.95,
    "odin": 0.95,
    "mahalanobis": 0.815,
    "mahalanobis_perturbed": 0.815,
    "relative_mahalanobis": 0.91,
    "gem": 0.815,
    "knn": 0.885,
}


def as_images(pixels):
    return pixels.reshape(-1, 8, 8, 1)


def as_features(images):
    return images.reshape(-1, 64)


@pytest.fixture(scope="module")
def digits():
    pixels, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    pixels, known = jnp.asarray(pixels / 16.0, jnp.float32), labels < 8
    inliers, classes = pixels[known], labels[known].astype(np.int32)
    return inliers[::2], classes[::2], inliers[1::2], classes[1::2], pixels[~known]


@pytest.fixture(scope="module")
def classify(digits):
    """A softmax regression after 300 steps of gradient descent from zero."""
    x, y = digits[0], jnp.asarray(digits[1])

    def logits(params, rows):
        return rows @ params["weight"] + params["bias"][None]

    gradient = jax.grad(lambda params: jnp.mean(cross_entropy(logits(params, x), y)))

    def step(_, params):
        return jax.tree.map(lambda value, slope: value - 0.5 * slope, params, gradient(params))

    start = {"weight": jnp.zeros((64, 8)), "bias": jnp.zeros(8)}
    params = jax.jit(lambda start: jax.lax.fori_loop(0, 300, step, start))(start)
    return lambda rows: logits(params, rows)


@pytest.fixture(scope="module")
def table(digits, classify):
    train, labels = digits[:2]
    gaussian, background = scores.fit_tied_gaussian(train, labels, 8), scores.fit_background(train)
    neighbours = scores.fit_neighbours(train)
    return {
        "msp": lambda x: scores.msp(classify(x)),
        "max_logit": lambda x: scores.max_logit(classify(x)),
        "energy": lambda x: scores.energy(classify(x)),
        "odin": lambda x: scores.odin(lambda images: classify(as_features(images)), as_images(x)),
        "mahalanobis": lambda x: scores.mahalanobis(gaussian, x),
        "mahalanobis_perturbed": lambda x: scores.perturbed(
            lambda images: scores.mahalanobis(gaussian, as_features(images)), as_images(x)
        ),
        "relative_mahalanobis": lambda x: scores.relative_mahalanobis(gaussian, background, x),
        "gem": lambda x: scores.gem(gaussian, x),
        "knn": lambda x: scores.knn(neighbours, x),
    }


def test_the_classifier_knows_its_digits(digits, classify):
    assert metrics.accuracy(classify(digits[2]), digits[3]) > 0.96


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_unknown_digits_score_higher(digits, table, name):
    inliers, outliers = (np.asarray(table[name](rows)) for rows in (digits[2], digits[4]))
    assert metrics.auroc(inliers, outliers) > FLOORS[name]


def test_perturbing_mahalanobis_moves_its_scores(digits, table):
    plain, moved = (np.asarray(table[name](digits[2])) for name in ("mahalanobis", "mahalanobis_perturbed"))
    assert (moved < plain).all()
