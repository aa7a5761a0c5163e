"""What programs of this field call AUPR and FPR95: both conventions of each, by hand and against scikit-learn."""

import numpy as np
import pytest

from quantjax import metrics


def test_steps_and_trapezoids_by_hand():
    """Outlier positive: .8 finds 1 of 2 (precision 1), .4 an inlier (1/2), .35 the other (2/3)."""
    inliers, outliers = [0.1, 0.4], [0.35, 0.8]
    steps = metrics.average_precision(inliers, outliers, positive="outlier")
    np.testing.assert_allclose(steps, 1 / 2 + 1 / 2 * 2 / 3)  # 0.8333
    trapezoids = metrics.aupr_trapezoid(inliers, outliers, positive="outlier")
    np.testing.assert_allclose(trapezoids, 1 / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2)  # 0.7917


def test_ten_tied_scores():
    tied = np.ones(9), np.ones(1)
    np.testing.assert_allclose(metrics.average_precision(*tied, positive="outlier"), 0.1)
    np.testing.assert_allclose(metrics.aupr_trapezoid(*tied, positive="outlier"), (1 + 0.1) / 2)


def test_a_diagonal_thinned_has_its_two_ends():
    same = np.arange(100.0), np.arange(100.0)
    for positive in ("inlier", "outlier"):
        np.testing.assert_allclose(metrics.fpr_at_tpr(*same, positive=positive), 0.95)
        assert metrics.fpr_at_tpr(*same, positive=positive, thinned=True) == 1.0


@pytest.mark.parametrize("sides", [(1, 1), (1, 2), (3, 1), (40, 25)])
@pytest.mark.parametrize("positive", ["inlier", "outlier"])
def test_both_are_scikit_learns(rng, sides, positive):
    """auc(recall, precision) and roc_curve with its defaults are what OpenOOD calls."""
    reference = pytest.importorskip("sklearn.metrics")
    for steps in (1, 4, 1000):
        inliers, outliers = (
            np.round(rng.normal(m, 1.0, n) * steps) / steps for m, n in zip((0, 1), sides, strict=True)
        )
        truth, values = np.repeat([0, 1], sides), np.concatenate([inliers, outliers])
        truth, values = (1 - truth, -values) if positive == "inlier" else (truth, values)
        precision, recall, _ = reference.precision_recall_curve(truth, values)
        got = metrics.aupr_trapezoid(inliers, outliers, positive=positive)
        np.testing.assert_allclose(got, reference.auc(recall, precision), atol=1e-12)
        fpr, tpr, _ = reference.roc_curve(truth, values)
        got = metrics.fpr_at_tpr(inliers, outliers, positive=positive, thinned=True)
        assert got == fpr[np.argmax(tpr >= 0.95)]


def test_either_convention_refuses_what_the_other_does():
    with pytest.raises(ValueError, match="positive must be one of"):
        metrics.aupr_trapezoid([1.0], [1.0], positive="in")
    with pytest.raises(ValueError, match="must not be NaN"):
        metrics.fpr_at_tpr([np.nan], [1.0], thinned=True)
