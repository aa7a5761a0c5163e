import hashlib
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

from quantjax import detector, resize, scores, segmentation
from quantjax.data import pairs
from quantjax.detector import artefact, scene_export
from quantjax.detector.scenes import make_predictor, networks, template
from quantjax.extractors import FEATURE_BACKBONES, standardise
from quantjax.heads.gmm import GmmSettings
from quantjax.scores import Standardisation

BACKBONE, CLASSES, CHANNELS, WINDOW, STRIDE = "vit_tiny_scratch", ("road", "sky", "car"), 8, (28, 28), (14, 14)
MIXTURE = GmmSettings(3, dimension=CHANNELS, components=2, memory=4, per_component=2)
PAPER = MIXTURE._replace(combine="logsumexp", normalisation="none")
SCALE = Standardisation(jnp.float32(-3.0), jnp.float32(2.5))
CALIBRATION = {"source": "inlier scenes", "n": 40, "promised_tpr": 99.0, "achieved_tpr": 98.5}


def make(inlier_head=MIXTURE, unknown_head=None, **changes):
    """A detector with random weights; heads as given, the memory of mixtures let go."""
    fitted = detector.SceneDetector(
        backbone=BACKBONE,
        overrides={},
        channels=CHANNELS,
        token_hidden=8,
        projector=(8, CHANNELS),
        inlier_head=inlier_head,
        unknown_head=unknown_head,
        variables={},
        preprocessing=FEATURE_BACKBONES[BACKBONE].preprocessing,
        class_names=CLASSES,
        window=WINDOW,
        stride=STRIDE,
        threshold=0.0,
        calibration=CALIBRATION,
    )._replace(**changes)
    return fitted._replace(variables=random_arrays(template(fitted)))


def random_arrays(shapes):
    rng = np.random.default_rng(3)

    def draw(path, leaf):
        size = [max(length, 0) for length in leaf.shape]  # an open length, that of a memory bank, is 0
        spread = "var" in str(path[-1]) or "deviation" in str(path[-1])
        return (rng.uniform(0.5, 1.5, size) if spread else 0.2 * rng.standard_normal(size)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def fitted():
    return make()


@pytest.fixture(scope="module")
def scene():
    return np.random.default_rng(1).integers(0, 256, (35, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "d"
    detector.save(fitted, folder)
    return folder


def whole_window(fitted, variables, image):
    """F and u of an image that is one window, by the networks' own functions."""
    segmentor, estimator = networks(fitted)
    known = segmentation.segment(segmentor, variables["segmentor"], standardise(image[None], fitted.preprocessing))
    u = segmentation.estimate(estimator, variables["estimator"], known.features).logits
    return tuple(resize.bilinear(maps, image.shape[:2])[0] for maps in (known.logits, u))


@pytest.mark.parametrize(
    ("heads", "options"),
    [
        ((MIXTURE, None), {}),
        ((None, None), {"score": "ood"}),
        ((PAPER, PAPER._replace(num_classes=2)), {"logits_scale": SCALE, "unknown_scale": SCALE}),
        (
            (PAPER, None),
            {"score": "id", "logits_scale": SCALE, "overrides": {"grid": (2, 3), "position_rule": "offset"}},
        ),
    ],
    ids=["g-d", "d-d", "g-g", "id"],
)
def test_decisions_survive_the_disk_and_are_those_of_the_library(tmp_path, scene, heads, options):
    fitted = make(*heads, **options)
    detector.save(fitted, tmp_path / "d")
    loaded = detector.load(tmp_path / "d")
    assert isinstance(loaded, detector.SceneDetector)
    plain = ("variables", "logits_scale", "unknown_scale")
    assert [v for k, v in loaded._asdict().items() if k not in plain] == [
        v for k, v in fitted._asdict().items() if k not in plain
    ]
    image = scene[:28, :28]
    logits, u = jax.jit(partial(whole_window, fitted))(fitted.variables, image)
    scale = dict(options).get("logits_scale")
    wanted = {
        "lr": lambda: scores.likelihood_ratio(u, logits, scale, options.get("unknown_scale")),
        "ood": lambda: scores.unknown(u),
        "id": lambda: scores.inlier(logits, scale),
    }[fitted.score]()
    got = detector.predict(loaded, image, batch_size=1)
    np.testing.assert_allclose(got.score, wanted, rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(got.label, np.argmax(logits, -1))
    np.testing.assert_array_equal(got.outlier, got.score > 0.0)


def test_scenes_of_any_size_and_the_threshold(fitted, scene):
    run = detector.predictor(fitted, batch_size=2)
    score = run.score(scene)
    threshold = float(np.sort(score, axis=None)[-6])  # unknown iff ABOVE: the pixel at the threshold is known
    judged = detector.predictor(fitted._replace(threshold=threshold), batch_size=2).predict(scene)
    assert (judged.score.dtype, judged.label.dtype, judged.outlier.dtype) == (np.float32, np.uint8, bool)
    assert judged.outlier.sum() == 5
    assert judged.label.max() < len(CLASSES)
    assert run.predict(scene[:9, :60]).outlier.shape == (9, 50)
    np.testing.assert_allclose(judged.score, score, rtol=1e-5)
    for bad in (scene[None], scene[..., 0], scene.astype(np.float32), scene[..., :1]):
        with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
            run.predict(bad)


def test_a_score_that_is_not_a_number_is_unknown():
    score = np.array([[0.5, np.nan, 2.0, np.inf, -np.inf, 1.0]], np.float32)
    maps = {"lr": score, "prediction": np.zeros(score.shape, np.uint8)}
    run = make_predictor(lambda image: maps, "lr", 1.0)
    assert run.predict(np.zeros((1, 6, 3), np.uint8)).outlier.tolist() == [[False, True, True, True, False, False]]


def test_an_exported_detector_decides_alike_on_scenes_of_any_size(tmp_path, fitted, scene):
    run = detector.predictor(fitted, batch_size=2)
    detector.export(fitted._replace(threshold=0.1), tmp_path / "e", platforms=("cpu",))
    loaded = detector.load_exported(tmp_path / "e", batch_size=2)
    assert (loaded.class_names, loaded.window, loaded.stride, loaded.threshold) == (CLASSES, WINDOW, STRIDE, 0.1)
    for image in (scene, scene[:20, :28]):
        got, wanted = loaded.predictor.predict(image), run.predict(image)
        np.testing.assert_allclose(got.score, wanted.score, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(got.label, wanted.label)
        np.testing.assert_array_equal(got.outlier, got.score > np.float32(0.1))
    program = tmp_path / "e" / "windows.bin"
    program.write_bytes(program.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"windows.bin is damaged or cut short"):
        detector.load_exported(tmp_path / "e")
    (tmp_path / "e" / scene_export.CONTENT).write_text('{"kind": "something"}')
    with pytest.raises(ValueError, match="is no 'quantjax exported scenes', got 'something'"):
        scene_export.load(tmp_path / "e")


@pytest.mark.parametrize("size", [(70, 100), (28, 40), (21, 50)])
def test_scenes_of_other_heights_are_seen_at_the_height_of_the_run(fitted, size):
    """A photograph is judged as its resized copy is; its own pixels take what the nearest pixel there got."""
    photograph = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized = pairs.resized({"image": photograph, "label": photograph[..., 0], "name": ""}, 28)["image"]
    wanted = detector.predict(fitted, resized, batch_size=2)
    got = detector.predict(fitted._replace(image_height=28), photograph, batch_size=2)
    rows, columns = ((np.arange(new) + 0.5) / new * old for new, old in zip(size, resized.shape[:2], strict=True))
    nearest = np.ix_(rows.astype(int), columns.astype(int))
    for name in ("outlier", "label", "score"):
        assert getattr(got, name).shape == size
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name)[nearest])


def test_the_height_survives_the_disk_and_the_export(tmp_path, fitted, scene):
    at_28 = fitted._replace(image_height=28)
    detector.save(at_28, tmp_path / "d")
    loaded = detector.load(tmp_path / "d")
    assert loaded.image_height == 28
    edit(tmp_path / "d", image_height="28")
    with pytest.raises(ValueError, match="image_height must be 1 whole numbers"):
        detector.load(tmp_path / "d")
    detector.export(loaded, tmp_path / "e", platforms=("cpu",))
    exported = detector.load_exported(tmp_path / "e", batch_size=2)
    assert exported.image_height == 28
    wanted = detector.predict(at_28, scene, batch_size=2)
    np.testing.assert_allclose(exported.predictor.score(scene), wanted.score, rtol=1e-4, atol=1e-5)


def edit(folder, **changes):
    """Change keys of detector.json; a dict changes keys inside."""
    file = folder / artefact.CONTENT
    stored = json.loads(file.read_text())
    for key, value in changes.items():
        stored[key] = stored[key] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(stored))


def edit_arrays(folder, change):
    file = folder / artefact.ARRAYS
    arrays = from_bytes(file.read_bytes())
    change(arrays)
    file.write_bytes(to_bytes(arrays))
    edit(folder, arrays_sha256=hashlib.sha256(file.read_bytes()).hexdigest())


HEAD_BIAS = "estimator/head/params/linear/bias"
DAMAGE = [
    (lambda f: (f / artefact.ARRAYS).write_bytes((f / artefact.ARRAYS).read_bytes()[:-4]), "cut short"),
    (lambda f: edit_arrays(f, lambda a: a.pop(HEAD_BIAS)), "bias is missing"),
    (lambda f: edit_arrays(f, lambda a: a.update({HEAD_BIAS: np.zeros(3, np.float32)})), r"must be float32 \[2\]"),
    (lambda f: edit_arrays(f, lambda a: a.update({HEAD_BIAS: np.zeros(2, np.int32)})), "is int32"),
    (lambda f: edit_arrays(f, lambda a: a.update({HEAD_BIAS: np.full(2, np.nan, np.float32)})), "must be finite"),
    (lambda f: edit_arrays(f, lambda a: a.update(more=np.zeros(2))), "more is unexpected"),
    (lambda f: edit(f, kind="something"), "its kind is 'something'"),
    (lambda f: edit(f, kind=["quantjax detector"]), "its kind is"),
    (lambda f: edit(f, kind="quantjax detector"), "no valid detector"),
    (lambda f: edit(f, backbone={"name": "os.system"}), "backbone must be one of"),
    (lambda f: edit(f, backbone={"name": "vit_small_scratch"}), "segmentor/backbone/"),
    (lambda f: edit(f, backbone={"precision": "int4"}), "precision must be one of"),
    (lambda f: edit(f, backbone={"overrides": {"depth": 10**9}}), "override of the backbone must be one of"),
    (lambda f: edit(f, backbone={"overrides": {"grid": [10**9, 10**9]}}), "grid must be 2 whole numbers"),
    (lambda f: edit(f, backbone={"overrides": {"position_rule": "x"}}), "must be one of antialiased"),
    (lambda f: edit(f, backbone={"overrides": None}), "no valid detector"),
    (lambda f: edit(f, decoder={"channels": 10**12}), "whole numbers from 1 to"),
    (lambda f: edit(f, decoder={"channels": 16}), "no valid detector"),
    (lambda f: edit(f, decoder={"token_hidden": 4}), "segmentor/decoder/"),
    (lambda f: edit(f, projector=[8] * 10_000), "1 to 16 layers"),
    (lambda f: edit(f, projector=[8, 2.5]), "whole numbers"),
    (lambda f: edit(f, projector=[8, 4]), "estimator/"),
    (lambda f: edit(f, inlier_head={"memory": 10**12}), "number up to"),
    (lambda f: edit(f, inlier_head={"components": 3}), "state/mean"),
    (lambda f: edit(f, inlier_head={"components": 200}), "at most 255"),
    (lambda f: edit(f, inlier_head={"combine": "sum"}), "combine must be one of"),
    (lambda f: edit(f, inlier_head={"colour": 1}), "colour"),
    (lambda f: edit(f, inlier_head={"kind": "pickle"}), "kind of inlier_head must be one of"),
    (lambda f: edit(f, unknown_head={"scale": 1}), "linear and has no settings"),
    (lambda f: edit(f, class_names=["a", "b"]), "inlier_head must have 2 classes"),
    (lambda f: edit(f, class_names=[]), "class names"),
    (lambda f: edit(f, window=[28]), "window must be 2 whole numbers"),
    (lambda f: edit(f, window=[28_000_000, 28]), "from 1 to 4096"),
    (lambda f: edit(f, window=[30, 28]), "multiples of 14"),
    (lambda f: edit(f, stride=[0, 14]), "stride must be 2 whole numbers"),
    (lambda f: edit(f, stride=[42, 14]), "at most the window"),
    (lambda f: edit(f, score={"name": "eval"}), "score must be one of"),
    (lambda f: edit(f, score={"logits_scale": {"mean": 0.0, "deviation": 0.0}}), "positive deviation"),
    (lambda f: edit(f, score={"logits_scale": {"mean": 0.0}}), "no valid detector"),
    (lambda f: edit(f, threshold=None), "no valid detector"),
    (lambda f: edit(f, threshold=float("nan")), "damaged.*NaN"),
    (lambda f: edit(f, preprocessing={"std": [1, 0, 1]}), "positive stds"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_files_give_one_clear_error(tmp_path, saved, damage, message):
    shutil.copytree(saved, tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(ValueError, match=message):
        detector.load(tmp_path / "d")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": float("inf")}, "threshold must be finite"),
        ({"class_names": ()}, "class names"),
        ({"variables": {}}, "missing"),
        ({"unknown_head": MIXTURE}, "unknown_head must have 2 classes"),
        ({"logits_scale": Standardisation(jnp.float32(0.0), jnp.float32(-1.0))}, "logits_scale"),
    ],
)
def test_a_detector_that_does_not_hold_together_is_refused(tmp_path, fitted, change, message):
    with pytest.raises(ValueError, match=message):
        detector.save(fitted._replace(**change), tmp_path / "d")
    with pytest.raises(ValueError, match=message):
        detector.predictor(fitted._replace(**change))
    assert not (tmp_path / "d").exists()


def test_what_is_no_detector_is_named(tmp_path):
    with pytest.raises(TypeError, match="PatchDetector; got dict"):
        detector.save({}, tmp_path / "d")


def test_msp_of_an_older_detector_stays_the_probability_its_threshold_was_set_on(tmp_path):
    detector.save(make(score="msp"), tmp_path / "new")
    assert detector.load(tmp_path / "new").score == "msp"
    file = tmp_path / "new" / "detector.json"
    content = json.loads(file.read_text())
    assert content["score"].pop("form") == "log_odds"
    file.write_text(json.dumps(content))
    assert detector.load(tmp_path / "new").score == "msp_probability"


def test_how_the_windows_of_swin_move_is_stored():
    """Versions that did not write it always moved them."""
    from quantjax.detector.scene_content import with_shift

    assert with_shift("swin_b", {"window": 7}) == {"window": 7, "shift": "larger_maps"}
    assert with_shift("swin_b", {"window": 7}, "always") == {"window": 7, "shift": "always"}
    assert with_shift("swin_b", {"shift": "larger_maps"}, "always") == {"shift": "larger_maps"}
    assert with_shift(BACKBONE, {"grid": (2, 2)}, "always") == {"grid": (2, 2)}
