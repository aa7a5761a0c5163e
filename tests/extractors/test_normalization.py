import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors.normalization import BatchNorm, Dropout, Mode

TRAIN = Mode(train=True)


def fitted(x, mode):
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x)
    y, new = norm.apply(variables, x, mode, mutable=["batch_stats"])
    return y, new["batch_stats"]


def test_by_hand():
    x = jnp.array(
        [[1.0], [2.0], [3.0], [6.0]]
    )  # mean 3, squared deviations 4 + 1 + 0 + 9: variance 3.5 biased, 14/3 unbiased
    y, statistics = fitted(x, TRAIN)
    np.testing.assert_allclose(y[:, 0], np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(3.5 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(statistics["mean"], [0.1 * 3.0], rtol=1e-6)
    np.testing.assert_allclose(statistics["var"], [0.9 * 1.0 + 0.1 * 14 / 3], rtol=1e-6)


def test_evaluation_uses_running_statistics_and_leaves_them():
    x = jnp.array([[1.0], [5.0]])
    variables = {
        "params": {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])},
        "batch_stats": {"mean": jnp.array([3.0]), "var": jnp.array([4.0])},
    }
    y, new = BatchNorm().apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y[:, 0], [-1.0, 3.0], atol=1e-5)  # 2 (x - 3) / 2 + 1
    np.testing.assert_array_equal(new["batch_stats"]["mean"], [3.0])


@pytest.mark.parametrize("rubbish", [1e6, np.nan, np.inf])
def test_padded_rows_enter_no_statistic(rng, rubbish):
    x = jnp.asarray(rng.normal(size=(5, 3, 3, 2)), jnp.float32)
    padded = jnp.concatenate([x, jnp.full((3, 3, 3, 2), rubbish, jnp.float32)])
    wanted, wanted_statistics = fitted(x, TRAIN)
    y, statistics = fitted(padded, Mode(True, jnp.arange(8) < 5))
    np.testing.assert_allclose(y[:5], wanted, atol=1e-6)
    for name in ("mean", "var"):
        np.testing.assert_allclose(statistics[name], wanted_statistics[name], rtol=1e-6)


def test_one_row_and_no_row_stay_finite():
    x = jnp.ones((2, 1))
    for mask in ([True, False], [False, False]):
        y, statistics = fitted(x, Mode(True, jnp.array(mask)))
        assert np.isfinite(y).all()
        assert np.isfinite(statistics["var"]).all()


def test_statistics_are_float32_for_bfloat16_inputs():
    x = jnp.ones((4, 3), jnp.bfloat16)
    norm = BatchNorm(jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x)
    y, new = norm.apply(variables, x, TRAIN, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, new)))


def drop(x, mode=TRAIN, rate=0.3, seed=0):
    return Dropout(rate).apply({}, x, mode, rngs={"dropout": jax.random.key(seed)})


def test_dropout_keeps_the_mean_and_drops_its_rate():
    y = drop(jnp.ones((100, 200)))
    values = np.unique(y)
    np.testing.assert_allclose(values, [0.0, 1 / 0.7], rtol=1e-6)
    assert abs(float((y == 0).mean()) - 0.3) < 0.01  # 20,000 draws: 3 standard deviations


def test_dropout_is_the_identity_in_evaluation():
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(drop(x, Mode()), x)


def test_dropout_of_a_row_does_not_depend_on_the_rows_after_it():
    np.testing.assert_array_equal(drop(jnp.ones((3, 5))), drop(jnp.ones((4, 5)))[:3])


def test_dropout_rate_one_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1"):
        drop(jnp.ones((2, 3)), rate=1.0)
