"""Queues, Gaussians and the least likely draw, against NumPy and SciPy programs that go row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.classification import virtual_outliers as virtual

CLASSES, LENGTH, DIMENSION = 3, 4, 2
push = jax.jit(virtual.push)


def batches(rng, count=6, rows=9):
    """Rows of unlike classes, some of them padding; now and then more of a class than its queue holds."""
    for i in range(count):
        labels = rng.integers(0, CLASSES, rows) if i != 2 else np.ones(rows, int)
        yield rng.normal(size=(rows, DIMENSION)).astype("f"), labels.astype(np.int32), rng.random(rows) < 0.8


@pytest.fixture
def queued(rng):
    """(queues, lists that hold the newest rows of each class) after every batch."""
    queues, lists, found = virtual.empty_queues(CLASSES, LENGTH, DIMENSION), [[] for _ in range(CLASSES)], []
    for features, labels, mask in batches(rng):
        queues = push(queues, features, labels, mask)
        for row, label, there in zip(features, labels, mask, strict=True):
            if there:
                lists[label] = [*lists[label], row][-LENGTH:]
        found.append((queues, [list(one) for one in lists]))
    return found


def ordered(rows):
    return sorted(map(tuple, rows))


def test_queues_hold_the_newest_rows_of_each_class(queued):
    for queues, lists in queued:
        assert virtual.filled(queues).tolist() == [len(one) for one in lists]
        for label, rows in enumerate(lists):
            assert ordered(np.asarray(queues.features)[label, : len(rows)]) == ordered(rows)
    assert all(len(rows) == LENGTH for rows in lists)
    assert queues.pushed.max() < 2 * LENGTH


def test_unknown_labels_enter_no_queue():
    queues = push(
        virtual.empty_queues(CLASSES, LENGTH, DIMENSION),
        np.ones((3, DIMENSION), "f"),
        np.int32([CLASSES, -1, 1]),
        np.ones(3, bool),
    )
    assert queues.pushed.tolist() == [0, 1, 0]
    assert queues.features.sum() == DIMENSION


def test_gaussians_are_those_of_the_rows(queued):
    for queues, lists in (queued[0], queued[-1]):  # partly filled, and full
        means, factor = virtual.class_gaussians(queues)
        wanted = [np.mean(rows, 0) for rows in lists]
        np.testing.assert_allclose(means, wanted, rtol=1e-5, atol=1e-6)
        deviations = np.concatenate([np.array(rows) - mean for rows, mean in zip(lists, wanted, strict=True)])
        covariance = deviations.T @ deviations / len(deviations) + 1e-4 * np.eye(DIMENSION)
        np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-5)
        assert factor[0, 1] == 0.0


def test_the_virtual_outlier_is_the_least_likely_of_the_draws(rng):
    """The draw that SciPy finds least likely comes back, given its direction and how rare so long a draw is."""
    from scipy import stats

    dimension, samples = 3, 50
    means = rng.normal(size=(2, dimension))
    root = rng.normal(size=(dimension, dimension))
    covariance = root @ root.T + 0.1 * np.eye(dimension)
    factor = np.linalg.cholesky(covariance)
    z = rng.normal(size=(2, samples, dimension))
    draws = means[:, None] + z @ factor.T
    least = [stats.multivariate_normal(means[k], covariance).logpdf(draws[k]).argmin() for k in range(2)]
    longest = np.stack([z[k, least[k]] for k in range(2)])
    assert least == np.square(z).sum(2).argmax(1).tolist()
    quantile = stats.chi2.cdf(np.square(longest).sum(1), dimension) ** samples
    given = virtual.Draws(jnp.float32(quantile), jnp.float32(7.0 * longest))
    found = virtual.virtual_outliers(given, jnp.float32(means), jnp.float32(factor), samples)
    np.testing.assert_allclose(found, [draws[k, least[k]] for k in range(2)], rtol=1e-4, atol=1e-5)


def test_the_length_is_distributed_as_the_longest_of_many(rng):
    """Of 4,000 longest among 100 drawn vectors, the share below each quantile is that quantile."""
    longest = np.square(rng.normal(size=(4000, 100, 5))).sum(2).max(1)
    quantiles = jnp.linspace(0.02, 0.98, 25)
    found = np.asarray(virtual.largest_chi_square(quantiles, 5, 100))
    shares = (longest[None] < found[:, None]).mean(1)
    np.testing.assert_allclose(shares, quantiles, atol=0.025)  # three standard errors of a share


@pytest.mark.parametrize("dimension", [1, 64, 342, 2048])
def test_the_length_is_scipy_s(dimension):
    from scipy import stats

    quantiles = np.float32([1e-30, 0.01, 0.5, 0.99, 1 - 6e-8])
    above = -np.expm1(np.log(quantiles.astype(float)) / 10_000)
    found = virtual.largest_chi_square(jnp.asarray(quantiles), dimension, 10_000)
    np.testing.assert_allclose(found, stats.chi2.isf(above, dimension), rtol=2e-5)


def test_draws_depend_on_the_key_alone():
    one, two = (virtual.draw(jax.random.key(seed), CLASSES, DIMENSION) for seed in (0, 1))
    again = virtual.draw(jax.random.key(0), CLASSES, DIMENSION)
    np.testing.assert_array_equal(one.direction, again.direction)
    assert not np.array_equal(one.direction, two.direction)
    assert not np.array_equal(one.quantile, two.quantile)
    assert (one.quantile > 0).all()
