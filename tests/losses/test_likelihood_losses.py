"""Losses against torch, and the forms of the objective against each other in raw gradients.

Run as a program, this file compares four devices with one and prints the differences as JSON; the test starts it.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import losses
from quantjax.types import Batch

pytestmark = pytest.mark.usefixtures("strict_dtypes")

D, WIDTH, ROWS, Q = 5, 8, 22, 0.13  # h = 0.13 * 21 = 2.73: two rows with weights 0.27 and 0.73


def network_parameters():
    first, second = jax.random.split(jax.random.key(0))
    return {"in": jax.random.normal(first, (D, WIDTH)), "out": 5 * jax.random.normal(second, (WIDTH, 1))}


def log_likelihood(params, x, masks):
    hidden = jnp.tanh(x @ params["in"])
    if masks is not None:
        hidden = jnp.where(masks["hidden"][0], hidden / 0.7, 0.0)
    return (hidden @ params["out"])[:, 0]


def draw_masks(key, rows):
    return {"hidden": jax.random.bernoulli(key, 0.7, (1, rows, WIDTH))}


def batch_of(rows, padded=0):
    x = jax.random.normal(jax.random.key(1), (rows, D))
    x = jnp.concatenate([x, 9 * jnp.ones((padded, D))])
    return Batch(x, None, jnp.arange(rows + padded) < rows)


def run(batch, key=None, draw=draw_masks, **settings):
    objective = losses.likelihood_objective(log_likelihood, draw, **settings)
    return objective(network_parameters(), None, batch, jax.random.key(2) if key is None else key)


def four_devices(loss, form, rows):
    """Largest difference to one device of the loss, of any device's raw gradients, and of the reported mean."""
    settings = dict(loss=loss, form=form, q=Q)
    (value, _, info), grads = run(batch_of(rows), **settings)
    padded = batch_of(rows, -rows % 4)
    shares = Batch(padded.inputs.reshape(4, -1, D), None, padded.mask.reshape(4, -1))
    objective = losses.likelihood_objective(log_likelihood, draw_masks, draw_rows=rows, **settings)
    spread = jax.pmap(partial(objective, axis_name="d"), axis_name="d", in_axes=(None, None, 0, None))
    (values, _, infos), many = spread(network_parameters(), None, shares, jax.random.key(2))
    gap = jax.tree.map(lambda one, all_: float(np.abs(np.asarray(all_) - np.asarray(one)[None]).max()), grads, many)
    return {
        "loss": float(np.abs(np.asarray(values) - float(value)).max()),
        "gradient": max(gap.values()),
        "scale": max(float(jnp.abs(g).max()) for g in grads.values()),
        "mean": float(np.abs(np.asarray(infos["mean_log_likelihood"]) - float(info["mean_log_likelihood"])).max()),
    }


# --- values and gradients against torch ---


def summed_over_ties(values, gradient):
    return np.array([gradient[values == v].sum() for v in np.unique(values)])


def test_quantile_equals_torch_in_value_and_gradient(golden):
    want = golden("losses")
    for name in want["names"]:
        values = want[name]
        for i, q in enumerate(want["qs"]):
            loss, gradient = jax.value_and_grad(losses.quantile_nll)(jnp.asarray(values), float(q))
            np.testing.assert_allclose(-loss, want[f"{name}_value_{i}"], rtol=1e-6, atol=1e-6, err_msg=f"{name} {q}")
            ours = summed_over_ties(values, -np.asarray(gradient))
            theirs = summed_over_ties(values, want[f"{name}_gradient_{i}"])
            np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=f"{name} {q}")


def test_quantile_by_hand():
    # n = 5, q = 0.3: h = 1.2, sorted 1 2 4 8 16: 2 + 0.2 * (4 - 2) = 2.4, from rows 3 and 1
    values = jnp.asarray([8.0, 4.0, 16.0, 2.0, 1.0])
    np.testing.assert_allclose(losses.quantile_nll(values, 0.3), -2.4, rtol=1e-6)
    rows, weights = losses.quantile_rows(values, 0.3)
    assert rows.tolist() == [3, 1]
    assert rows.dtype == jnp.int32
    np.testing.assert_allclose(weights, [0.8, 0.2], rtol=1e-5)


def test_mean_and_min_by_hand():
    values = jnp.asarray([3.0, -5.0, 4.0, 100.0])
    mask = jnp.asarray([True, True, True, False])
    np.testing.assert_allclose(losses.mean_nll(values, mask), -2.0 / 3.0, rtol=1e-6)
    np.testing.assert_allclose(losses.mean_nll(values), -25.5, rtol=1e-6)
    assert float(losses.min_nll(values)) == 5.0
    np.testing.assert_array_equal(jax.grad(losses.min_nll)(values), [0.0, -1.0, 0.0, 0.0])


def test_cross_entropy_equals_torch(golden):
    want = golden("losses")
    ours = losses.cross_entropy(jnp.asarray(want["logits"]), jnp.asarray(want["labels"]))
    np.testing.assert_allclose(ours, want["cross_entropy"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("filler", [-1e9, 1e9, np.inf, -np.inf, np.nan])
def test_padded_rows_never_enter(rng, filler):
    values = rng.normal(size=9).astype(np.float32)
    place = np.array([0, 3, 4, 5, 7, 8, 9, 11, 12])  # padding need not come last
    padded, mask = np.full(13, filler, np.float32), np.zeros(13, bool)
    padded[place], mask[place] = values, True
    for loss in (partial(losses.quantile_nll, q=0.4), losses.mean_nll, losses.min_nll):
        value, gradient = jax.value_and_grad(lambda v, loss=loss: loss(v))(jnp.asarray(values))
        again, wide = jax.value_and_grad(lambda v, loss=loss: loss(v, mask=jnp.asarray(mask)))(jnp.asarray(padded))
        np.testing.assert_allclose(again, value, rtol=1e-6)
        np.testing.assert_allclose(wide[place], gradient, rtol=1e-6)
        assert not np.asarray(wide)[~mask].any()


def test_infinite_row_is_not_mistaken_for_padding():
    values = jnp.asarray([7.0, jnp.inf, 1.0])
    rows, _ = losses.quantile_rows(values, 0.9, jnp.asarray([False, True, True]))
    assert rows.tolist() == [2, 1]


def test_nan_row_makes_the_loss_nan_as_in_torch():
    assert np.isnan(losses.quantile_nll(jnp.asarray([1.0, jnp.nan, 2.0]), 0.0))


def test_a_share_of_padding_only_weighs_nothing():
    assert float(losses.quantile_nll(jnp.ones(3), 0.05, jnp.zeros(3, bool))) == 0.0
    assert float(losses.mean_nll(jnp.ones(3), jnp.zeros(3, bool))) == 0.0


# --- the objective ---


@pytest.mark.parametrize("loss", ["quantile", "min"])
@pytest.mark.parametrize("padded", [0, 3])
def test_two_rows_equal_the_plain_form_with_dropout_on(loss, padded):
    batch = batch_of(ROWS, padded)
    (plain, _, _), want = run(batch, loss=loss, q=Q, form="plain")
    (two, _, _), got = run(batch, loss=loss, q=Q)
    np.testing.assert_allclose(two, plain, rtol=1e-6)
    scale = max(float(jnp.abs(g).max()) for g in want.values())
    assert scale > 0.1
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-4 * scale)  # small entries are differences


def test_second_pass_takes_rows_of_the_same_masks():
    masks = draw_masks(jax.random.key(2), ROWS)
    batch = batch_of(ROWS)

    def direct(params):
        return losses.quantile_nll(log_likelihood(params, batch.inputs, masks), Q)

    want = jax.grad(direct)(network_parameters())
    got = run(batch, q=Q)[1]
    other = run(batch, key=jax.random.key(3), q=Q)[1]
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)
        assert np.abs(other[name] - want[name]).max() > 1e-2


def test_two_row_form_differentiates_two_rows_only():
    seen = []

    def watched(params, x, masks):
        seen.append(x.shape)
        return log_likelihood(params, x, masks)

    objective = losses.likelihood_objective(watched, draw_masks, q=Q)
    objective(network_parameters(), None, batch_of(ROWS), jax.random.key(2))
    assert seen == [(ROWS, D), (2, D)]


def test_mean_objective_and_info():
    batch = batch_of(ROWS, 2)
    (value, state, info), _ = run(batch, loss="mean", draw=None)
    want = float(log_likelihood(network_parameters(), batch.inputs[:ROWS], None).mean())
    np.testing.assert_allclose(value, -want, rtol=1e-5)
    np.testing.assert_allclose(info["mean_log_likelihood"], want, rtol=1e-5)
    assert state is None


def test_one_row_batch():
    (value, _, _), grads = run(batch_of(1), draw=None)
    want = jax.grad(lambda p: -log_likelihood(p, batch_of(1).inputs, None)[0])(network_parameters())
    assert np.isfinite(value)
    for name in want:
        np.testing.assert_allclose(grads[name], want[name], rtol=1e-5)


def test_other_batch_of_the_same_shape_does_not_retrace():
    traces = []

    def counted(params, x, masks):
        traces.append(1)
        return log_likelihood(params, x, masks)

    step = jax.jit(losses.likelihood_objective(counted, draw_masks))
    for seed in (2, 3):
        step(network_parameters(), None, batch_of(ROWS), jax.random.key(seed))
    assert len(traces) == 2  # the forward pass and the two rows, each traced once


def test_four_devices_equal_one_in_raw_gradients():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    environment = dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
    root = str(Path(losses.__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    program = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=False)
    assert program.returncode == 0, program.stderr
    table = json.loads(program.stdout)
    assert len(table) == 8
    for case, gap in table.items():
        assert gap["scale"] > 0.1, case
        assert gap["gradient"] <= 1e-5 * gap["scale"], (case, gap)
        assert gap["loss"] <= 1e-5, (case, gap)
        assert gap["mean"] <= 1e-5, (case, gap)


# --- errors ---


@pytest.mark.parametrize("q", [-0.01, 1.0, 5.0, float("nan")])
def test_q_outside_the_interval_names_the_way_out(q):
    with pytest.raises(ValueError, match=r"q must lie in \[0, 1\), got .*loss=\"mean\""):
        losses.quantile_nll(jnp.zeros(3), q)
    with pytest.raises(ValueError, match="q must lie"):
        losses.likelihood_objective(log_likelihood, q=q)
    losses.likelihood_objective(log_likelihood, loss="mean", q=q)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: losses.quantile_nll(jnp.zeros((3, 1)), 0.1), "log_likelihoods must have shape"),
        (lambda: losses.quantile_nll(jnp.zeros(0), 0.1), "at least one row"),
        (lambda: losses.mean_nll(jnp.zeros(3), jnp.ones(4, bool)), "mask must have shape"),
        (lambda: losses.cross_entropy(jnp.zeros((3, 2)), jnp.zeros(4, int)), "labels must have shape"),
        (lambda: losses.likelihood_objective(log_likelihood, loss="median"), "loss must be one of"),
        (lambda: losses.likelihood_objective(log_likelihood, form="fast"), "form must be one of"),
        (lambda: run(batch_of(3), draw_rows=4), "draw_rows must be at most"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parity
def test_quantile_equals_torch_live(rng):
    torch = pytest.importorskip("torch")
    for size in (1, 2, 63, 128, 513):
        values, q = rng.normal(size=size).astype(np.float32), float(rng.uniform(0, 0.999))
        theirs = torch.tensor(values, requires_grad=True)
        quantile = torch.quantile(theirs, q)
        quantile.backward()
        ours, gradient = jax.value_and_grad(losses.quantile_nll)(jnp.asarray(values), q)
        np.testing.assert_allclose(-ours, quantile.item(), rtol=1e-5)
        np.testing.assert_allclose(-gradient, theirs.grad.numpy(), atol=1e-4)


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    cases = [("quantile", "two_row"), ("quantile", "plain"), ("mean", "plain"), ("min", "two_row")]
    print(json.dumps({f"{a} {b} {rows}": four_devices(a, b, rows) for a, b in cases for rows in (24, ROWS)}))
