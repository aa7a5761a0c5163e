"""The threshold of a detector of scenes; its networks are replaced by the red channel."""

from types import SimpleNamespace

import numpy as np
import pytest

from quantjax import data, detector
from quantjax.detector import calibration
from quantjax.rows import IGNORED

FITTED = detector.SceneDetector(*[None] * 14)


@pytest.fixture(autouse=True)
def red(monkeypatch):
    score = lambda image: image[..., 0].astype(np.float32)  # noqa: E731
    monkeypatch.setattr(calibration, "predictor", lambda fitted, **options: SimpleNamespace(score=score))


def scene(*reds):
    """A scene of one row."""
    return np.stack([np.array([reds], np.uint8)] * 3, axis=-1)


def test_half_of_the_scenes_set_it_and_the_others_judge_it():
    scenes = [scene(*range(10 * i, 10 * i + 10)) for i in range(4)]
    half, other = data.half_split(4)
    done = []
    set_to = detector.calibrate(FITTED, scenes, 0.75, report=lambda *counts: done.append(counts))
    ordered = sorted(10 * i + k for i in half for k in range(10))
    assert set_to.threshold == ordered[15]  # 16 is 0.75 * 21, rounded up
    parts = [sum(10 * i + k <= ordered[15] for k in range(10)) / 10 for i in other]
    kept = sum(parts) / 2
    assert set_to.calibration == {
        "source": "pixels of 2 inlier scenes, at most 20,000 of each",
        "n": 20,
        "promised_tpr": 75.0,
        "achieved_tpr": 100.0 * kept,
        "interval": [100.0 * min(parts), 100.0 * max(parts)],  # two scenes drawn anew: both the one, one time in four
    }
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_ignored_pixels_do_not_count_and_one_scene_judges_itself():
    row = {"image": scene(1, 2, 3, 200), "label": np.array([[0, 1, 2, IGNORED]], np.uint8)}
    with pytest.warns(UserWarning, match=r"3 held-out inliers promise 75\.0 %: no number of them promises that"):
        set_to = detector.calibrate(FITTED, [row], 1.0, source="own scenes")
    assert set_to.threshold == 3.0
    assert set_to.calibration["n"] == 3
    assert (set_to.calibration["achieved_tpr"], set_to.calibration["interval"]) == (100.0, None)
    assert set_to.calibration["source"] == "labelled pixels of 1 own scenes, at most 20,000 of each"


def test_large_sets_are_drawn_from(monkeypatch):
    monkeypatch.setattr(calibration, "SCENES", 2)
    monkeypatch.setattr(calibration, "PIXELS", 3)
    seen = []
    scenes = [scene(*[i] * 8) for i in range(5)]
    set_to = detector.calibrate(FITTED, scenes, 0.75, report=lambda done, total: seen.append(total))
    assert seen == [2, 2]  # the first and the last
    assert set_to.calibration["n"] == 3
    assert set_to.threshold in (0.0, 4.0)


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ([], "at least one scene"),
        ([{"image": scene(1, 2), "label": np.zeros((2, 2), np.uint8)}], "label must have shape"),
    ],
)
def test_scenes_that_set_nothing(scenes, message):
    with pytest.raises(ValueError, match=message):
        detector.calibrate(FITTED, scenes)


def test_only_detectors_are_calibrated():
    with pytest.raises(TypeError, match="a detector must be one of"):
        detector.calibrate({}, [])
