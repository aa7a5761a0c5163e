import numpy as np
import pytest

from quantjax import metrics


def both_sides(rng, ties=False):
    """Overlapping scores: inliers low, outliers high."""
    inliers, outliers = rng.normal(0.0, 1.0, 150), rng.normal(1.0, 2.0, 90)
    return (np.round(2 * inliers) / 2, np.round(2 * outliers) / 2) if ties else (inliers, outliers)


def test_rates_by_hand():
    """inliers 1 2 2 5, outliers 2 4 6.

    Inlier positive, strictest first: t = 1 keeps 1 of 4 inliers and 0 of 3 outliers, t = 2 keeps 3 and 1,
    t = 4 keeps 3 and 2, t = 5 keeps 4 and 2, t = 6 all.
    """
    inliers, outliers = [1.0, 2.0, 2.0, 5.0], [2.0, 4.0, 6.0]
    curve = metrics.roc_curve(inliers, outliers)
    np.testing.assert_allclose(curve.tpr, np.array([0, 1, 3, 3, 4, 4]) / 4)
    np.testing.assert_allclose(curve.fpr, np.array([0, 0, 1, 2, 2, 3]) / 3)
    np.testing.assert_array_equal(curve.thresholds, [-np.inf, 1, 2, 4, 5, 6])
    np.testing.assert_allclose(metrics.fpr_at_tpr(inliers, outliers), 2 / 3)
    np.testing.assert_allclose(metrics.fpr_at_tpr(inliers, outliers, tpr=0.75), 1 / 3)
    # pairs where the outlier is above: 2 beats 1 and half of each 2, 4 beats 3, 6 beats 4: (2 + 3 + 4) / 12
    np.testing.assert_allclose(metrics.auroc(inliers, outliers), 9 / 12)
    # recall steps 1/4, 2/4, 0, 1/4 at precisions 1, 3/4, 3/5, 4/6
    np.testing.assert_allclose(metrics.average_precision(inliers, outliers), 1 / 4 + 2 / 4 * 3 / 4 + 1 / 4 * 4 / 6)
    # outlier positive: t = 6 (1, 0), 5 (1, 1), 4 (2, 1), 2 (3, 3): all three outliers cost three of four inliers
    np.testing.assert_allclose(metrics.fpr_at_tpr(inliers, outliers, positive="outlier"), 3 / 4)
    np.testing.assert_allclose(
        metrics.average_precision(inliers, outliers, positive="outlier"), 1 / 3 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 6
    )


def test_rates_equal_scikit_learn(golden):
    want = golden("metrics")
    for i, row in enumerate(want["table"]):
        sides = want[f"in_{i}"], want[f"out_{i}"]
        ours = [
            metrics.fpr_at_tpr(*sides),
            metrics.average_precision(*sides),
            metrics.fpr_at_tpr(*sides, positive="outlier"),
            metrics.average_precision(*sides, positive="outlier"),
            metrics.auroc(*sides),
        ]
        np.testing.assert_allclose(ours, row, atol=1e-12, err_msg=f"pair {i}")


def test_curve_equals_scikit_learn_live(rng):
    reference = pytest.importorskip("sklearn.metrics")
    for ties in (False, True):
        inliers, outliers = both_sides(rng, ties)
        truth = np.repeat([0, 1], [len(inliers), len(outliers)])
        fpr, tpr, thresholds = reference.roc_curve(truth, np.concatenate([inliers, outliers]), drop_intermediate=False)
        curve = metrics.roc_curve(inliers, outliers, positive="outlier")
        np.testing.assert_allclose(curve.fpr, fpr, atol=1e-12)
        np.testing.assert_allclose(curve.tpr, tpr, atol=1e-12)
        np.testing.assert_array_equal(curve.thresholds, thresholds)


@pytest.mark.parametrize("ties", [False, True])
def test_swapping_sides_and_sign_swaps_the_convention(rng, ties):
    inliers, outliers = both_sides(rng, ties)
    for rate in (metrics.fpr_at_tpr, metrics.average_precision):
        assert rate(inliers, outliers) == rate(-outliers, -inliers, positive="outlier")
        assert rate(inliers, outliers) != rate(inliers, outliers, positive="outlier")
    np.testing.assert_allclose(metrics.auroc(inliers, outliers), metrics.auroc(-outliers, -inliers), rtol=1e-12)


def test_rates_depend_on_the_order_only(rng):
    inliers, outliers = both_sides(rng, ties=True)
    for rate in (metrics.fpr_at_tpr, metrics.auroc, metrics.average_precision):
        assert rate(inliers, outliers) == rate(np.exp(inliers), np.exp(outliers))
        assert rate(inliers, outliers) == rate(rng.permutation(inliers), rng.permutation(outliers))


def test_separated_inverted_and_constant_scores():
    low, high = np.arange(10.0), 100 + np.arange(5.0)
    assert metrics.auroc(low, high) == metrics.average_precision(low, high) == 1.0
    assert metrics.fpr_at_tpr(low, high) == metrics.fpr_at_tpr(low, high, positive="outlier") == 0.0
    assert metrics.auroc(high, low) == 0.0
    assert metrics.fpr_at_tpr(high, low) == 1.0
    same = np.ones(30), np.ones(10)
    assert metrics.auroc(*same) == 0.5
    assert metrics.fpr_at_tpr(*same) == 1.0
    assert metrics.average_precision(*same) == 0.75
    assert metrics.average_precision(*same, positive="outlier") == 0.25


def test_infinite_scores_rank_last():
    assert metrics.auroc([1.0, 2.0], [np.inf, np.inf]) == 1.0
    assert metrics.auroc([1.0, np.inf], [np.inf, np.inf]) == 0.75


# --- threshold ---


def largest_tau(log_likelihoods, tpr):
    """The rule read literally: of all candidate thresholds the largest that keeps enough rows at or above it."""
    return max(t for t in log_likelihoods if np.mean(log_likelihoods >= t) >= tpr)


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 100, 1000])
@pytest.mark.parametrize("ties", [False, True])
def test_threshold_is_the_largest_tau_of_the_log_likelihoods(rng, n, ties):
    log_likelihoods = rng.integers(0, 7, n).astype(float) if ties else rng.normal(size=n)
    for tpr in (0.5, 0.9, 0.95, 0.99, 1.0):
        assert -metrics.threshold_at_tpr(-log_likelihoods, tpr) == largest_tau(log_likelihoods, tpr)


def test_threshold_by_hand_and_in_float32():
    scores = np.arange(1, 21)
    assert metrics.threshold_at_tpr(scores) == 19.0  # 19 of 20 are at or below, exactly 95 %
    assert metrics.threshold_at_tpr(scores, 0.951) == 20.0
    single = np.float32([0.1, 0.2, 0.3])
    assert np.mean(single <= np.float32(metrics.threshold_at_tpr(single, 1.0))) == 1.0


def test_calibration_records_what_it_promises_and_keeps(rng):
    held_out, other = rng.normal(size=1001), rng.normal(size=3000)
    own = metrics.calibrate(held_out, source="held-out training images")
    assert own.source == "held-out training images"
    assert (own.n, own.promised_tpr) == (1001, 0.95)
    assert own.threshold == np.sort(held_out)[951]  # the 952nd: 0.95 * 1002 = 951.9
    assert own.achieved_tpr == 952 / 1001
    judged = metrics.calibrate(held_out, source="half of the test inliers", tpr=0.9, check_scores=other)
    assert judged.achieved_tpr == np.mean(other <= np.sort(held_out)[901])  # 0.9 * 1002 = 901.8
    assert judged.n == 1001


@pytest.mark.parametrize(
    ("n", "tpr", "rank", "promised"),
    [(19, 0.95, 19, 0.95), (20, 0.95, 20, 0.95), (39, 0.95, 38, 0.95), (99, 0.07, 7, 0.07), (18, 0.95, 18, 18 / 19),
     (1, 0.5, 1, 0.5), (9, 1.0, 9, 0.9)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*held-out inliers promise")
def test_the_conformal_rank_by_hand(n, tpr, rank, promised):
    record = metrics.calibrate(np.arange(1.0, n + 1)[::-1], source="", tpr=tpr)
    assert (record.threshold, record.promised_tpr) == (rank, promised)


def test_the_interval_by_hand_and_what_is_promised_is_kept(rng):
    """The share under the largest of 20 is Beta(20, 1): its quantiles are p ** (1 / 20), its mean 20 / 21."""
    record = metrics.calibrate(rng.normal(size=20), source="")
    np.testing.assert_allclose(record.interval, [0.025 ** (1 / 20), 0.975 ** (1 / 20)], rtol=1e-9)
    assert record.promised_tpr == 0.95  # 0.83 to 0.999
    draws = rng.uniform(size=(2000, 39))  # a uniform score is the share under it
    kept = np.array([metrics.calibrate(row, source="").threshold for row in draws])
    assert abs(np.mean(kept) - 0.95) < 0.003
    low, high = metrics.calibrate(draws[0], source="").interval
    assert abs(np.mean((kept >= low) & (kept <= high)) - 0.95) < 0.02


def test_fewer_than_can_promise_say_so():
    assert [metrics.inliers_needed(tpr) for tpr in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    with pytest.warns(UserWarning, match=r"^18 held-out inliers promise 94\.7 %: 95 % needs 19$"):
        metrics.calibrate(np.arange(18.0), source="")


def test_accuracy_by_hand():
    logits = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(metrics.accuracy(logits, [1, 0, 0]), 2 / 3)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: metrics.auroc([], [1.0]), "scores_in must have at least one"),
        (lambda: metrics.auroc([1.0], [[1.0]]), "scores_out must have shape"),
        (lambda: metrics.auroc([1.0], [np.nan]), "scores_out must not be NaN"),
        (lambda: metrics.fpr_at_tpr([1.0], [1.0], tpr=0.0), "tpr must lie in"),
        (lambda: metrics.average_precision([1.0], [1.0], positive="in"), "positive must be one of"),
        (lambda: metrics.threshold_at_tpr([1.0], 1.5), "tpr must lie in"),
        (lambda: metrics.threshold_at_tpr([np.nan]), "scores must not be NaN"),
        (lambda: metrics.calibrate([1.0], source="", check_scores=[]), "check_scores must have"),
        (lambda: metrics.accuracy(np.zeros((2, 3)), [0]), "same number of rows"),
        (lambda: metrics.accuracy(np.zeros((0, 3)), []), "at least one row"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
