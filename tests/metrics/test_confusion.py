import numpy as np
import pytest
from sklearn import metrics as reference

from quantjax import metrics


def test_confusion_and_iou_by_hand():
    labels, named = np.array([[0, 0, 1], [1, 1, 255]]), np.array([[0, 1, 1], [1, 0, 1]])
    confusion = metrics.confusion_matrix(named, labels, 3)
    np.testing.assert_array_equal(confusion, [[1, 1, 0], [1, 2, 0], [0, 0, 0]])
    # class 0: 1 of 1 + 1 + 1; class 1: 2 of 2 + 1 + 1; class 2 occurs nowhere
    np.testing.assert_allclose(metrics.intersection_over_union(confusion), [1 / 3, 2 / 4, np.nan])
    np.testing.assert_allclose(metrics.mean_iou(confusion), (1 / 3 + 2 / 4) / 2)


def test_matrices_of_images_add_up_to_scikit_learns(rng):
    labels = rng.choice([*range(6), 255], (5, 30, 40)).astype(np.uint8)
    named = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 6, labels.shape)) % 255
    total = sum(metrics.confusion_matrix(n, y, 6) for n, y in zip(named, labels, strict=True))
    known = labels != 255
    np.testing.assert_array_equal(total, reference.confusion_matrix(labels[known], named[known]))
    want = reference.jaccard_score(labels[known], named[known], average=None)
    np.testing.assert_allclose(metrics.intersection_over_union(total), want, rtol=1e-12)
    np.testing.assert_allclose(metrics.mean_iou(total), want.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: metrics.confusion_matrix([0, 1], [0], 2), "shape of predictions"),
        (lambda: metrics.confusion_matrix([0, 2], [0, 1], 2), r"predictions must lie in 0..1"),
        (lambda: metrics.confusion_matrix([0, 1], [0, 254], 2), r"labels must lie in 0..1"),
        (lambda: metrics.confusion_matrix([0.0, 1.0], [0, 1], 2), "predictions must be integers"),
        (lambda: metrics.mean_iou(np.zeros((3, 3))), "at least one pixel"),
    ],
)
def test_wrong_classes_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
