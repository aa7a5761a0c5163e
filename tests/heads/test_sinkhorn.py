import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.heads.sinkhorn import assign

run = jax.jit(assign, static_argnums=2)


def test_assignments_are_those_of_the_torch_loop(golden):
    rng = np.random.RandomState(4)  # the draws of make_heads.py
    classes = rng.choice(5, 3000, p=[0.6, 0.3, 0.09, 0.009, 0.001])
    log_density = (260 + 25 * rng.standard_normal((3000, 5))).astype(np.float32)
    got = np.asarray(run(jnp.asarray(log_density), jnp.asarray(classes, jnp.int32), 5))
    np.testing.assert_array_equal(got, golden("heads")["sinkhorn/assigned"])
    assert (got != log_density.argmax(axis=1)).mean() > 0.01  # balancing has changed some


def test_components_share_a_class_even_where_one_fits_best():
    """Six pixels that all prefer component 0, by different margins: with two components, three go to each."""
    margin = jnp.asarray([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    log_density = jnp.stack([margin - 5.0, jnp.full(6, -5.0)], axis=1)
    got = jax.jit(lambda x: assign(x, jnp.zeros(6, jnp.int32), 1, iterations=20))(log_density)
    np.testing.assert_array_equal(got, [1, 1, 1, 0, 0, 0])


def test_rows_without_a_class_change_nothing(rng):
    log_density = jnp.asarray(-30 + 9 * rng.normal(size=(40, 3)), jnp.float32)
    classes = jnp.asarray(rng.integers(0, 2, 40), jnp.int32)
    alone = run(log_density, classes, 2)
    more = jnp.concatenate([log_density, jnp.full((5, 3), jnp.nan)])
    with_others = run(more, jnp.concatenate([classes, jnp.full(5, 2, jnp.int32)]), 2)
    np.testing.assert_array_equal(with_others[:40], alone)


def test_all_zero_densities_go_to_the_first_component():
    np.testing.assert_array_equal(run(jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32), 1), 0)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="temperature must lie in"):
        assign(jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32), 1, temperature=0.0)
    with pytest.raises(ValueError, match=r"classes must have shape \[4\]"):
        assign(jnp.zeros((4, 3)), jnp.zeros(5, jnp.int32), 1)


def shares_in_float64(log_density, temperature, iterations=3):
    """The loop of the module's formula, for one class."""
    q = np.exp(log_density.astype(np.float64) / (temperature * np.abs(log_density).max()))
    for _ in range(iterations):
        q = q / q.sum(axis=0)
        q = q / q.sum(axis=1, keepdims=True)
    return q.argmax(axis=1)


@pytest.mark.parametrize(("temperature", "far"), [(0.05, None), (0.01, None), (0.015, -280.0), (0.003, None)])
def test_low_temperatures_and_far_pixels_share_as_float64_does(rng, temperature, far):
    """exp(-1 / 0.01) is no float32: every share was 0 / 0, whose largest is the first."""
    log_density = (-260 + 9 * rng.normal(size=(300, 4))).astype(np.float32)
    if far is not None:
        log_density = -log_density
        log_density[7] = far + np.arange(4)
    classes = jnp.zeros(300, jnp.int32)
    got = np.asarray(jax.jit(lambda x: assign(x, classes, 1, temperature=temperature))(jnp.asarray(log_density)))
    want = shares_in_float64(log_density, temperature)
    assert (got != want).mean() <= 0.01  # near ties
    assert np.bincount(want, minlength=4).min() > 40


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_any_real_dtype_is_assigned_as_float32_is(rng, dtype):
    log_density = np.rint(-30 + 9 * rng.normal(size=(40, 3))).astype(jnp.dtype(dtype))
    classes = jnp.asarray(rng.integers(0, 2, 40), jnp.int32)
    np.testing.assert_array_equal(run(log_density, classes, 2), run(log_density.astype(np.float32), classes, 2))
