import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import gaussian

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_standard_density_of_the_origin_by_hand():
    # D = 2: -(2 / 2) log(2 pi) = -1.8378770664
    np.testing.assert_allclose(gaussian.standard_log_density(jnp.zeros((1, 2))), [-1.8378770664], rtol=1e-6)


def test_densities_equal_scipy(golden):
    want = golden("gaussian")
    x, means = jnp.asarray(want["x"]), jnp.asarray(want["means"])
    np.testing.assert_allclose(gaussian.standard_log_density(x), want["standard"], rtol=1e-5)
    diagonal = gaussian.diagonal_log_density(x, means, jnp.asarray(want["variances"]))
    np.testing.assert_allclose(diagonal, want["diagonal"], rtol=1e-5, atol=1e-5)
    factor = np.linalg.cholesky(want["covariance"])
    whitened, centres = (jnp.asarray(np.linalg.solve(factor, a.T).T, jnp.float32) for a in (x, means))
    tied = gaussian.tied_log_density(whitened, centres, 2 * np.log(np.diag(factor)).sum())
    np.testing.assert_allclose(tied, want["tied"], rtol=1e-5, atol=1e-5)


def test_unit_variances_make_all_three_agree(rng):
    x, means = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 3), (2, 3)))
    diagonal = gaussian.diagonal_log_density(x, means, jnp.ones((2, 3)))
    np.testing.assert_allclose(gaussian.tied_log_density(x, means, 0.0), diagonal, rtol=1e-5)
    np.testing.assert_allclose(gaussian.standard_log_density(x - means[:1]), diagonal[:, 0], rtol=1e-5)


def test_low_precision_inputs_are_computed_in_float32():
    x = jnp.full((1, 1000), 1.0, jnp.bfloat16)
    density = gaussian.standard_log_density(x)
    assert density.dtype == jnp.float32
    np.testing.assert_allclose(density, [-500.0 * (1 + math.log(2 * math.pi))], rtol=1e-6)


def test_distance_of_a_point_to_itself_is_not_negative():
    x = 100.0 + jax.random.normal(jax.random.key(0), (50, 7))
    distances = gaussian.squared_distances(x, x)
    assert float(distances.min()) >= 0.0
    np.testing.assert_allclose(jnp.diag(distances), np.zeros(50), atol=0.1)  # squares of 7e4 keep two decimals


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: gaussian.standard_log_density(jnp.zeros(3)), "x must have shape"),
        (lambda: gaussian.diagonal_log_density(jnp.zeros((2, 3)), jnp.zeros((4, 2)), jnp.ones((4, 2))), "mean must"),
        (
            lambda: gaussian.diagonal_log_density(jnp.zeros((2, 3)), jnp.zeros((4, 3)), jnp.ones((1, 3))),
            "variance must",
        ),
        (lambda: gaussian.squared_distances(jnp.zeros((2, 3)), jnp.zeros((2, 2))), "centres must"),
    ],
)
def test_wrong_shapes_name_the_argument(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_distances_by_a_product_are_those_of_differences_up_to_rounding(rng):
    x, centres = (rng.normal(3.0, 2.0, size).astype(np.float32) for size in ((7, 30), (20, 30)))
    expected = ((x[:, None, :].astype(np.float64) - centres) ** 2).sum(axis=2)
    found = gaussian.squared_distances_by_product(jnp.asarray(x), jnp.asarray(centres))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (np.asarray(gaussian.squared_distances_by_product(jnp.asarray(centres), jnp.asarray(centres))) >= 0).all()
