"""A saved detector of unknown objects judged on scenes: counts against the plain decisions of the detector."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from golden.small_scenes import scene_detector

from experiments import evaluate
from experiments.scenes import saved
from quantjax import data, detector, metrics
from quantjax.report.schema import SEGMENTATION, check_results

CLASSES = data.open_scenes("streets", None, "test").class_names


class Few:
    """The first three scenes of a source."""

    def __init__(self, source):
        self.source, self.class_names = source, source.class_names

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.source[range(3)[index]]


@pytest.fixture(scope="module")
def fitted():
    """Linear heads with random weights on a tiny transformer; the threshold keeps most of a scene."""
    whole = scene_detector(CLASSES, (56, 112), 98.0, image_height=56)
    score = detector.score(whole, data.open_scenes("streets", None, "test", 56)[0]["image"])
    return whole._replace(threshold=float(np.quantile(score, 0.8)))


@pytest.fixture
def few(monkeypatch):
    opened = data.open_scenes
    monkeypatch.setattr(data, "open_scenes", lambda *given: Few(opened(*given)))


def test_pixels_and_classes_are_those_of_the_decisions(few, fitted, tmp_path, capsys):
    detector.save(fitted, tmp_path / "detector")
    given = ["--inlier", "streets", "--outliers", "streets_mix", "--output", str(tmp_path / "judged")]
    assert evaluate.main(["--detector", str(tmp_path / "detector"), *given]) == 0
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "judged" / "results.json").read_text())
    check_results(results, SEGMENTATION)

    predict = detector.predictor(fitted, batch_size=2).predict
    scenes = data.open_scenes("streets", None, "test", 56)
    decided = [(scenes[i]["label"], predict(scenes[i]["image"])) for i in range(3)]
    labelled = [label != 255 for label, _ in decided]
    outlier = np.concatenate([found.outlier[there] for (_, found), there in zip(decided, labelled, strict=True)])
    assert 0.05 < outlier.mean() < 0.6
    assert results["calibration"]["achieved_tpr"] == pytest.approx(100.0 * np.mean(~outlier))
    confusion = sum(metrics.confusion_matrix(found.label, label, len(CLASSES)) for label, found in decided)
    assert results["miou"] == {"before": None, "after": pytest.approx(100.0 * metrics.mean_iou(confusion))}

    [row] = results["rows"]
    mixed = saved._outliers(fitted, "streets_mix", None)
    pairs = [(mixed[i]["label"].ravel(), predict(mixed[i]["image"]).outlier.ravel()) for i in range(3)]
    label, marked = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    assert row["outliers_found"] == pytest.approx(100.0 * np.mean(marked[label == 1]))
    assert row["inliers_kept"] == pytest.approx(100.0 * np.mean(~marked[label == 0]))
    assert (row["method"], row["dataset"]) == ("lr", "streets_mix")
    assert "At the stored threshold: outlier pixels found / inlier pixels kept" in out
    assert (tmp_path / "judged" / "report.html").read_text().count('<div class="strip">') == 3


def test_scenes_of_other_classes_judge_the_threshold_alone(few, fitted):
    other = fitted._replace(class_names=tuple(f"other {name}" for name in CLASSES))
    results, examples = saved.judge_sets(
        other, "streets", [], data_dir=None, batch_size=2, progress=lambda title: nullcontext(lambda done, total: None)
    )
    assert (results["miou"]["after"], results["rows"], examples) == (None, [], {})
    assert 40.0 < results["calibration"]["achieved_tpr"] < 95.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inlier", "road_anomaly"], "--inlier must be a set of scenes with known classes"),
        (["--inlier", "streets", "--outliers", "streets"], "--outliers must be scenes with labelled objects"),
        (["--inlier", "streets", "--outliers", "streets_mix", "streets_mix"], "each set once"),
        (["--inlier", "streets", "--held-out"], "--held-out is for images"),
        (["--inlier", "camvid"], "camvid is not bundled"),
    ],
)
def test_what_cannot_be_judged_is_one_error(fitted, tmp_path, capsys, arguments, message):
    detector.save(fitted, tmp_path / "detector")
    assert evaluate.main(["--detector", str(tmp_path / "detector"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
