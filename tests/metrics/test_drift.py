"""Tests of drift: statistics by hand, wealth against crepes, how often they are wrong, and what they find."""

import numpy as np
import pytest
from scipy import integrate

from quantjax import metrics
from quantjax.metrics import drift


def test_statistics_by_hand():
    """Of 1 2 3 4 half lie at or below 2, of 3 4 5 6 none; 14 of 16 pairs are won by the batch, two of them halves."""
    held_out, batch = [1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0]
    ks, ranks = (metrics.drift_test(held_out, batch, test=test) for test in ("ks", "mann_whitney"))
    assert (ks.statistic, ks.test) == (0.5, "ks")
    # 3 beats 1, 2 and half of 3; 4 beats 1, 2, 3 and half of 4; 5 and 6 beat all: 2.5 + 3.5 + 8
    assert ranks.statistic == 14 / 16 == metrics.auroc(held_out, batch)
    assert not ks.drifted
    assert metrics.drift_test(held_out, batch, significance=0.9).drifted


def test_a_batch_is_wrongly_called_as_often_as_said(rng):
    for test in ("ks", "mann_whitney"):
        found = [metrics.drift_test(rng.normal(size=80), rng.normal(size=30), test=test).p_value for _ in range(400)]
        assert abs(np.mean(np.array(found) <= 0.1) - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 400)


def test_what_a_batch_shows(rng):
    held_out = rng.normal(size=500)
    for batch in (rng.normal(0.5, 1.0, 200), rng.normal(-0.5, 1.0, 200), np.full(20, np.nan)):
        assert all(metrics.drift_test(held_out, batch, test=test).drifted for test in drift.TESTS)
    narrow = rng.normal(0.0, 0.3, 200)  # the same middle: ranks alone see nothing
    assert metrics.drift_test(held_out, narrow).drifted
    assert not metrics.drift_test(held_out, narrow, test="mann_whitney").drifted


def test_bets_are_densities():
    """From a to b powers integrate to b^e - a^e, slopes to (b - a) + e ((b - 1/2)^2 - (a - 1/2)^2) / 2."""
    low, high = 1e-4, 0.5
    got = [integrate.quad(lambda p, k=k: drift.bets(p)[k], low, high)[0] for k in range(drift.BETS)]
    powers = np.array(drift.POWERS)
    other_side = (1.0 - low) ** powers - (1.0 - high) ** powers
    slopes = [high - low + e / 2 * ((high - 0.5) ** 2 - (low - 0.5) ** 2) for e in drift.SLOPES]
    np.testing.assert_allclose(got, [high - low, *(high**powers - low**powers), *other_side, *slopes], rtol=1e-6)
    np.testing.assert_allclose(drift.bets(0.25)[1:4], drift.bets(0.75)[4:7])
    assert np.isfinite([drift.bets(0.0), drift.bets(1.0)]).all()


def test_a_simple_jumper_equals_crepes(golden):
    want = golden("conformal")
    shares, wealth = np.full(3, 1 / 3), 1.0
    for p, wanted in zip(want["smoothed"], want["wealth"], strict=True):
        shares, growth = drift.wager(shares, 1.0 + np.array([-1.0, 0.0, 1.0]) * (p - 0.5))
        wealth *= growth
        np.testing.assert_allclose(wealth, wanted, rtol=1e-12)
    assert wealth > 100.0


def test_the_first_steps_of_a_watch_by_hand():
    """0 among 1 and 2 has both above: p = (2 + u) / 3; 9 then has none above: p = u / 4, u the draws of steps 0, 1."""
    draws = [np.random.default_rng([5, step]).random() for step in (0, 1)]
    state = metrics.watch([2.0, 1.0], seed=5)
    assert (state.p_value, state.steps) == (1.0, 0)
    first = drift.bets((2 + draws[0]) / 3)
    one = metrics.observe(state, [0.0])
    np.testing.assert_allclose(one.log_wealth, np.log(first.mean()))
    np.testing.assert_allclose(one.shares, first / first.sum())
    two = metrics.observe(one, [9.0])
    dealt = 0.99 * one.shares + 0.01 / drift.BETS
    np.testing.assert_allclose(two.log_wealth - one.log_wealth, np.log(drift.bets(draws[1] / 4) @ dealt))
    np.testing.assert_array_equal(two.seen, [0.0, 1.0, 2.0, 9.0])
    assert two.p_value == pytest.approx(1.0 / max(1.0, np.exp(one.log_wealth), np.exp(two.log_wealth)))


def test_how_a_stream_is_cut_changes_nothing(rng):
    held_out, stream = rng.integers(0, 9, 50), rng.integers(0, 12, 40)
    whole = metrics.observe(metrics.watch(held_out, seed=1), stream)
    parts = metrics.watch(held_out, seed=1)
    for part in np.split(stream, [1, 7, 7, 30]):
        parts = metrics.observe(parts, part)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert metrics.observe(metrics.watch(held_out, seed=2), stream).log_wealth != whole.log_wealth


def test_streams_of_inliers_are_rarely_called(rng):
    """At any time of 100 rows wealth reaches 5 in a fifth of the streams at most, also with tied scores."""
    found = [
        metrics.observe(metrics.watch(rng.integers(0, 20, 30), seed=k), rng.integers(0, 20, 100)).p_value
        for k in range(100)
    ]
    assert np.mean(np.array(found) <= 0.2) <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / 100)
    assert np.min(found) > 1e-3


@pytest.mark.parametrize("late", [0, 150])
def test_streams_that_drift_are_called(rng, late):
    state = metrics.observe(metrics.watch(rng.normal(size=300)), rng.normal(size=late))
    assert state.p_value > 0.01
    some_outliers = np.where(rng.random(200) < 0.2, 6.0, rng.normal(size=200))
    for rows in (rng.normal(0.8, 1.0, 200), rng.normal(-0.8, 1.0, 200), some_outliers, np.full(10, np.nan)):
        assert metrics.observe(state, rows).p_value < 0.01
    assert metrics.observe(metrics.observe(state, np.full(20, 9.0)), rng.normal(size=200)).p_value < 0.01  # for good


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: metrics.drift_test([1.0], [1.0], test="t"), "test must be one of ks, mann_whitney; got 't'"),
        (lambda: metrics.drift_test([1.0], []), "scores must have at least one"),
        (lambda: metrics.drift_test([np.nan], [1.0]), "held_out must not be NaN"),
        (lambda: metrics.drift_test([1.0], [1.0], significance=1.0), "significance must lie in"),
        (lambda: metrics.watch([]), "held_out must have at least one"),
        (lambda: metrics.observe(metrics.watch([1.0]), [[1.0]]), "scores must have shape"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
