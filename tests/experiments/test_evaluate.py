"""A saved detector judged on other sets: the same numbers as the library's functions give, and nothing is fitted."""

import json
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, tables
from experiments.images import saved
from quantjax import detector, metrics
from quantjax.data import streamed
from quantjax.data.readers import FileSource
from quantjax.data.sources import open_source
from quantjax.extractors import BACKBONES
from quantjax.report import check_results

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted():
    """Random weights; the threshold keeps half of the images of `sets`."""
    backbone = BACKBONES["wrn10_1"]
    variables = jax.jit(backbone.build(8).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    record = {"source": "held-out", "n": 9, "promised_tpr": 90.0, "achieved_tpr": 100.0}
    names = tuple(map(str, range(8)))
    whole = detector.Detector(
        "wrn10_1", variables, backbone.preprocessing, 32, names, "energy", {"temperature": 1.0}, (), 0.0, record
    )
    return whole._replace(threshold=float(np.median(detector.score(whole, IMAGES))))


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "quantod-digits" / "detector"
    detector.save(fitted, folder)
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """An .npz with labels, class folders under the detector's names in another order, and a flat folder."""
    root = tmp_path_factory.mktemp("sets")
    np.savez(root / "known.npz", images=IMAGES, labels=np.arange(24) % 8)
    for i, image in enumerate(IMAGES):
        for file in (root / "classes" / str(7 - i % 8) / f"{i}.png", root / "flat" / f"{i}.png"):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image if "classes" in file.parts else image // 4).save(file)
    return root


def silent(title):
    return nullcontext(lambda done, total: None)


def run(capsys, *arguments):
    status = evaluate.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_rates_are_those_of_the_scores(capsys, fitted, folder, sets, tmp_path):
    status, out, _ = run(
        capsys, "--detector", folder.parent, "--inlier", sets / "known.npz", "--outliers", f"dark={sets / 'flat'}",
        "gaussian_noise", "--output", tmp_path / "judged",
    )  # fmt: skip
    assert status == 0
    results = json.loads((tmp_path / "judged" / "results.json").read_text())
    check_results(results)
    score = detector.predictor(fitted, batch_size=32).predict
    known = score(IMAGES)
    noise = open_source("gaussian_noise").images
    others = {"dark": score(IMAGES // 4).score, "gaussian_noise": score(noise).score}
    kept = 100.0 * np.mean(known.score <= np.float32(fitted.threshold))
    assert 40.0 < kept < 60.0
    assert results["calibration"]["achieved_tpr"] == pytest.approx(kept)
    assert results["calibration"]["achieved_when_set"] == 100.0
    assert results["accuracy"] == pytest.approx(100.0 * np.mean(known.label == np.arange(24) % 8))
    assert [row["outlier"] for row in results["rows"]] == list(others)
    for row in results["rows"]:
        scores = others[row["outlier"]]
        assert row["outliers_accepted"] == pytest.approx(100.0 * np.mean(scores <= np.float32(fitted.threshold)))
        assert row["auroc"] == pytest.approx(100.0 * metrics.auroc(known.score, scores), abs=0.3)
        assert row["fpr95"] == pytest.approx(100.0 * metrics.fpr_at_tpr(known.score, scores), abs=1.0)
        assert row["fpr95_outlier_positive"] == pytest.approx(
            100.0 * metrics.fpr_at_tpr(known.score, scores, positive="outlier"), abs=4.2
        )
    assert out.startswith((tmp_path / "judged" / "results.md").read_text())
    assert "At the stored threshold" in out
    assert f"achieved {kept:.2f} %" in out
    assert "Nothing drawn" in out
    assert "nothing drawn" in (tmp_path / "judged" / "report.html").read_text()
    assert "energy" in tables.tables_of([tables.read_run(tmp_path / "judged")], [1])


def test_nothing_but_inliers_judges_the_threshold(capsys, folder, sets):
    status, out, err = run(capsys, "--detector", folder, "--inlier", sets / "flat")
    assert status == 0, err
    assert "No outlier set was given" in out
    assert "Inlier accuracy not measured" in out  # no labels


def test_held_out_takes_the_fifth_that_a_run_tests_on(folder, sets, fitted):
    how = {"data_dir": None, "batch_size": 32, "progress": silent}
    whole = saved.judge_sets(fitted, str(sets / "classes"), [], held_out=False, **how).results
    fifth = saved.judge_sets(fitted, str(sets / "classes"), [], held_out=True, **how).results
    assert whole["calibration"]["achieved_on"].startswith("24 images")
    assert fifth["calibration"]["achieved_on"].startswith("8 images")  # one of three of each class
    assert whole["accuracy"] is not None


def test_classes_are_matched_by_name():
    one = saved.Set(None, np.array([0, 1, 1, 2]), ("cat", "dog", "owl"), 0.0)
    known = ("owl", "ant", "dog", "cat")
    assert saved.accuracy(one, known, np.array([3, 2, 0, 0])) == 75.0
    assert saved.accuracy(one, ("cat", "dog"), np.array([0, 1, 1, 0])) is None  # it has no owls
    plain = one._replace(class_names=())
    assert saved.accuracy(plain, known, np.array([0, 1, 2, 2])) == 75.0  # by number
    assert saved.accuracy(plain._replace(labels=np.array([0, 4])), known, np.array([0, 1])) is None
    assert saved.accuracy(plain._replace(labels=np.array([0, -1])), known, np.array([0, 1])) is None


def test_scores_of_streamed_images_are_those_of_arrays(fitted, sets):
    files = sorted((sets / "flat").glob("*.png"))
    predict = detector.predictor(fitted, batch_size=8).predict
    rows = streamed(FileSource(files), 32, None, 0.0)
    np.testing.assert_allclose(
        predict(rows).score, predict(np.stack([np.array(Image.open(f)) for f in files])).score, rtol=1e-6
    )


def test_nan_counts_as_the_most_outlying(fitted, sets, monkeypatch):
    real = detector.predictor

    def damaged(loaded, **options):
        made = real(loaded, **options)

        def predict(rows, report=None):
            found = made.predict(rows, report)
            found.score[0], found.outlier[0] = np.nan, True
            return found

        return made._replace(predict=predict)

    monkeypatch.setattr(detector, "predictor", damaged)
    found = saved.judge_sets(
        fitted, str(sets / "known.npz"), ["gaussian_noise"], data_dir=None, held_out=False, batch_size=32,
        progress=silent,
    )  # fmt: skip
    assert found.scores["energy"].inlier[0] == np.inf
    assert found.warnings[0].startswith("warning: the score of 1 images of inlier is NaN")
    assert len(found.warnings) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "absent", "--inlier", "digits"], "--detector must be the folder of a run"),
        (["--inlier", "no_such_set"], "no_such_set is no known data set"),
        (["--inlier", "digits", "--outliers", "digits"], "is the inlier set itself"),
        (["--inlier", "NPZ", "--outliers", "again=CLASSES", "again=NPZ2"], "a name of its own, got 'again'"),
        (["--inlier", "NPZ", "--outliers", "copy=NPZ2"], "holds images of --inlier"),
        (["--inlier", "digits", "--data-dir", "absent"], "--data-dir must be the folder"),
        (["--inlier", "digits", "--batch-size", "0"], "--batch-size"),
        (["--inlier", "digits", "--output", "RUN"], "whose results would be lost"),
        (["--inlier", "digits", "--output", "NPZ"], "--output must be a folder"),
    ],
)
def test_what_cannot_be_judged_is_one_error(capsys, folder, sets, tmp_path, arguments, message):
    copy = tmp_path / "copy.npz"
    copy.write_bytes((sets / "known.npz").read_bytes())
    names = {"NPZ": sets / "known.npz", "NPZ2": copy, "CLASSES": sets / "classes", "RUN": folder}
    for short in sorted(names, key=len, reverse=True):
        arguments = [str(a).replace(short, str(names[short])) for a in arguments]
    given = arguments if "--detector" in arguments else ["--detector", folder, *arguments]
    status, out, err = run(capsys, *given)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err
