"""Units of a feature, features asleep in the first batch, and dtypes change nothing that they should not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import flows, metrics
from quantjax.flows.fit import starting_rows
from quantjax.flows.layers import actnorm

SMALL = {"blocks": 4, "layers": 0, "width": 16}


@pytest.fixture(autouse=True)
def loose_ranks():
    """optax's updates promote."""
    with jax.numpy_rank_promotion("allow"):
        yield


def scores_of(fitted, rows):
    flow = flows.quantod(**fitted.settings)
    return np.asarray(-flows.log_likelihood(flow, fitted.params, jnp.asarray(rows, jnp.float32)))


@pytest.mark.parametrize("units", [[1.0, 1e6, 1e-6, 1e-12], [1e12, 1e12, 1e12, 1e12]])
def test_actnorm_does_not_know_the_units_of_a_feature(rng, units):
    x = ((rng.normal(size=(50, 4)) + np.array([3.0, 100.0, 0.0, -3.0])) * units).astype(np.float32)
    flow = actnorm()
    params = flow.init(jax.random.key(0), jnp.asarray(x))
    z, log_det = flow.forward(params, jnp.asarray(x))
    exact = x.astype(np.float64)
    deviation = exact.std(axis=0, ddof=1)
    np.testing.assert_allclose(z, (exact - exact.mean(axis=0)) / deviation, atol=1e-4)
    np.testing.assert_allclose(log_det, -np.log(deviation).sum(), rtol=1e-5)


def test_a_feature_asleep_gets_the_scale_of_the_others(rng):
    x = rng.normal(size=(50, 3)).astype(np.float32) * np.array([2.0, 0.0, 4.0], np.float32)
    params = actnorm().init(jax.random.key(0), jnp.asarray(x))
    awake = x.std(axis=0, ddof=1)[[0, 2]]
    np.testing.assert_allclose(params["scale"][1], -np.log(awake.mean()), rtol=1e-5)


def test_a_column_in_other_units_leaves_the_flow_as_good_as_it_was(rng):
    rows = rng.normal(size=(600, 8))
    outliers = rng.normal(size=(200, 8)) + 3.0
    found = []
    for unit in (1.0, 1e6):
        columns = np.where(np.arange(8) == 5, unit, 1.0)
        fitted = flows.fit((rows[:400] * columns), **SMALL, epochs=1)
        found.append(metrics.auroc(scores_of(fitted, rows[400:] * columns), scores_of(fitted, outliers * columns)))
    assert found[0] > 0.98
    assert found[1] == pytest.approx(found[0], abs=0.005)


@pytest.mark.parametrize("preset", ["reference", "paper"])
def test_features_asleep_in_the_first_batch_do_not_break_the_start(rng, preset):
    """7 of 32 columns are 0 in the first 128 rows in file order and live in a tenth of the others."""
    rows = np.abs(rng.normal(size=(1024, 32)))
    rows[:, :7] *= rng.random((1024, 7)) < 0.1
    rows[:128, :7] = 0.0
    fitted = flows.fit(rows, **SMALL, epochs=1, preset=preset, shuffle=False)
    held_out = np.abs(rng.normal(size=(400, 32)))
    held_out[:, :7] *= rng.random((400, 7)) < 0.1
    scores = scores_of(fitted, held_out)
    assert scores.max() < 1e7, scores.max()  # 2e5 where the first batch is like the others, 1e14 from its zeros alone
    assert metrics.auroc(scores, scores_of(fitted, held_out + 4.0)) > 0.95


def test_where_no_feature_is_asleep_the_first_batch_alone_starts_the_flow(rng):
    rows = rng.normal(size=(300, 4)).astype(np.float32)
    order = np.arange(320).reshape(10, 32)
    order = np.where(order < 300, order, -1)
    np.testing.assert_array_equal(starting_rows(rows, order), rows[:32])


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("mixing", ["permutation"])
def test_a_flow_takes_rows_of_every_real_dtype(rng, mixing):
    flow = flows.quantod(dimension=4, blocks=1, layers=0, width=8, mixing=mixing)
    whole = np.rint(10 * rng.normal(size=(32, 4)))
    plain = jnp.asarray(whole, jnp.float32)
    want = flow.init(jax.random.key(0), plain)
    z, _ = flow.forward(want, plain)
    for dtype in ("float16", "bfloat16", "float64", "int64", "uint8"):
        given = np.abs(whole).astype(dtype) if dtype == "uint8" else whole.astype(jnp.dtype(dtype))
        params = flow.init(jax.random.key(0), given)
        if dtype != "uint8":
            jax.tree.map(np.testing.assert_array_equal, params, want)
            for transform in (flow.forward, flow.reverse_mode):
                got = transform(want, given)
                assert got[0].dtype == got[1].dtype == jnp.float32
                np.testing.assert_allclose(got[0], z, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(flow.inverse(want, np.asarray(z, np.float64))[0], plain, atol=1e-2)
        assert np.isfinite(flows.log_likelihood(flow, params, given)).all()
