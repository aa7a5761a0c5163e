"""Conformal p-values and thresholds of classes: by hand, against crepes, and what they promise over many draws."""

import numpy as np
import pytest
from scipy import stats

from quantjax import metrics

DRAWS = 10_000


def within(share, promised, draws=DRAWS):
    """Whether a share of independent draws lies within four of its binomial standard errors."""
    return abs(share - promised) < 4.0 * np.sqrt(promised * (1.0 - promised) / draws)


def test_p_values_by_hand():
    """Of 1 2 2 5, five places: 0 is reached by 4, 2 by 3, 3 by 1, 9 by none; NaN is above all."""
    held_out = [2.0, 5.0, 1.0, 2.0]
    scores = [0.0, 2.0, 3.0, 9.0, np.nan, np.inf]
    np.testing.assert_allclose(metrics.p_values(held_out, scores), np.array([5, 4, 2, 1, 1, 1]) / 5)
    # smoothed: 2 has 1 above and 2 equal, (1 + 0.5 (1 + 2)) / 5; 9 has none, 0.5 / 5; 0 has 4 above, 4.5 / 5
    np.testing.assert_allclose(metrics.p_values(held_out, [2.0, 9.0, 0.0], ties=[0.5] * 3), [0.5, 0.1, 0.9])
    np.testing.assert_array_equal(metrics.p_values(held_out, [2.0, 9.0], ties=[0.0, 0.0]), [0.2, 0.0])


def test_equal_to_crepes(golden):
    want = golden("conformal")
    held_out, scores, groups = want["held_out"], want["scores"], (want["held_out_groups"], want["groups"])
    np.testing.assert_allclose(metrics.p_values(held_out, scores), want["p_values"], rtol=1e-14)
    np.testing.assert_allclose(metrics.p_values(held_out, scores, ties=want["ties"]), want["smoothed"], rtol=1e-14)
    by_group = metrics.p_values_per_class(held_out, groups[0], scores, groups[1], [True] * 4)
    np.testing.assert_allclose(by_group, want["p_values_by_group"], rtol=1e-14)
    assert (by_group != want["p_values"]).any()


@pytest.mark.parametrize("n", [5, 19, 20, 58, 99, 100, 333])
@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_cuts_where_p_is_one_minus_the_share_kept(rng, n, ties):
    held_out, scores = (rng.integers(0, 9, size) if ties else rng.normal(size=size) for size in (n, 400))
    p_values = metrics.p_values(held_out, scores)
    for tpr in (0.07, 0.5, 0.8, 0.9, 0.95, 0.99):
        if n >= metrics.inliers_needed(tpr):
            threshold = metrics.calibrate(held_out, source="", tpr=tpr).threshold
            np.testing.assert_array_equal(scores > threshold, p_values <= 1.0 - tpr + 1e-12)


def test_p_values_depend_on_the_order_only(rng):
    held_out, scores = np.round(rng.normal(size=50), 1), np.round(rng.normal(size=80), 1)
    found = metrics.p_values(held_out, scores)
    np.testing.assert_array_equal(found, metrics.p_values(rng.permutation(np.exp(held_out)), np.exp(scores)))
    assert (np.diff(found[np.argsort(scores)]) <= 0.0).all()  # more outlying, smaller


def test_coverage_over_draws(rng):
    """Of 38 of 39 under the threshold and one more inlier, 38 / 40 lie there: each draw has its own threshold."""
    kept = [
        inlier <= metrics.calibrate(held_out, source="").threshold
        for held_out, inlier in zip(rng.normal(size=(DRAWS, 39)), rng.normal(size=DRAWS), strict=True)
    ]
    assert within(np.mean(kept), 0.95)


def test_p_values_of_inliers_are_uniform(rng):
    """Plain ones on the n + 1 places where no scores tie, smoothed ones on [0, 1] also where they do."""
    draws = rng.normal(size=(DRAWS, 20))
    plain = [metrics.p_values(row[1:], row[:1])[0] for row in draws]
    places, counts = np.unique(np.round(20 * np.array(plain)), return_counts=True)
    np.testing.assert_array_equal(places, np.arange(1, 21))
    assert stats.chisquare(counts).pvalue > 0.001
    tied = rng.integers(0, 3, (DRAWS, 20))
    smoothed = [
        metrics.p_values(row[1:], row[:1], ties=[tie])[0] for row, tie in zip(tied, rng.random(DRAWS), strict=True)
    ]
    assert stats.kstest(smoothed, "uniform").pvalue > 0.001
    tied_plain = np.array([metrics.p_values(row[1:], row[:1])[0] for row in tied[:2000]])
    assert all(np.mean(tied_plain <= level) < level + 0.03 for level in (0.1, 0.3, 0.6))  # valid, not exact


def test_classes_keep_their_promise_one_by_one(rng):
    """A wide class and a narrow one: the common threshold keeps 95 % of both together and of neither."""
    scales, hits, common = np.array([1.0, 4.0]), [], []
    labels, row_labels = np.arange(78) % 2, np.arange(DRAWS) % 2
    rows = rng.normal(size=DRAWS) * scales[row_labels]
    for score, label in zip(rows, row_labels, strict=True):
        held_out = rng.normal(size=78) * scales[labels]
        own = metrics.calibrate(held_out[labels == label], source="")
        hits.append(score <= own.threshold)
        common.append(score <= np.sort(held_out)[75])  # 0.95 * 79 = 75.05
    hits, common = np.array(hits), np.array(common)
    for label in (0, 1):
        assert within(hits[row_labels == label].mean(), 0.95, DRAWS // 2)
        assert not within(common[row_labels == label].mean(), 0.95, DRAWS // 2)


def test_thresholds_of_classes_by_hand():
    """Class 0 holds 1..20 (rank 20), class 1 only 5 inliers, class 2 none."""
    scores, labels = np.r_[1.0:21.0, 1.0:6.0], np.repeat([0, 1], [20, 5])
    own = metrics.calibrate_per_class(scores, labels, 3, source="here")
    assert own == (metrics.calibrate(scores[:20], source="here"), None, None)
    assert own[0].threshold == 20.0
    assert metrics.calibrate_per_class(scores, labels, 3, source="", tpr=0.75)[1].threshold == 5.0  # 0.75 * 6 = 4.5
    assert metrics.calibrate_per_class(scores, labels, 3, source="", tpr=1.0) == (None, None, None)
    # 4.5 among 1..20 is reached by 16, among all 25 by 17; class 1 falls back
    found = metrics.p_values_per_class(scores, labels, [4.5, 4.5], [0, 1], [True, False, False])
    np.testing.assert_allclose(found, [17 / 21, 18 / 26])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: metrics.p_values([], [1.0]), "held_out must have at least one"),
        (lambda: metrics.p_values([np.nan], [1.0]), "held_out must not be NaN"),
        (lambda: metrics.p_values([1.0], [[1.0]]), "scores must have shape"),
        (lambda: metrics.p_values([1.0], [1.0], ties=[1.0]), r"ties must lie in \[0, 1\)"),
        (lambda: metrics.p_values([1.0], [1.0], ties=[0.5, 0.5]), "same number of rows"),
        (lambda: metrics.p_values_per_class([1.0], [0], [1.0], [2], [True]), r"labels must lie in 0\.\.0"),
        (lambda: metrics.p_values_per_class([1.0], [1], [1.0], [0], [True, True]), "held_out must have at least one"),
        (lambda: metrics.calibrate_per_class([1.0], [0.5], 2, source=""), "labels must be integers"),
        (lambda: metrics.calibrate_per_class([1.0], [0], 2, source="", tpr=0.0), "tpr must lie in"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
