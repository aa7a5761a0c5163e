"""Losses of classifiers beside outliers: torch's values and gradients, cases by hand, wrong shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")

LOSSES = {
    "logit_norm": lambda f, want: losses.logit_norm(f, want["labels"]),
    "uniform_cross_entropy": lambda f, want: losses.uniform_cross_entropy(f),
    "energy_above": lambda f, want: losses.energy_above(f, -8.0),
    "energy_below": lambda f, want: losses.energy_below(f, -7.0),
    "weighted_energy": lambda f, want: losses.weighted_energy(f, want["weights"]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_equal_torch(golden, name):
    want = {key: jnp.asarray(value) for key, value in golden("exposure").items() if key != "origin"}
    np.testing.assert_allclose(LOSSES[name](want["logits"], want), want[name], rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda f: LOSSES[name](f, want).sum())(want["logits"])
    np.testing.assert_allclose(gradient, want[f"{name}/gradient"], rtol=1e-4, atol=1e-5)
    assert np.abs(gradient).max() > 1e-3
    assert np.any(np.asarray(want[name]) == 0) == name.startswith("energy_")  # both sides of a hinge are there


def test_the_logistic_loss_is_torch_s_on_either_side(golden):
    want = golden("exposure")
    odds = jnp.asarray(want["logits"][:, 0])
    both = losses.logistic_separation(odds, odds)
    np.testing.assert_allclose(both, want["inlier_logistic"] + want["outlier_logistic"].mean(), rtol=1e-5)
    two = jnp.zeros(7, bool).at[:2].set(True)
    some = losses.logistic_separation(odds, odds, two)
    np.testing.assert_allclose(some, want["inlier_logistic"] + want["outlier_logistic"][:2].mean(), rtol=1e-5)
    none = losses.logistic_separation(odds, odds, jnp.zeros(7, bool))
    np.testing.assert_allclose(none, want["inlier_logistic"], rtol=1e-5)


def test_by_hand():
    """Two classes, temperature 1: (3, 4) has length 5, so -log softmax is log(1 + exp(0.6 - 0.8))."""
    value = losses.logit_norm(jnp.array([[3.0, 4.0]]), jnp.array([1]), temperature=1.0)
    np.testing.assert_allclose(value, [np.log1p(np.exp(-0.2))], rtol=1e-6)
    tenfold = losses.logit_norm(jnp.array([[30.0, 40.0]]), jnp.array([1]), temperature=1.0)
    np.testing.assert_allclose(tenfold, value, rtol=1e-6)
    # the best direction for class 0 of three: (2, -1, -1) / sqrt 6, whose entries lie sqrt(3 / 2) apart
    least = losses.logit_norm(jnp.array([[2.0, -1.0, -1.0]]), jnp.array([0]), temperature=0.5)
    np.testing.assert_allclose(least, [np.log1p(2 * np.exp(-np.sqrt(1.5) / 0.5))], rtol=1e-5)
    zero = jax.grad(lambda f: losses.logit_norm(f, jnp.array([0])).sum())(jnp.zeros((1, 3)))
    assert np.isfinite(zero).all()
    # equal logits are uniform: log K; energies of (0, 0) are -log 2
    np.testing.assert_allclose(losses.uniform_cross_entropy(jnp.full((2, 5), 3.0)), np.log(5.0), rtol=1e-6)
    np.testing.assert_allclose(losses.energy_above(jnp.zeros((1, 2)), -2.0), (2 - np.log(2)) ** 2, rtol=1e-6)
    np.testing.assert_allclose(losses.energy_below(jnp.zeros((1, 2)), 1.0), (1 + np.log(2)) ** 2, rtol=1e-6)
    # weights 3 and -1: -log(3 e^1) = -1 - log 3
    weighted = losses.weighted_energy(jnp.array([[1.0, 9.0]]), jnp.array([3.0, -1.0]))
    np.testing.assert_allclose(weighted, [-1.0 - np.log(3.0)], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: losses.logit_norm(f, jnp.zeros(2, int), temperature=0.0), r"temperature must lie in \(0"),
        (lambda f: losses.logit_norm(f[0], jnp.zeros(2, int)), r"logits must have shape \[B, K\]"),
        (lambda f: losses.weighted_energy(f, jnp.ones(4)), r"weights must have shape \[3\], got \[4\]"),
        (lambda f: losses.logistic_separation(f, f), r"inliers must have shape \[B\]"),
        (lambda f: losses.logistic_separation(f[0], f[0], f[0, :2] > 0), r"mask must have shape \[3\], got \[2\]"),
    ],
)
def test_wrong_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 3)))
