"""Flows fitted together are those that fit gives one by one."""

import jax
import numpy as np
import pytest

from quantjax import flows

TINY = {"blocks": 1, "layers": 0, "width": 8, "batch_size": 16, "epochs": 2}
SEEDS, LEVELS = (0, 3), (0.05, 0.5)


@pytest.fixture(autouse=True)
def loose_ranks():
    """optax's updates promote."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(70, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)  # the last batch is not full


@pytest.mark.parametrize("settings", [TINY, {**TINY, "loss": "mean", "preset": "reference", "dropout": 0.0}])
def test_together_equals_one_by_one(features, settings):
    seen = []
    found = flows.fit_together(features, seeds=SEEDS, q=LEVELS, report=lambda *a: seen.append(a), **settings)
    assert [epoch for epoch, _ in seen] == [1, 2]
    for s, (seed, level) in enumerate(zip(SEEDS, LEVELS, strict=True)):
        alone = flows.fit(features, seed=seed, q=level, **settings)
        assert found[s].settings == alone.settings
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found[s].params, alone.params)
        for curve in ("epochs", "loss", "mean_log_likelihood"):
            np.testing.assert_allclose(getattr(found[s].curve, curve), getattr(alone.curve, curve), rtol=1e-4)
        np.testing.assert_allclose(seen[-1][1][s], alone.curve.loss[-1], rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": (0.1,)}, "q must be one level, or one for each of the 2 seeds, got 1"),
        ({"q": (0.1, 1.0)}, "q must lie in"),
        ({"seed": 1}, "batch_size, shuffle, got seed"),
        ({"preset": "newest"}, "preset must be one of"),
    ],
)
def test_what_cannot_be_fitted_together(features, change, message):
    with pytest.raises(ValueError, match=message):
        flows.fit_together(features, **{"seeds": SEEDS, **TINY, **change})


def test_a_training_that_diverges_names_its_seed(features):
    with pytest.raises(FloatingPointError, match="the flow of seed 0 became"):
        flows.fit_together(features * np.float32(1e30), seeds=SEEDS, **TINY)
