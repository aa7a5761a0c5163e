import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors.normalization import BatchNorm, Dropout, LayerNorm, Mode, batch_statistics

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


def far(rng, shape):
    """Deviations of 0.5 about means of 3,000 to 4,000, where float32 keeps 12 bits of them."""
    return jnp.asarray(rng.normal(np.linspace(3000, 4000, shape[-1]), 0.5, shape), jnp.float32)


def test_large_means_cost_no_digits(rng):
    mean, variance, count = batch_statistics(jnp.array([[3000.0], [3001.0]]), TRAIN)
    assert (float(mean[0]), float(variance[0]), float(count)) == (3000.5, 0.25, 2.0)
    x = far(rng, (6, 4, 4, 3))
    kept = np.asarray(x, np.float64)[2:5]  # the first row is none of them
    masked = x.at[:2].set(jnp.nan).at[5].set(0.0)
    y, statistics = fitted(masked, Mode(True, jnp.array([False, False, True, True, True, False])))
    variance = kept.var((0, 1, 2))
    np.testing.assert_allclose(y[2:5], (kept - kept.mean((0, 1, 2))) / np.sqrt(variance + 1e-5), atol=2e-3)
    np.testing.assert_allclose(statistics["mean"], 0.1 * kept.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * kept.var((0, 1, 2), ddof=1), rtol=1e-6)


def test_gradients_at_large_means(rng):
    """Of sum w (x - mean) / sqrt(variance): (w - mean w - h mean(w h)) / deviation, h being the normalised rows."""
    x, w = far(rng, (16, 3)), jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)
    variables = BatchNorm().init(jax.random.key(0), x)
    given = jax.grad(lambda x: (w * BatchNorm().apply(variables, x, TRAIN, mutable=["batch_stats"])[0]).sum())(x)
    kept = np.asarray(x, np.float64)
    deviation = np.sqrt(kept.var(0) + 1e-5)
    h = (kept - kept.mean(0)) / deviation
    w = np.asarray(w)
    wanted = (w - w.mean(0) - h * (w * h).mean(0)) / deviation
    np.testing.assert_allclose(given, wanted, atol=2e-3)


def test_layer_norm_keeps_digits_as_torch_does(rng):
    scale, bias = jnp.array([2.0, 1.0]), jnp.array([0.0, 5.0])
    y = LayerNorm(1e-6).apply({"params": {"scale": scale, "bias": bias}}, jnp.array([[3000.0, 3001.0]]))
    np.testing.assert_allclose(y, [[-2.0, 6.0]], atol=1e-5)  # mean 3000.5, deviation 0.5: -1 and 1
    x = far(rng, (4, 1)) + jnp.asarray(rng.normal(size=(4, 96)), jnp.float32)
    wanted = np.asarray(x, np.float64)
    wanted = (wanted - wanted.mean(-1, keepdims=True)) / np.sqrt(wanted.var(-1, keepdims=True) + 1e-6)
    norm = LayerNorm(1e-6, jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x)
    np.testing.assert_allclose(LayerNorm(1e-6).apply(variables, x), wanted, atol=1e-3)  # of torch: the same 1e-3
    assert norm.apply(variables, x).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parity
def test_as_exact_as_torch_at_large_means(rng):
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    x = far(rng, (64, 192))
    exact = np.asarray(x, np.float64)
    variables = BatchNorm().init(jax.random.key(0), x)
    ours = BatchNorm().apply(variables, x, TRAIN, mutable=["batch_stats"])[0]
    theirs = functional.batch_norm(torch.tensor(np.asarray(x)), None, None, training=True, eps=1e-5)
    wanted = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    assert np.abs(ours - wanted).max() < 2 * np.abs(theirs.numpy() - wanted).max()
    tokens = jnp.asarray(rng.normal(3000, 0.5, (64, 192)), jnp.float32)
    exact = np.asarray(tokens, np.float64)
    ours = LayerNorm(1e-6).apply(LayerNorm().init(jax.random.key(0), tokens), tokens)
    theirs = functional.layer_norm(torch.tensor(np.asarray(tokens)), (192,), eps=1e-6)
    wanted = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
    assert np.abs(ours - wanted).max() < 2 * np.abs(theirs.numpy() - wanted).max()


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
