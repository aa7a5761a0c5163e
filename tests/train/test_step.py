"""Numbers by hand: one parameter vector, squared error, two rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from quantjax.train.step import TrainState, accumulated, init_state, make_step, objective
from quantjax.types import Batch

KEY = jax.random.key(0)


def squared_error(params, model_state, batch, key, axis_name=None):
    """0.5 (x . w - y)^2 per row; counts its calls in the model state."""
    del key, axis_name
    error = batch.inputs @ params["w"] - batch.labels
    return 0.5 * error**2, model_state + 1, {"error": error}


def batch_of(inputs, labels, mask):
    return Batch(jnp.asarray(inputs, jnp.float32), jnp.asarray(labels, jnp.float32), jnp.asarray(mask))


BATCH = batch_of([[1.0, 2.0], [3.0, -1.0], [9.0, 9.0]], [1.0, 0.0, 7.0], [True, True, False])


def test_objective_is_the_mean_over_rows_that_are_no_padding():
    params = {"w": jnp.array([1.0, 0.5])}
    (loss, model_state, info), grads = objective(squared_error)(params, jnp.zeros(()), BATCH, KEY)
    # errors: 1 + 1 - 1 = 1 and 3 - 0.5 = 2.5; loss (0.5 + 3.125) / 2; gradient (1 [1, 2] + 2.5 [3, -1]) / 2
    assert float(loss) == pytest.approx(1.8125)
    np.testing.assert_allclose(grads["w"], [4.25, -0.25])
    assert float(info["error"]) == pytest.approx(1.75)
    assert float(model_state) == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_stands_in_a_padded_row_does_not_matter_to_the_loss(value):
    padded = BATCH._replace(labels=BATCH.labels.at[2].set(value))
    params = {"w": jnp.array([1.0, 0.5])}
    assert float(objective(squared_error)(params, 0.0, padded, KEY)[0][0]) == pytest.approx(1.8125)


def test_a_batch_of_padding_only_gives_zero():
    (loss, _, _), grads = objective(squared_error)(
        {"w": jnp.ones(2)}, 0.0, BATCH._replace(mask=jnp.zeros(3, bool)), KEY
    )
    assert float(loss) == 0.0
    np.testing.assert_array_equal(grads["w"], [0.0, 0.0])


def test_two_steps_of_sgd_with_momentum_and_weight_decay_by_hand():
    decay, rate, momentum = 0.1, 0.2, 0.9
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum=momentum))
    step = make_step(objective(squared_error), optimizer)
    state = init_state({"w": jnp.array([1.0, 0.5])}, optimizer, jnp.zeros(()))
    x, y = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([1.0, 0.0])
    w, velocity = np.array([1.0, 0.5]), np.zeros(2)
    for i in range(2):
        state, info = step(state, BATCH, KEY)
        assert float(info["loss"]) == pytest.approx(0.5 * np.mean((x @ w - y) ** 2), rel=1e-5)
        velocity = momentum * velocity + (x.T @ (x @ w - y) / 2 + decay * w)
        w = w - rate * velocity
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
        assert int(state.step) == i + 1
        assert float(state.model_state) == i + 1


def test_the_key_of_a_step_is_folded_from_the_step_count():
    def seen(params, model_state, batch, key, axis_name=None):
        bits = jax.random.uniform(key)
        return (bits, model_state, {}), jax.tree.map(jnp.zeros_like, params)

    step = make_step(seen, optax.sgd(0.0))
    state = TrainState({"w": jnp.ones(2)}, (), optax.sgd(0.0).init({"w": jnp.ones(2)}), jnp.int32(5))
    after, info = step(state, BATCH, KEY)
    assert float(info["loss"]) == float(jax.random.uniform(jax.random.fold_in(KEY, 5)))
    assert float(step(after, BATCH, KEY)[1]["loss"]) == float(jax.random.uniform(jax.random.fold_in(KEY, 6)))


def test_training_vmapped_over_seeds_equals_separate_runs():
    def noisy(params, model_state, batch, key, axis_name=None):
        keep = jax.random.bernoulli(key, 0.7, batch.inputs.shape)
        losses, _, info = squared_error(params, 0, batch._replace(inputs=batch.inputs * keep), key)
        return losses, model_state, info

    optimizer = optax.adam(0.05)
    step = make_step(objective(noisy), optimizer)

    def train(key):
        state = init_state({"w": jax.random.normal(key, (2,))}, optimizer)
        return jax.lax.scan(lambda state, _: step(state, BATCH, key), state, None, length=10)

    keys = jax.random.split(jax.random.key(3), 2)
    together, infos = jax.vmap(train)(keys)
    for i in range(2):
        alone, info = train(keys[i])
        np.testing.assert_allclose(together.params["w"][i], alone.params["w"], rtol=1e-6)
        np.testing.assert_allclose(infos["loss"][i], info["loss"], rtol=1e-5)
    assert not np.allclose(together.params["w"][0], together.params["w"][1])


def test_gradients_accumulated_in_parts_are_those_of_the_whole_batch():
    rng = np.random.default_rng(0)
    mask = np.arange(9) < 7  # two rows of padding, and nine rows are not two equal parts
    batch = batch_of(rng.normal(size=(9, 2)), rng.normal(size=9), mask)
    params = {"w": jnp.array([1.0, 0.5])}
    (loss, _, info), grads = objective(squared_error)(params, jnp.zeros(()), batch, KEY)
    (same, parts, same_info), same_grads = accumulated(objective(squared_error), 2)(params, jnp.zeros(()), batch, KEY)
    assert float(same) == pytest.approx(float(loss), rel=1e-6)
    assert float(same_info["error"]) == pytest.approx(float(info["error"]), rel=1e-6)
    np.testing.assert_allclose(same_grads["w"], grads["w"], rtol=1e-6)
    assert float(parts) == 2.0


def test_a_part_without_rows_leaves_no_trace_and_parts_draw_apart():
    def noisy(params, model_state, batch, key, axis_name=None):
        return jax.random.uniform(key, batch.mask.shape), model_state + 1, {}

    batch = BATCH._replace(mask=jnp.array([True, True, False]))
    (loss, parts, _), _ = accumulated(objective(noisy), 3)({"w": jnp.ones(2)}, jnp.zeros(()), batch, KEY)
    draws = [float(jax.random.uniform(jax.random.fold_in(KEY, i), (1,))[0]) for i in range(3)]
    assert float(loss) == pytest.approx((draws[0] + draws[1]) / 2)
    assert float(parts) == 2.0


def test_one_part_is_the_objective_itself():
    whole = objective(squared_error)
    assert accumulated(whole, 1) is whole
