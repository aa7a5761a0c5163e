"""What is not saved or begun in silence: detectors worse than chance, flows learned by heart, hours on a CPU."""

import numpy as np
import pytest

from experiments import settings
from experiments.images import classifier, outcome, sets
from experiments.images.config import HELD_OUT, INLIER, TRAINING, QuantOD, resolve
from experiments.images.scoring import Scored
from experiments.scenes import config as scenes
from experiments.scenes import outcome as scenes_outcome
from quantjax import classification, metrics
from quantjax.detector import doubts

ROWS = np.arange(100.0)


def test_worse_than_chance_names_a_method_that_works():
    said = settings.doubted("quantod", {"quantod": 0.075, "msp": 0.6, "energy": 0.83})
    assert said == (
        "warning: the saved detector, quantod, orders known outliers worse than chance (AUROC 7.5 %); --detector "
        "energy saves a method that works here (AUROC 83.0 %)"
    )
    assert settings.doubted("energy", {"quantod": 0.075, "energy": 0.83}) is None
    assert "no method did better" in settings.doubted("msp", {"quantod": 0.075, "msp": 0.3})
    assert settings.doubted("msp", {}) is None


@pytest.mark.parametrize(
    ("held_out", "wrong"),
    [(ROWS, False), (ROWS + 44, False), (ROWS + 46, True), (ROWS * np.nan, True)],  # 94.05 keeps 95 % of 0..99
)
def test_a_flow_that_knows_its_training_rows_by_heart(held_out, wrong):
    found = doubts("quantod", {}, training=ROWS, held_out=held_out)
    assert len(found) == wrong
    if wrong:
        assert "of the held-out inliers less likelihood than 95 % of its training rows" in found[0]
        said = settings.doubted("quantod", {"quantod": 0.9, "knn": 0.95}, training=ROWS, held_out=held_out)
        assert "--detector knn saves a method that works here" in said


def scored(**sets):
    return Scored({name.replace("_", " "): values for name, values in sets.items()}, {}, 0.0, True)


def test_a_run_on_images_asks_its_own_rows_and_scores():
    config = resolve(QuantOD(scores=("quantod", "energy")), accelerator=False)
    assert (INLIER, HELD_OUT, TRAINING) == ("inlier", "held out", "training rows")
    good = {"inlier": ROWS, "held_out": ROWS, "training_rows": ROWS}
    rows = [{"method": m, "auroc": a} for m, a in (("quantod", 20.0), ("quantod", 60.0), ("energy", 83.0))]
    assert "(AUROC 40.0 %)" in outcome.doubted(config, rows, {"quantod": scored(**good), "energy": scored(**good)})
    far = good | {"held_out": ROWS + 60}
    both = {"quantod": scored(**far), "energy": scored(inlier=ROWS, held_out=ROWS + 60)}
    assert "by heart" in outcome.doubted(config, [], both)
    assert "choose another method with --detector" in outcome.doubted(config, [], both)
    other = resolve(QuantOD(scores=("quantod", "energy"), detector="energy"), accelerator=False)
    assert outcome.doubted(other, rows, both) is None


def test_a_run_on_scenes_asks_its_own_rows():
    config = scenes.resolve(scenes.UEM(), accelerator=False)
    rows = [
        {"variant": variant, "method": m, "auroc": auroc}
        for variant, m, auroc in (("g-d", "lr", 30.0), ("g-d", "id", 70.0), ("fine-tuned", "rba", 99.0))
    ]
    assert "--detector id saves a method that works" in scenes_outcome.doubted(config, rows)
    other = scenes.resolve(scenes.UEM(detector="id"), accelerator=False)
    assert scenes_outcome.doubted(other, rows) is None


def test_too_few_held_out_inliers_are_said_once():
    config = resolve(QuantOD(), accelerator=False)
    few = outcome.calibrate(config, scored(inlier=ROWS, held_out=ROWS[:10]))
    assert outcome.too_few(config, few) == (
        "warning: 10 training images in neither stage promise to accept 90.9 %, --calibration-tpr 0.95 needs 19 of "
        "them: give more images"
    )
    assert outcome.too_few(config, outcome.calibrate(config, scored(inlier=ROWS, held_out=ROWS[:19]))) is None
    assert isinstance(few, metrics.Calibration)


@pytest.fixture
def minutes(monkeypatch):
    """Training of any network takes a minute for every image and a hundred epochs; of the small one a hundredth."""

    def seconds(model, size, images, epochs, cores):
        return 0.6 * images * epochs * (0.01 if model.depth == 10 else 1.0)

    monkeypatch.setattr(classifier, "training_seconds", seconds)


@pytest.mark.usefixtures("minutes")
def test_hours_on_a_cpu_are_refused_with_what_finishes():
    flags = QuantOD(inlier="a=/b")
    config = resolve(flags, accelerator=False)
    with pytest.raises(ValueError, match="100 epochs on 128 images: about 2 hours on this CPU") as error:
        classifier.check_time(flags, config, 128)
    assert "--backbone wrn10_1 --epochs 100 (about 1 minutes)" in str(error.value)
    assert "--weights FILE" in str(error.value)
    with pytest.raises(ValueError, match=r"about 35 days .* --backbone wrn10_1 --epochs 2 \(about 10 minutes\)"):
        classifier.check_time(flags, config, 50_000)


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("change", [{"epochs": 100}, {"backbone": "wrn40_2"}, {"inlier": "digits"}])
def test_who_chooses_is_left_alone(change):
    flags = QuantOD(**{"inlier": "a=/b", **change})
    classifier.check_time(flags, resolve(flags, accelerator=False), 128)


def test_seconds_follow_the_operations():
    from quantjax.extractors import BACKBONES

    model = BACKBONES["wrn10_1"].build(2)
    one = classification.training_seconds(model, 8, 100, 10, 1)
    assert one > 0.0
    assert classification.training_seconds(model, 8, 200, 10, 2) == pytest.approx(one)
    assert 3.5 * one < classification.training_seconds(model, 16, 100, 10, 1) < 5.0 * one  # borders are cheaper


def test_too_few_training_images_for_a_method_are_refused_with_the_others():
    sets.check_enough(("knn", "msp"), np.zeros(10, int), 1)
    with pytest.raises(ValueError, match=r"knn needs at least 10 training rows, got 9; .* \(--scores msp,energy\)"):
        sets.check_enough(("msp", "knn", "energy"), np.zeros(9, int), 1)
