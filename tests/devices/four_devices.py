"""Compare four CPU devices with one, in one process: python four_devices.py OUT.npz.

Started by test_devices.py with XLA_FLAGS=--xla_force_host_platform_device_count=4. Every pair of results is
stored under NAME|one and NAME|four.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from quantjax.classification import (
    CROSS_ENTROPY,
    augmented_rows,
    classifier_objective,
    energy_margin,
    start_of,
    vos,
)
from quantjax.extractors import NONE
from quantjax.extractors.convolution import Head
from quantjax.extractors.normalization import Mode
from quantjax.extractors.wrn import PreactivationBlock
from quantjax.flows.base import log_likelihood
from quantjax.flows.recipes import quantod
from quantjax.inference import map_batches
from quantjax.losses import likelihood_objective
from quantjax.parallel import data_parallel, device_summary, local_rows, pad_axis, replicate
from quantjax.train.loop import file_order, make_epoch, take_rows
from quantjax.train.step import accumulated, init_state, make_step
from quantjax.types import Batch, ClassifierOutput

STEPS = 10
KEY = jax.random.key(7)
DEVICES = {"one": jax.devices()[:1], "four": jax.devices()}
RESULTS: dict[str, Any] = {}


class OneBlock(nn.Module):
    """What a WideResNet is made of: synchronised batch norm, dropout and convolutions."""

    @nn.compact
    def __call__(self, images, train=False, mask=None, axis_name=None):
        x = PreactivationBlock(8, 2, dropout_rate=0.3)(images, Mode(train, mask, axis_name))
        return ClassifierOutput(*Head(3)(x), {})


def record(name: str, side: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        RESULTS[f"{name}{jax.tree_util.keystr(path)}|{side}"] = np.asarray(leaf)


def compare(name, value_and_grad, optimizer, params, model_state, data, batch, gather=take_rows):
    """Raw gradients, losses and statistics of ten steps and the parameters after them, on either number of devices."""
    for side, devices in DEVICES.items():
        traces = []

        def showing_gradients(*args, traces=traces, **options):
            traces.append(0)
            (loss, after, info), grads = value_and_grad(*args, **options)
            return (loss, after, {**info, "grad": grads}), grads

        epoch = make_epoch(make_step(showing_gradients, optimizer), gather)
        run = data_parallel(epoch, (None, None, 1, None), None, donate_argnums=(0,), devices=devices)
        order = pad_axis(file_order(len(data[0]), batch), 1, len(devices), -1)
        state = replicate(init_state(params, optimizer, model_state), devices, copy=True)
        arrays, key = replicate((data, KEY), devices)
        infos = []
        for i in range(STEPS):
            state, info = run(state, arrays, order[i % len(order)][None], key)
            infos.append(info)
        RESULTS[f"{name}.traces|{side}"] = np.asarray(len(traces))
        record(f"{name}.grad", side, infos[0].pop("grad"))
        record(f"{name}.first", side, infos[0])
        record(f"{name}.losses", side, [info["loss"] for info in infos])
        record(f"{name}.params", side, state.params)
        record(f"{name}.statistics", side, state.model_state)


def classifier(name: str, rows: int, batch: int, accumulate: int, how=CROSS_ENTROPY) -> None:
    """Stage 1: flip and crop, dropout, synchronised batch norm, SGD with momentum and weight decay."""
    rng = np.random.default_rng(0)
    data = (rng.integers(0, 256, (rows, 8, 8, 3), np.uint8), rng.integers(0, 3, rows).astype(np.int32))
    if how.auxiliary:
        data = (*data, rng.integers(0, 256, (7, 8, 8, 3), np.uint8))
    model = OneBlock()
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    value_and_grad = accumulated(classifier_objective(how, model, NONE), accumulate)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.02, momentum=0.9))
    parts = start_of(how, variables, STEPS * batch)
    compare(name, value_and_grad, optimizer, *parts, data, batch, augmented_rows(batch, how.auxiliary))


def flow() -> None:
    """Stage 2: every likelihood objective with dropout, Adam; then scores."""
    x = np.random.default_rng(1).normal(size=(26, 6)).astype(np.float32)
    model = quantod("glow", dimension=6, blocks=2, layers=1, width=16, dropout=0.3)
    params = jax.jit(model.init)(jax.random.key(0), x)
    density = partial(log_likelihood, model)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(1e-6), optax.adam(1e-3, eps=1e-4))
    for loss, form, batch in (("quantile", "two_row", 10), ("quantile", "plain", 8), ("mean", "plain", 10)):
        value_and_grad = likelihood_objective(density, model.draw_masks, q=0.3, draw_rows=batch, loss=loss, form=form)
        compare(f"{loss}-{form}", value_and_grad, optimizer, params, (), (x, None), batch)
    for side, devices in DEVICES.items():
        record("scores", side, map_batches(lambda x: -density(params, x), x, batch_size=10, devices=devices))


def seeds() -> None:
    """Five steps of a flow under vmap over two seeds, and one seed after the other."""
    x = jnp.asarray(np.random.default_rng(2).normal(size=(8, 4)), jnp.float32)
    model = quantod("glow", dimension=4, blocks=2, layers=0, width=8, dropout=0.3, mixing="permutation")
    optimizer = optax.adam(1e-3)
    step = make_step(likelihood_objective(partial(log_likelihood, model), model.draw_masks, q=0.3), optimizer)
    batch = Batch(x, None, jnp.ones(8, bool))

    def train(key):
        state = init_state(model.init(key, x), optimizer)
        state, infos = jax.lax.scan(lambda state, _: step(state, batch, key), state, None, length=5)
        return {"loss": infos["loss"], "params": state.params}

    keys = jax.random.split(KEY, 2)
    alone = jax.jit(train)
    record("seeds", "together", jax.jit(jax.vmap(train))(keys))
    record("seeds", "apart", jax.tree.map(lambda *leaves: jnp.stack(leaves), alone(keys[0]), alone(keys[1])))


def plumbing() -> None:
    """Split and joined along an axis that is not the first, donated state, a length that does not divide."""

    def double(state, x, axis_name):
        return jax.tree.map(lambda leaf: leaf + 1.0, state), x * 2 + local_rows(jnp.arange(12), axis_name)[None, :]

    run = data_parallel(double, (None, 1), (None, 1), donate_argnums=(0,))
    state = replicate({"w": jnp.ones(3)}, copy=True)
    _, RESULTS["joined"] = run(state, np.arange(24).reshape(2, 12))
    RESULTS["donated"] = np.asarray(state["w"].is_deleted())
    try:
        run(replicate({"w": jnp.ones(3)}), np.zeros((2, 10)))
    except ValueError as error:
        RESULTS["refusal"] = str(error)
    total = data_parallel(lambda state, axis_name: state["w"].sum(), (None,), None)
    RESULTS["total"] = np.asarray(total(replicate({"w": np.arange(3.0)})))
    RESULTS["summary"] = device_summary()


def main(path: str) -> None:
    assert jax.device_count() == 4, device_summary()
    jax.config.update("jax_default_matmul_precision", "highest")
    classifier("classifier", 26, 10, 1)
    classifier("accumulated", 24, 12, 3)
    classifier("auxiliary", 26, 10, 1, energy_margin(inlier_margin=-3.0, outlier_margin=2.0))
    classifier("virtual", 26, 10, 1, vos(start=0.3, queue=5, samples=100, head=("Head_0", "linear")))
    flow()
    seeds()
    plumbing()
    np.savez(path, **RESULTS)


if __name__ == "__main__":
    main(sys.argv[1])
