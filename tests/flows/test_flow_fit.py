"""flows.fit: what a call gives back, resumes, and refuses; its numbers are those of a loop written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from quantjax import flows, losses
from quantjax.train import file_order

TINY = {"blocks": 1, "layers": 0, "width": 8, "batch_size": 16}


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(64, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)


@pytest.fixture(autouse=True)
def loose_ranks():
    """optax's updates promote."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_a_fitted_flow_and_its_curve(features):
    reports, epochs = [], []
    fitted = flows.fit(
        features, **TINY, epochs=3, report=lambda step, m: reports.append((step, m["loss"])),
        after_epoch=lambda epoch, params: epochs.append(epoch),
    )  # fmt: skip
    assert epochs == fitted.curve.epochs.tolist() == [1, 2, 3]
    assert [step for step, _ in reports] == [4, 8, 12]
    np.testing.assert_allclose(fitted.curve.loss, [loss for _, loss in reports])
    assert np.isfinite(fitted.curve.mean_log_likelihood).all()
    scores = -flows.log_likelihood(flows.quantod(**fitted.settings), fitted.params, jnp.asarray(features))
    far = -flows.log_likelihood(flows.quantod(**fitted.settings), fitted.params, jnp.full((1, 4), 30.0))
    assert far[0] > scores.max()


def test_the_reference_preset_by_hand(features):
    """Rows in file order, clipped Adam with betas of 0.8, the mean loss, dropout off: one epoch of two steps."""
    given = {**TINY, "batch_size": 32, "preset": "reference", "loss": "mean", "dropout": 0.0, "seed": 3}
    fitted = flows.fit(features, **given, epochs=1)
    flow = flows.quantod("glow", dimension=4, blocks=1, layers=0, width=8, dropout=0.0, mixing="permutation")
    params = flow.init(jax.random.fold_in(jax.random.key(3), 2), jnp.asarray(features[:32]))
    adam = optax.adam(9e-5, b1=0.8, b2=0.8, eps=1e-4)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(1e-6), adam)
    slope = jax.value_and_grad(lambda p, x: losses.mean_nll(flows.log_likelihood(flow, p, x)))
    state, values = optimizer.init(params), []
    for rows in file_order(64, 32):
        value, grads = slope(params, features[rows])
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        values.append(float(value))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), fitted.params, params)
    np.testing.assert_allclose(fitted.curve.loss, [np.mean(values)], rtol=1e-5)
    np.testing.assert_allclose(fitted.curve.mean_log_likelihood, -fitted.curve.loss, rtol=1e-5)


def test_a_resumed_fit_goes_on_as_if_nothing_had_happened(features, tmp_path):
    whole = flows.fit(features, **TINY, epochs=2)
    flows.fit(features, **TINY, epochs=1, checkpoints=tmp_path)
    resumed = flows.fit(features, **TINY, epochs=2, checkpoints=tmp_path, resume=True)
    assert resumed.curve.epochs.tolist() == [2]
    assert resumed.curve.loss[0] == whole.curve.loss[1]
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)


def test_an_epoch_sees_its_view(features):
    """Of two views the first epoch sees the first alone."""
    one = flows.fit(features, **TINY, epochs=1)
    two = flows.fit([features, -features], **TINY, epochs=1)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def test_preset_best_begins_as_the_gaussians_of_the_classes_and_lifts_the_lower_tail():
    rng = np.random.default_rng(0)
    centres = np.array([[4.0, 0, 0], [0, 4.0, 0]])
    rows = (centres[rng.integers(0, 2, 512)] + rng.standard_t(3, size=(512, 3))).astype(np.float32)
    small = flows.BEST | {"width": 16, "blocks": 2, "batch_size": 64}
    begun, fitted = (flows.fit(rows, centres=centres, **small | {"epochs": epochs}) for epochs in (1, 8))
    flow = flows.quantod(**fitted.settings)
    start = flow.init(jax.random.key(0), jnp.asarray(rows))
    start["centres"] = flow.forward(start, jnp.asarray(centres, jnp.float32))[0]
    squares = ((rows[:, None, :] - centres) ** 2).sum(axis=2)
    gaussians = np.log(np.mean(np.exp(-squares / 2), axis=1)) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(flows.log_likelihood(flow, start, rows), gaussians, rtol=1e-4)
    tails = [float(np.quantile(flows.log_likelihood(flow, each.params, rows), 0.05)) for each in (begun, fitted)]
    assert np.quantile(gaussians, 0.05) < tails[0] < tails[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "newest"}, "preset must be one of best, paper, reference"),
        ({"epochs": 0}, "epochs must lie in"),
        ({"batch_size": 1}, "batch_size must lie in"),
        ({"features": np.zeros(4, np.float32)}, r"features must have shape \[N, D\]"),
        ({"features": np.zeros((1, 4), np.float32)}, "features must have at least two rows"),
        ({"features": np.full((4, 4), np.nan, np.float32)}, "features must be finite"),
        ({"features": []}, "at least one view"),
        ({"features": [np.zeros((4, 4)), np.zeros((4, 3))]}, r"must have the shape of view 0, \[4, 4\]"),
        ({"loss": "median"}, "loss must be one of"),
        ({"centres": np.zeros((2, 3))}, r"centres must have shape \[M, 4\]"),
        ({"centres": np.full((2, 4), np.nan)}, "centres must be finite"),
    ],
)
def test_what_cannot_be_fitted(features, change, message):
    with pytest.raises(ValueError, match=message):
        flows.fit(**{"features": features, **TINY, "epochs": 1, **change})
