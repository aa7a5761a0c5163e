"""The picture of README: what it shows is what the detectors said."""

import numpy as np
import pytest
from PIL import Image
from test_detector_segmentation import make as make_scene_detector

from benchmarks import picture
from quantjax import detector
from quantjax.bundled import images as bundled

pytestmark = pytest.mark.long

SIZE = 8


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two runs: greys of digits tell them from coloured images, scenes have random weights."""
    folder = tmp_path_factory.mktemp("runs")
    images, labels = bundled.digits("train", SIZE)
    fitted = detector.fit("knn", lambda x: (10.0 * x.mean((1, 2)), x.std((1, 2))), images, labels)
    detector.save(detector.calibrate(fitted, bundled.digits("test", SIZE)[0]), folder / "q" / "detector")
    detector.save(make_scene_detector(window=(112, 224), stride=(112, 224)), folder / "u" / "detector")
    return folder / "q", folder / "u"


def test_images_carry_the_decisions_of_the_detector(runs):
    known = detector.load(runs[0] / "detector")
    judged = picture.judged_images(known)
    assert [one.group for one in judged] == ["digits"] * picture.DIGITS + list(bundled.BUNDLED_OUTLIERS)
    for one in judged:
        found = detector.predict(known, one.image[None])
        assert one.score == pytest.approx(found.score[0], abs=1e-5)
        assert (one.said == "outlier") == bool(one.score > known.threshold)
        assert one.right == ((one.said == "outlier") == (one.group != "digits"))


def test_the_picture_is_drawn_from_two_runs(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "SCENES", 1)
    output = tmp_path / "new" / "overview.png"
    picture.main(["--quantod", str(runs[0]), "--uem", str(runs[1]), "--output", str(output)])
    drawn = np.asarray(Image.open(output).convert("RGB"))
    assert drawn.shape[1] == picture.WIDTH * picture.DPI
    assert output.stat().st_size < 300_000
    assert (drawn != 255).any(axis=2).mean() > 0.2


def test_scenes_are_decided_by_the_ratio(runs, monkeypatch):
    monkeypatch.setattr(picture, "SCENES", 1)
    monkeypatch.setattr(picture, "SCORES", {"lr": "LR"})
    [scene] = picture.judged_scenes(detector.load(runs[1] / "detector"))
    np.testing.assert_array_equal(scene.outlier, scene.scores["lr"] > 0.0)
    assert set(np.unique(scene.label)) == {0, 1}
