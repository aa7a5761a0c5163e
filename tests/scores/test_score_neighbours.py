import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import scores

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_knn_is_one_minus_the_cosine_of_the_tenth_neighbour(golden):
    want = golden("scores")
    neighbours = scores.fit_neighbours(want["train"])
    queries = jnp.asarray(want["queries"], jnp.float32)
    np.testing.assert_allclose(scores.knn(neighbours, queries), 1.0 - want["knn_cosine"], atol=1e-6)


def test_knn_by_hand():
    neighbours = scores.fit_neighbours(np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]]))
    query = jnp.asarray([[5.0, 0.0]])  # cosines 1, 0, -1 and 1 / sqrt 2
    for k, cosine in enumerate([1.0, 2**-0.5, 0.0, -1.0], start=1):
        np.testing.assert_allclose(scores.knn(neighbours, query, k), [1.0 - cosine], atol=1e-6)


@pytest.mark.parametrize("block", [1, 3, 40, 64, 1000])
def test_reading_the_bank_in_blocks_is_exact(rng, block):
    bank, queries = rng.normal(size=(120, 5)), rng.normal(size=(6, 5))
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (queries, bank)]
    want = 1.0 - np.sort(unit[0] @ unit[1].T, axis=1)[:, -10]
    got = jax.jit(lambda n, q: scores.knn(n, q, block=block))(
        scores.fit_neighbours(bank), jnp.asarray(queries, jnp.float32)
    )
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("k", [1, 40])
def test_more_queries_than_meet_the_bank_at_once(rng, k):
    """300 rows in two chunks, and of 40 neighbours the nearest 17 are not looked at again."""
    bank, queries = rng.normal(size=(500, 4)), rng.normal(size=(300, 4))
    want = 0.5 * np.sort(((queries[:, None] - bank[None]) ** 2).sum(axis=2), axis=1)[:, k - 1]
    neighbours = scores.fit_neighbours(bank, normalise=False)
    got = jax.jit(lambda n, q: scores.knn(n, q, k, normalise=False, block=200))(neighbours, queries.astype(np.float32))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_row_of_zeros_is_no_nan():
    neighbours = scores.fit_neighbours(np.array([[0.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(scores.knn(neighbours, jnp.asarray([[0.0, 0.0], [1.0, 0.0]]), 2), [1.0, 1.0])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: scores.fit_neighbours(np.zeros(3)), "features must have shape"),
        (lambda: scores.fit_neighbours(np.zeros((0, 3))), "at least one row"),
        (lambda: scores.fit_neighbours(np.full((2, 3), np.nan)), "features must be finite"),
        (lambda: scores.knn(scores.fit_neighbours(np.ones((5, 3))), jnp.ones((1, 3))), r"k must lie in 1..5"),
        (lambda: scores.knn(scores.fit_neighbours(np.ones((5, 3))), jnp.ones((1, 2)), 1), r"shape \[B, 3\]"),
        (lambda: scores.knn(scores.fit_neighbours(np.ones((5, 3))), jnp.ones((1, 3)), 1, block=0), "block must"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_a_row_that_is_not_finite_scores_nan():
    """top_k may put its cosines below all others, or above."""
    neighbours = scores.fit_neighbours(np.eye(3))
    queries = jnp.asarray([[1.0, 0.0, 0.0], [jnp.nan, 0.0, 0.0], [jnp.inf, 0.0, 0.0]], jnp.float32)
    np.testing.assert_array_equal(np.isnan(scores.knn(neighbours, queries, k=1)), [False, True, True])


def test_a_coreset_takes_the_farthest_row_again_and_again(rng):
    """By a loop in NumPy; doubles are never taken twice."""
    rows = rng.normal(size=(40, 5))
    rows[7] = rows[3]
    for normalise in (True, False):
        own = rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalise else rows
        wanted = [int(np.argmax(((own - own.mean(0)) ** 2).sum(1)))]
        for _ in range(9):
            wanted.append(int(np.argmax(((own[:, None] - own[wanted]) ** 2).sum(-1).min(1))))
        np.testing.assert_array_equal(scores.greedy_coreset(rows, 10, normalise), wanted)
        assert sorted(scores.greedy_coreset(rows, 99, normalise)) == list(range(40))
    with pytest.raises(ValueError, match="count must lie in"):
        scores.greedy_coreset(rows, 0)
