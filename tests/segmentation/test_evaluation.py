"""Rates of a set of scenes, by hand; the networks are replaced by stored maps."""

import numpy as np
import pytest

from quantjax.metrics.components import ANOMALY_TRACK, MinimumSizes
from quantjax.segmentation import evaluate, mean_iou
from quantjax.segmentation.evaluation import minimum_sizes

LABELS = [np.array([[0, 1], [0, 255]], np.uint8), np.array([[0, 0], [1, 1]], np.uint8)]
MAPS = [np.array([[0.1, 0.9], [0.8, 9.0]]), np.array([[0.2, 0.3], [0.7, 0.6]])]
SCENES = [{"image": np.full((2, 2, 3), i, np.uint8), "label": label, "name": str(i)} for i, label in enumerate(LABELS)]


def run(image):
    index = int(image[0, 0, 0])
    return {"lr": MAPS[index], "inverse": -MAPS[index], "prediction": LABELS[index]}


@pytest.mark.parametrize("exact", [True, None, False])
def test_pixels_of_all_scenes_are_pooled(tmp_path, exact):
    looked, done = [], []
    found = evaluate(
        run, SCENES, ("lr", "inverse"), tmp_path, minimum=MinimumSizes(1, 1), exact=exact,
        look=lambda i, row, maps: looked.append((i, row["name"], maps["lr"].shape)), report=lambda *n: done.append(n),
    )  # fmt: skip
    rates = found.rates["lr"]
    # outliers 0.9, 0.7, 0.6; inliers 0.8, 0.3, 0.2, 0.1: precision 1 at 0.9, 2/3 at 0.7, 3/4 at 0.6
    assert rates.ap == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, rel=1e-4)
    assert rates.fpr95 == pytest.approx(1 / 4, rel=1e-4)
    assert rates.auroc == pytest.approx(10 / 12, rel=1e-4)
    assert 0.3 <= rates.threshold < 0.6  # F1 6/7, all three found beside one inlier
    assert rates.pixels == ("streamed" if exact is False else "exact")
    # at it the first scene's part also covers an inlier pixel (ignored ones do not count): 1/2; the second is exact
    assert rates.siou == pytest.approx(3 / 4)
    assert rates.ppv == pytest.approx(3 / 4)
    assert found.rates["inverse"].auroc == pytest.approx(2 / 12, rel=1e-4)
    assert looked == [(0, "0", (2, 2)), (1, "1", (2, 2))]
    assert done == [(1, 2), (2, 2)]
    assert found.seconds > 0.0


def test_parts_too_small_to_count_have_no_rates_and_a_process_that_only_scores_none_at_all(tmp_path):
    found = evaluate(run, SCENES, ("lr",), tmp_path, minimum=MinimumSizes(10**6, 10**6)).rates["lr"]
    assert found.ap > 0.5
    assert found.component_f1 is found.siou is found.ppv is None
    assert evaluate(run, SCENES, ("lr",), None).rates == {}


def test_mean_iou_is_of_one_confusion_matrix():
    wrong = [{**SCENES[0], "label": np.array([[1, 1], [0, 255]], np.uint8)}, SCENES[1]]
    # class 0: hits 1 + 2, union 3 + 1; class 1: hits 1 + 2, union 4
    assert mean_iou(run, wrong, 2) == pytest.approx((3 / 4 + 3 / 4) / 2)


def test_the_smallest_components_shrink_with_the_scene():
    assert minimum_sizes(ANOMALY_TRACK, 1280 * 720) == minimum_sizes(ANOMALY_TRACK, 10**9) == ANOMALY_TRACK
    assert minimum_sizes(ANOMALY_TRACK, 1280 * 720 // 10) == (50, 10)
    assert minimum_sizes(ANOMALY_TRACK, 4) == (1, 1)
