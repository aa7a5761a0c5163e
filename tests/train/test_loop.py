"""Orders, the compiled epoch, and runs that are stopped and resumed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from quantjax.parallel import data_parallel
from quantjax.train import checkpoint
from quantjax.train.loop import file_order, fit, make_epoch, shuffled_order, take_rows
from quantjax.train.step import init_state, make_step, objective

KEY = jax.random.key(5)
ROWS, BATCH = 11, 4
OPTIMIZER = optax.adam(0.05)
RNG = np.random.default_rng(0)
DATA = (RNG.normal(size=(ROWS, 3)).astype(np.float32), RNG.normal(size=ROWS).astype(np.float32))


def noisy_error(params, model_state, batch, key, axis_name=None):
    keep = jax.random.bernoulli(key, 0.8, batch.inputs.shape)
    error = jnp.tanh(batch.inputs * keep) @ params["w"] - batch.labels
    return error**2, model_state + batch.mask.sum(), {}


STEP = make_step(objective(noisy_error), OPTIMIZER)


def start():
    return init_state({"w": jnp.array([0.5, -0.5, 1.0])}, OPTIMIZER, jnp.zeros((), jnp.int32))


def order(epoch):
    return shuffled_order(0, epoch, ROWS, BATCH)


def assert_same(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_file_order_fills_the_last_batch_with_padding():
    np.testing.assert_array_equal(file_order(5, 2), [[0, 1], [2, 3], [4, -1]])


def test_shuffled_order_holds_every_row_once_and_depends_on_seed_and_epoch_only():
    first = shuffled_order(3, 1, 10, 4)
    assert sorted(first[first >= 0]) == list(range(10))
    assert (first[-1] == -1).sum() == 2
    np.testing.assert_array_equal(first, shuffled_order(3, 1, 10, 4))
    assert (first != shuffled_order(3, 2, 10, 4)).any()
    assert (first != shuffled_order(4, 1, 10, 4)).any()


@pytest.mark.parametrize(("rows", "batch"), [(0, 4), (4, 0)])
def test_an_order_of_nothing_is_an_error(rows, batch):
    with pytest.raises(ValueError, match="at least one row"):
        file_order(rows, batch)


def test_one_scan_equals_calls_of_one_step_each():
    traces = []

    def counted(*args):
        traces.append(args[2].shape)
        return make_epoch(STEP)(*args)

    run = data_parallel(lambda *args, axis_name: counted(*args, axis_name), (None, None, 1, None), None)
    whole, infos = run(start(), DATA, order(0), KEY)
    state, losses = start(), []
    for rows in order(0):
        state, info = run(state, DATA, rows[None], KEY)
        losses.append(float(info["loss"][0]))
    assert infos["loss"].shape == (3,)
    np.testing.assert_allclose(infos["loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(whole.params["w"], state.params["w"], rtol=1e-5)
    assert traces == [(3, 4), (1, 4)]
    assert int(whole.model_state) == ROWS  # padded rows are masked


def test_gather_draws_anew_in_each_step():
    def gather(data, rows, key, axis_name=None):
        return jax.random.normal(key, (len(rows), 3)), jnp.asarray(data[1])[rows]

    def shown(params, model_state, batch, key, axis_name=None):
        return batch.inputs[:, 0], model_state, {}

    step = make_step(objective(shown), OPTIMIZER)
    _, infos = make_epoch(step, gather)(start(), DATA, file_order(8, 4), KEY)
    assert infos["loss"][0] != infos["loss"][1]
    inputs, labels = take_rows(DATA, jnp.array([2, 0]), KEY)
    np.testing.assert_array_equal(inputs, DATA[0][[2, 0]])
    np.testing.assert_array_equal(labels, DATA[1][[2, 0]])
    assert take_rows((DATA[0], None), jnp.array([1]), KEY)[1] is None


@pytest.mark.parametrize("whole_epochs", [True, False])
def test_a_stopped_and_resumed_run_gives_the_very_numbers_of_one_in_one_go(tmp_path, whole_epochs):
    def run(epochs, folder, resume=False):
        seen = []
        state = fit(
            STEP, start(), DATA, order, epochs=epochs, key=KEY, checkpoints=folder, resume=resume,
            report=lambda step, metrics: seen.append((step, metrics)), whole_epochs=whole_epochs,
        )  # fmt: skip
        return state, seen

    straight, curve = run(4, tmp_path / "straight")
    _, early = run(2, tmp_path / "stopped")
    resumed, late = run(4, tmp_path / "stopped", resume=True)
    assert_same(straight, resumed)
    assert early + late == curve
    assert [step for step, _ in curve] == [3, 6, 9, 12]
    assert [metrics["epoch"] for _, metrics in curve] == [1, 2, 3, 4]
    finished, nothing = run(4, tmp_path / "stopped", resume=True)
    assert_same(straight, finished)
    assert nothing == []


def test_a_kill_loses_at_most_the_epoch_in_flight(tmp_path):
    def die(epoch, state):
        if epoch == 3:
            raise KeyboardInterrupt

    common = {"epochs": 4, "key": KEY, "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        fit(STEP, start(), DATA, order, checkpoints=tmp_path, after_epoch=die, **common)
    assert checkpoint.latest(tmp_path) == 2
    resumed = fit(STEP, start(), DATA, order, checkpoints=tmp_path, resume=True, **common)
    assert_same(resumed, fit(STEP, start(), DATA, order, **common))


def test_epochs_that_are_quicker_than_the_interval_wait_for_the_last_to_be_saved(tmp_path):
    seen = []
    fit(STEP, start(), DATA, order, epochs=3, key=KEY, checkpoints=tmp_path, checkpoint_seconds=1e6,
        after_epoch=lambda epoch, state: seen.append(checkpoint.latest(tmp_path)))  # fmt: skip
    assert seen == [None, None, None]
    assert checkpoint.latest(tmp_path) == 3


def test_reported_loss_is_the_mean_over_rows_and_the_initial_state_survives():
    seen = {}
    rows = np.array([[0, 1, 2], [3, -1, -1]], np.int32)
    state = init_state(start().params, optax.set_to_zero(), start().model_state)

    def plain(params, model_state, batch, key, axis_name=None):
        return batch.labels, model_state, {"first": batch.inputs[:, 0]}

    frozen = make_step(objective(plain), optax.set_to_zero())
    fit(frozen, state, DATA, lambda epoch: rows, epochs=1, key=KEY, report=lambda step, m: seen.update(m))
    assert seen["loss"] == pytest.approx(DATA[1][:4].mean(), rel=1e-5)
    assert seen["first"] == pytest.approx(DATA[0][:4, 0].mean(), rel=1e-5)
    np.testing.assert_array_equal(state.params["w"], [0.5, -0.5, 1.0])  # not donated


def test_data_may_change_from_epoch_to_epoch():
    def shown(params, model_state, batch, key, axis_name=None):
        return batch.inputs[:, 0], model_state, {}

    views, seen = np.arange(3, dtype=np.float32), []
    fit(
        make_step(objective(shown), OPTIMIZER), start(), lambda epoch: (np.full((4, 1), views[epoch % 2]), None),
        lambda epoch: file_order(4, 2), epochs=3, key=KEY, report=lambda step, m: seen.append(m["loss"]),
    )  # fmt: skip
    assert seen == [0.0, 1.0, 0.0]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_saved(tmp_path):
    data = (DATA[0].copy(), DATA[1])

    def poisoned(epoch):
        if epoch == 1:
            data[0][order(1)[2, 0]] = np.nan
        return data

    with pytest.raises(FloatingPointError, match=r"epoch 2, step 3 of 3; lower the learning rate.*1 finished epochs"):
        fit(STEP, start(), poisoned, order, epochs=3, key=KEY, checkpoints=tmp_path, checkpoint_seconds=0.0)
    assert checkpoint.latest(tmp_path) == 1


def test_a_parameter_that_is_not_finite_stops_the_run_though_the_loss_was():
    def infinite_gradient(params, model_state, batch, key, axis_name=None):
        grads = jax.tree.map(lambda p: p * jnp.inf, params)
        return (jnp.zeros(()), model_state, {}), grads

    with pytest.raises(FloatingPointError, match=r"parameter \['w'\] is no longer finite in epoch 1"):
        fit(make_step(infinite_gradient, optax.sgd(1.0)), init_state({"w": jnp.ones(3)}, optax.sgd(1.0)), DATA,
            lambda epoch: file_order(2, 2), epochs=1, key=KEY)  # fmt: skip


def test_a_folder_with_a_run_in_it_is_not_overwritten(tmp_path):
    fit(STEP, start(), DATA, order, epochs=1, key=KEY, checkpoints=tmp_path)
    with pytest.raises(ValueError, match="holds a run that got to 1; resume it"):
        fit(STEP, start(), DATA, order, epochs=2, key=KEY, checkpoints=tmp_path)
    for key in (jax.random.key(6), jax.random.key(5, impl="unsafe_rbg")):
        with pytest.raises(ValueError, match="another random key"):
            fit(STEP, start(), DATA, order, epochs=2, key=key, checkpoints=tmp_path, resume=True)
