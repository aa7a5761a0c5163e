import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.heads.bank import Selection, moments, select, write

choose = jax.jit(select, static_argnums=(2, 3))


@pytest.mark.parametrize("length", [3, 20, 21, 22, 39, 400])
def test_rows_of_a_group_are_evenly_spread_in_order(rng, length):
    groups = np.full(3 * length, 2, np.int32)  # 2 marks rows left out
    groups[np.sort(rng.permutation(3 * length)[:length])] = 1
    rows = jnp.arange(3 * length, dtype=jnp.float32)[:, None]
    got = choose(rows, jnp.asarray(groups), 2, 20)
    own = np.flatnonzero(groups == 1)
    picked = own if length <= 20 else own[np.floor(np.linspace(0, length - 1, 20)).astype(int)]
    np.testing.assert_array_equal(got.taken, [0, min(length, 20)])
    np.testing.assert_array_equal(got.rows[1, : len(picked), 0], picked)


def test_one_row_a_step_is_the_first_of_its_group():
    got = choose(jnp.asarray([[5.0], [6.0], [7.0]]), jnp.asarray([1, 0, 0], jnp.int32), 2, 1)
    np.testing.assert_array_equal(got.rows[:, :, 0], [[6.0], [5.0]])
    np.testing.assert_array_equal(got.taken, [1, 1])


def test_ring_wraps_around_and_drops_what_is_not_taken():
    bank, rows = jnp.zeros((2, 3, 1)), jnp.asarray([[[1.0], [2.0]], [[3.0], [4.0]]])
    bank, pointer = write(bank, jnp.asarray([2, 0], jnp.int32), Selection(rows, jnp.asarray([2, 1], jnp.int32)))
    # component 0 writes slots 2 and 0; component 1 writes slot 0 only
    np.testing.assert_array_equal(bank[:, :, 0], [[2, 0, 1], [3, 0, 0]])
    np.testing.assert_array_equal(pointer, [1, 1])


def test_moments_by_hand():
    """Rows (1, 0) and (0.6, 0.8): the sum (1.6, 0.8) has direction (2, 1) / sqrt(5)."""
    direction, spread = moments(jnp.asarray([[[1.0, 0.0], [0.6, 0.8]]]))
    f = np.array([2.0, 1.0]) / np.sqrt(5.0)
    np.testing.assert_allclose(direction, f[None], rtol=1e-6)
    want = (np.array([1.0, 0.0]) - f) ** 2 / 2 + (np.array([0.6, 0.8]) - f) ** 2 / 2
    np.testing.assert_allclose(spread, want[None], rtol=1e-5)


def test_more_rows_than_positions_can_count_are_refused():
    rows, groups = jax.ShapeDtypeStruct((2**25, 1), jnp.float32), jax.ShapeDtypeStruct((2**25,), jnp.int32)
    with pytest.raises(ValueError, match="rows times groups must stay under"):
        jax.eval_shape(lambda rows, groups: select(rows, groups, 95, 20), rows, groups)


@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-5])
def test_moments_of_rows_that_lie_close_together_keep_their_digits(rng, spread):
    rows = rng.normal(size=(2, 1, 16)) + spread * rng.normal(size=(2, 40, 16))
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float32)
    exact = rows.astype(np.float64)
    f = exact.sum(axis=1) / np.linalg.norm(exact.sum(axis=1), axis=1, keepdims=True)
    got = jax.jit(moments)(jnp.asarray(rows))[1]
    np.testing.assert_allclose(got, ((exact - f[:, None]) ** 2).mean(axis=1), rtol=1e-2 if spread < 1e-4 else 1e-4)
