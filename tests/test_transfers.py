"""The hot loops send their batches and nothing else; a forgotten upload of weights raises here.

On a CPU the guard sees what goes to the device alone, on an accelerator also what comes back.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from quantjax.inference import batched, sliding
from quantjax.parallel import data_parallel, replicate
from quantjax.train import fit, fit_stream, init_state, make_step, objective, shuffled_order

ROWS, BATCH = 12, 4
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(ROWS, 3)).astype(np.float32), RNG.normal(size=ROWS).astype(np.float32)
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
WEIGHTS = {"w": np.array([0.5, -0.5, 1.0], np.float32)}


def squared_error(params, model_state, batch, key, axis_name=None):
    inputs = batch.inputs * jax.random.bernoulli(key, 0.8, batch.inputs.shape)
    return (inputs @ params["w"] - batch.labels) ** 2, model_state, {}


def train_resident(whole_epochs):
    state = init_state(WEIGHTS, OPTIMIZER)
    step = make_step(objective(squared_error), OPTIMIZER)
    key = jax.random.key(0)

    def run():
        return fit(
            step, state, (X, Y), lambda epoch: shuffled_order(0, epoch, ROWS, BATCH), epochs=2, key=key,
            report=lambda step, metrics: None, whole_epochs=whole_epochs,
        )  # fmt: skip

    return run


def train_stream():
    def loss(params, model_state, batch, key, axis_name):
        frozen, rows = batch
        error = (rows["x"] @ params["w"] + frozen["b"]) ** 2
        return (error.mean(), model_state, {}), {"w": jnp.ones(3)}

    state, key = init_state(WEIGHTS, OPTIMIZER), jax.random.key(0)
    step = make_step(loss, OPTIMIZER)

    def run():
        def batches(first):
            return iter([{"x": X[:BATCH]}] * 5)

        return fit_stream(step, state, batches, steps=4, key=key, frozen={"b": np.ones(BATCH, np.float32)})

    return run


def score_rows():
    run = batched(lambda weights, x: x @ weights["w"], batch_size=BATCH, shared=1)
    weights = replicate(WEIGHTS)
    return lambda: run(weights, X)


def score_windows():
    run = sliding(
        lambda weights, x: x * weights["w"].reshape(1, 1, 1, 3), lambda maps: maps.sum(-1),
        window=(4, 4), stride=(2, 2), batch_size=2,
    )  # fmt: skip
    weights, image = replicate(WEIGHTS), RNG.normal(size=(6, 8, 3)).astype(np.float32)
    return lambda: run(weights, image)


LOOPS = {
    "resident, by step": lambda: train_resident(False),
    "resident, by epoch": lambda: train_resident(True),
    "stream": train_stream,
    "batches": score_rows,
    "windows": score_windows,
}


@pytest.mark.parametrize("name", LOOPS)
def test_hot_loops_move_nothing_behind_the_callers_back(name):
    run = LOOPS[name]()
    run()  # compiling may send constants
    with jax.transfer_guard("disallow"):
        result = run()
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(result))


def test_the_guard_sees_weights_that_are_sent_again():
    run = data_parallel(lambda weights, x, axis_name: x @ weights["w"], (None, 0), 0)
    x = replicate(X)
    run(replicate(WEIGHTS), x)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run(WEIGHTS, x)
