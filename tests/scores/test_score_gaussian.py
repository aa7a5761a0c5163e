import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import scores

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def float32(array):
    return jnp.asarray(array, jnp.float32)


@pytest.fixture
def fitted(golden):
    want = golden("scores")
    return want, scores.fit_tied_gaussian(want["train"], want["labels"], 4), scores.fit_background(want["train"])


def test_gaussian_scores_are_minus_the_papers_formulas(fitted):
    want, gaussian, background = fitted
    queries = float32(want["queries"])
    np.testing.assert_allclose(scores.mahalanobis(gaussian, queries), -want["mahalanobis"], rtol=1e-4)
    np.testing.assert_allclose(scores.gem(gaussian, queries), -want["gem"], rtol=1e-4, atol=1e-4)
    relative = scores.relative_mahalanobis(gaussian, background, queries)
    np.testing.assert_allclose(relative, -want["relative_mahalanobis"], rtol=1e-4, atol=1e-3)


def test_mahalanobis_by_hand():
    # two classes at 0 and 10 on the first axis, residuals +-1 there and +-2 on the second: S = diag(1, 4)
    offsets = np.array([[1.0, 2.0], [-1.0, -2.0], [1.0, -2.0], [-1.0, 2.0]])
    features = np.concatenate([offsets, offsets + np.array([10.0, 0.0])])
    gaussian = scores.fit_tied_gaussian(features, np.repeat([0, 1], 4), 2, regularisation=0.0)
    # (3, 4): half of 3^2 / 1 + 4^2 / 4 = 6.5 from class 0; (10, 0) is the mean of class 1
    np.testing.assert_allclose(
        scores.mahalanobis(gaussian, float32([[3.0, 4.0], [10.0, 0.0]])), [6.5, 0.0], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(gaussian.log_det_covariance, np.log(4.0), rtol=1e-6)
    assert gaussian.counts.tolist() == [4, 4]
    # half-way between the classes both count the same: GEM gains log 2 over the distance
    middle = float32([[5.0, 0.0]])
    np.testing.assert_allclose(
        scores.gem(gaussian, middle), scores.mahalanobis(gaussian, middle) - np.log(2), rtol=1e-5
    )


def test_blocks_of_the_fit_change_nothing(rng, monkeypatch):
    features, labels = rng.normal(size=(50, 3)), rng.integers(0, 2, 50)
    whole = scores.fit_tied_gaussian(features, labels, 2)
    monkeypatch.setattr("quantjax.scores.gaussian._ROWS_AT_ONCE", 7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, scores.fit_tied_gaussian(features, labels, 2)
    )


def test_distances_do_not_care_where_the_features_lie(rng):
    features, labels = rng.normal(size=(300, 4)).astype(np.float32), np.arange(300) % 3
    near = scores.mahalanobis(scores.fit_tied_gaussian(features, labels, 3), float32(features[:20]))
    moved = features + np.float32(1000.0)
    far = scores.mahalanobis(scores.fit_tied_gaussian(moved, labels, 3), float32(moved[:20]))
    np.testing.assert_allclose(far, near, rtol=2e-3, atol=2e-3)  # float32 spaces its numbers 6e-5 apart at 1000


def test_dead_feature_is_held_by_the_regularisation(rng):
    features = rng.normal(size=(200, 3)).astype(np.float32)
    features[:, 1] = 0.5
    gaussian = scores.fit_tied_gaussian(features, np.zeros(200, int), 1)
    query = features[:1] + np.float32([[0.0, 0.01, 0.0]])
    alive, awake = scores.mahalanobis(gaussian, float32(np.concatenate([features[:1], query])))
    share = 1e-6 * np.median(features[:, [0, 2]].var(axis=0))  # of the features that vary
    np.testing.assert_allclose(awake - alive, 0.5 * 0.01**2 / share, rtol=1e-3)
    with pytest.raises(ValueError, match="singular"):
        scores.fit_tied_gaussian(features, np.zeros(200, int), 1, regularisation=0.0)


def test_scores_compile_and_rows_are_independent(fitted):
    want, gaussian, background = fitted
    queries = float32(want["queries"])
    for score in (scores.mahalanobis, scores.gem):
        np.testing.assert_allclose(jax.jit(score)(gaussian, queries)[3:5], score(gaussian, queries[3:5]), rtol=1e-4)
    together = jax.jit(scores.relative_mahalanobis)(gaussian, background, queries)
    alone = scores.relative_mahalanobis(gaussian, background, queries[3:5])
    np.testing.assert_allclose(together[3:5], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("features", "labels", "named"),
    [
        (np.zeros(4), np.zeros(4, int), "features must have shape"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one row"),
        (np.zeros((4, 2)), np.zeros(3, int), "same number of rows"),
        (np.array([[0.0, 1.0], [np.nan, 1.0]]), np.array([0, 1]), r"finite.*first: row 1"),
        (np.zeros((2, 2)), np.array([0, 2]), "labels must lie in 0..1"),
        (np.zeros((2, 2)), np.array([-1, 0]), "labels must lie in 0..1"),
        (np.zeros((2, 2)), np.zeros(2), "labels must be integers"),
        (np.zeros((2, 2)), np.zeros(2, int), "got none of class 1"),
    ],
)
def test_bad_training_rows_are_named(features, labels, named):
    with pytest.raises(ValueError, match=named):
        scores.fit_tied_gaussian(features, labels, 2)


def test_wrong_queries_and_background_are_named(fitted):
    _, gaussian, background = fitted
    with pytest.raises(ValueError, match=r"features must have shape \[B, 6\]"):
        scores.mahalanobis(gaussian, jnp.zeros((2, 5)))
    with pytest.raises(ValueError, match="background must have one class, got 4"):
        scores.relative_mahalanobis(gaussian, gaussian, jnp.zeros((2, 6)))
    assert background.means.shape == (1, 6)
