"""What detectors keep of held-out inliers: p-values, thresholds of classes, drift, and the files that hold them."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

from quantjax import detector, metrics

N = 60


@pytest.fixture(scope="module")
def logits():
    """[N, 3] whose max_logit scores are -3 .. -1; the first class has 40 rows, the second 18, the third 2."""
    labels = np.repeat([0, 1, 2], [40, 18, 2])
    rows = np.zeros((N, 3), np.float32)
    rows[np.arange(N), labels] = np.linspace(1.0, 3.0, N)[np.random.default_rng(0).permutation(N)]
    return rows


@pytest.fixture(scope="module")
def fitted(logits):
    return detector.fit("max_logit", logits=logits, class_names=("cat", "dog", "owl"))


@pytest.fixture(scope="module")
def one(fitted, logits):
    return detector.calibrate(fitted, logits)


@pytest.fixture(scope="module")
def mondrian(fitted, logits):
    with pytest.warns(UserWarning, match=r"^1 of 3 classes have too few held-out inliers to promise 90 %"):
        return detector.calibrate(fitted, logits, 0.9, per_class=True)


ROWS = np.array([[9.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [0.5, 0, 0]], np.float32)


def test_p_values_are_ranks_among_the_held_out(one, logits):
    decided = detector.predict(one, ROWS)
    scores = -logits.max(1)
    wanted = [(1 + np.sum(scores >= score)) / (N + 1) for score in -ROWS.max(1)]
    np.testing.assert_allclose(decided.p_value, wanted)
    assert (wanted[0], wanted[-1]) == (1.0, 1 / (N + 1))
    every = detector.predict(one, logits)
    np.testing.assert_array_equal(every.outlier, every.p_value <= 0.05)
    assert detector.predict(one, np.full((1, 3), np.nan)).p_value == 1 / (N + 1)


def test_a_false_alarm_rate_is_the_other_side(fitted, logits):
    kept, lost = detector.calibrate(fitted, logits, 0.93), detector.calibrate(fitted, logits, false_alarm_rate=0.07)
    assert (kept.threshold, kept.calibration) == (lost.threshold, lost.calibration)
    assert lost.calibration["promised_tpr"] == 93.0
    for rates, message in (((0.9, 0.1), "give true_positive_rate or"), ((None, 1.0), "false_alarm_rate must lie in")):
        with pytest.raises(ValueError, match=message):
            detector.calibrate(fitted, logits, rates[0], false_alarm_rate=rates[1])


def test_classes_have_thresholds_of_their_own(mondrian, logits):
    """Of 40 the 37th (0.9 * 41 = 36.9), of 18 the 18th (17.1), of 2 none: the 55th of all (54.9)."""
    scores, labels = -logits.max(1), logits.argmax(1)
    first, second = np.sort(scores[labels == 0])[36], np.sort(scores[labels == 1])[17]
    assert mondrian.class_thresholds == (first, second, None)
    assert mondrian.threshold == np.sort(scores)[54]
    per_class = mondrian.calibration["per_class"]
    assert [row["n"] for row in per_class] == [40, 18, 2]
    np.testing.assert_allclose(per_class[1]["interval"], 100 * np.array([0.025, 0.975]) ** (1 / 18))
    assert per_class[2]["interval"] is None
    np.testing.assert_allclose(detector.thresholds(mondrian, [2, 0, 1]), [mondrian.threshold, first, second])
    decided = detector.predict(mondrian, logits)
    bounds = np.array([first, second, mondrian.threshold])[labels]
    np.testing.assert_array_equal(decided.outlier, scores > bounds)
    assert decided.outlier.sum() > 0
    np.testing.assert_array_equal(decided.outlier, decided.p_value <= 0.1 + 1e-12)
    # the dog at -2 among the dogs, the owl among all
    _, _, dog, owl, _ = detector.predict(mondrian, ROWS).p_value
    assert dog == (1 + np.sum(scores[labels == 1] >= -2.0)) / 19
    assert owl == (1 + np.sum(scores >= -2.0)) / 61


def same(one, other):
    for got, wanted in zip(one, other, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_files_and_programs_hold_them(one, mondrian, tmp_path):
    for made, fmt in ((one, 1), (mondrian, 2)):
        detector.save(made, tmp_path / "d")
        assert json.loads((tmp_path / "d" / "detector.json").read_text())["format"] == fmt
        loaded = detector.load(tmp_path / "d")
        assert (loaded.class_thresholds, loaded.calibration) == (made.class_thresholds, made.calibration)
        same(detector.predict(loaded, ROWS), detector.predict(made, ROWS))
        detector.export(loaded, tmp_path / "e", platforms=("cpu",))
        program = detector.load_exported(tmp_path / "e")
        same(program.predictor.predict(ROWS), detector.predict(made, ROWS))
        assert detector.drift(program, np.full(30, 5.0)).drifted
        np.testing.assert_array_equal(detector.thresholds(program, [0, 2]), detector.thresholds(made, [0, 2]))


def forget(folder):
    """The folder as earlier versions wrote it."""
    (folder / "held_out.safetensors").unlink()
    file = next(path for path in folder.iterdir() if path.suffix == ".json")
    content = json.loads(file.read_text())
    del content["held_out_sha256"]
    file.write_text(json.dumps(content))


def test_detectors_of_earlier_versions_have_none(one, tmp_path):
    detector.save(one, tmp_path / "d")
    assert set(from_bytes((tmp_path / "d" / "arrays.safetensors").read_bytes())) == set()  # nothing that they miss
    forget(tmp_path / "d")
    loaded = detector.load(tmp_path / "d")
    assert loaded == one._replace(held_out=None)
    decided = detector.predict(loaded, ROWS)
    assert decided.p_value is None
    np.testing.assert_array_equal(decided.outlier, detector.predict(one, ROWS).outlier)
    detector.export(one, tmp_path / "e", platforms=("cpu",))
    forget(tmp_path / "e")
    program = detector.load_exported(tmp_path / "e")
    assert program.predictor.predict(ROWS).p_value is None
    for old in (loaded, program, detector.SceneDetector(*[None] * 14)):
        for call in (lambda old=old: detector.drift(old, [1.0]), lambda old=old: detector.watch(old)):
            with pytest.raises(ValueError, match=r"keeps no scores of held-out inliers .*detector\.calibrate"):
                call()


def test_features_need_logits_beside_them_where_classes_count(rng, tmp_path):
    features, labels = rng.normal(size=(80, 2)).astype(np.float32), np.arange(80) % 2
    made = detector.fit("gem", features=features, labels=labels)
    with pytest.raises(ValueError, match="per_class needs the class predicted for each inlier: give"):
        detector.calibrate(made, features, per_class=True)
    rows = {"features": features, "logits": np.eye(2, dtype=np.float32)[labels]}
    made = detector.calibrate(made, rows, per_class=True)
    with pytest.raises(ValueError, match=r"rows must .*logits"):
        detector.predict(made, features)
    detector.export(made, tmp_path / "e", platforms=("cpu",))
    program = detector.load_exported(tmp_path / "e")
    assert program.inputs == {"features": 2, "logits": 2}
    same(program.predictor.predict(rows), detector.predict(made, rows))
    again = detector.calibrate(made, features)  # one threshold again
    assert again.class_thresholds is again.held_out.labels is None
    assert "per_class" not in again.calibration


def test_scores_set_by_hand_may_be_infinite(one, tmp_path):
    """A run keeps those of its own evaluation; -0.5 is reached by infinity alone of these four."""
    detector.save(one._replace(held_out=detector.keep(np.array([np.inf, -3.0, -1.0, -2.0]))), tmp_path / "d")
    loaded = detector.load(tmp_path / "d")
    np.testing.assert_array_equal(loaded.held_out.scores, np.float32([-3, -2, -1, np.inf]))
    assert detector.predict(loaded, ROWS[-1:]).p_value == 2 / 5


def test_drift_and_watch_start_from_the_held_out(one, logits, rng):
    batch = detector.score(one, logits[rng.permutation(N)][:30])
    assert not detector.drift(one, batch).drifted
    assert detector.drift(one, batch + 2.0, test="mann_whitney").drifted
    assert detector.drift(one, batch) == metrics.drift_test(-logits.max(1), batch)
    state = detector.observe(detector.watch(one), batch)
    assert state.p_value > 0.05
    assert detector.observe(state, batch + 2.0).p_value < 0.01


def swap(folder, arrays):
    data = to_bytes(arrays)
    (folder / "held_out.safetensors").write_bytes(data)
    file = folder / "detector.json"
    content = json.loads(file.read_text()) | {"held_out_sha256": hashlib.sha256(data).hexdigest()}
    file.write_text(json.dumps(content))


def edit(folder, **changes):
    file = folder / "detector.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


SCORES, LABELS = np.arange(4, dtype=np.float32), np.int32([0, 1, 0, 1])
DAMAGE = [
    (lambda f: (f / "held_out.safetensors").write_bytes(b""), "damaged or cut short, 0 bytes"),
    (lambda f: swap(f, {"scores": SCORES[::-1].copy(), "labels": LABELS}), "scores in ascending order"),
    (lambda f: swap(f, {"scores": np.float32([1, np.nan, 2]), "labels": LABELS[:3]}), "ascending order.*no NaN"),
    (lambda f: swap(f, {"scores": np.float32([np.nan]), "labels": LABELS[:1]}), "no NaN"),
    (lambda f: swap(f, {"scores": SCORES[:0], "labels": LABELS[:0]}), "at least one"),
    (lambda f: swap(f, {"scores": SCORES.astype(float), "labels": LABELS}), "must be float32, got float64"),
    (lambda f: swap(f, {"scores": SCORES[None], "labels": LABELS}), r"must have shape \[n\]"),
    (lambda f: swap(f, {"scores": SCORES, "labels": LABELS[:2]}), "same number of rows"),
    (lambda f: swap(f, {"scores": SCORES, "labels": LABELS + 3}), "labels of held_out must lie in"),
    (lambda f: swap(f, {"scores": SCORES, "labels": 0 * LABELS}), r"own, got none of \[1\]"),
    (lambda f: swap(f, {"scores": SCORES}), "must have labels where classes"),
    (lambda f: swap(f, {"labels": LABELS}), "must have scores, and may have labels; got labels"),
    (lambda f: edit(f, class_thresholds=[1.0]), r"class_thresholds must have shape \[3\]"),
    (lambda f: edit(f, class_thresholds=["x", 1, 2]), "no valid detector"),
    (lambda f: edit(f, class_thresholds=7), "no valid detector"),
    (lambda f: edit(f, held_out_sha256=7), "damaged or cut short"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_files_give_one_clear_error(mondrian, tmp_path, damage, message):
    detector.save(mondrian, tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(ValueError, match=message):
        detector.load(tmp_path / "d")


def test_a_missing_file_is_named(one, tmp_path):
    detector.save(one, tmp_path / "d")
    (tmp_path / "d" / "held_out.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"held_out\.safetensors"):
        detector.load(tmp_path / "d")


def test_scenes_have_one_threshold():
    with pytest.raises(ValueError, match="per_class must be False for a detector of scenes"):
        detector.calibrate(detector.SceneDetector(*[None] * 14), [], per_class=True)
