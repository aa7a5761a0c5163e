import hashlib
import json
import pickle
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

from quantjax import detector, methods, scores
from quantjax.detector import artefact, exported
from quantjax.extractors import BACKBONES, standardise
from quantjax.flows.base import log_likelihood
from quantjax.flows.recipes import quantod

BACKBONE, CLASSES, DIMENSION, SIZE = "wrn10_1", ("cat", "dog", "owl"), 64, 8
FLOW = {"kind": "glow", "dimension": DIMENSION, "blocks": 2, "layers": 0, "width": 8, "dropout": 0.3}
PERMUTED = {
    **FLOW,
    "mixing": "permutation",
    "permutations": np.argsort(np.random.default_rng(5).random((2, 64))).tolist(),
}
CALIBRATION = {"source": "held-out images", "n": 40, "promised_tpr": 0.95, "achieved_tpr": 0.95}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def variables():
    """Random weights whose batch norms are not the identity, so that folding matters."""
    module = BACKBONES[BACKBONE].build(len(CLASSES))
    fresh = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda a: jnp.asarray(a + 0.02 * rng.standard_normal(a.shape), jnp.float32), fresh)


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(3).random((60, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def output(variables, images):
    """The unfolded classifier on the images, in evaluation mode."""
    module = BACKBONES[BACKBONE].build(len(CLASSES))
    return jax.jit(module.apply)(variables, standardise(images, BACKBONES[BACKBONE].preprocessing))


@pytest.fixture(scope="module")
def make(variables, features):
    labels = np.arange(len(features)) % len(CLASSES)
    fitted = {
        "quantod": lambda s: jax.jit(quantod(**s).init)(jax.random.key(4), jnp.asarray(features)),
        "mahalanobis": lambda s: scores.fit_tied_gaussian(features, labels, 3),
        "relative_mahalanobis": lambda s: (
            scores.fit_tied_gaussian(features, labels, 3),
            scores.fit_background(features),
        ),
        "mahalanobis_perturbed": lambda s: scores.fit_tied_gaussian(features, labels, 3),
        "gem": lambda s: scores.fit_tied_gaussian(features, labels, 3),
        "knn": lambda s: scores.fit_neighbours(features),
    }

    def build(score="msp", settings=None, threshold=0.0):
        settings = settings or {}
        params = fitted[score](settings) if score in fitted else ()
        preprocessing = BACKBONES[BACKBONE].preprocessing
        return detector.Detector(
            BACKBONE, variables, preprocessing, SIZE, CLASSES, score, settings, params, threshold, CALIBRATION
        )

    return build


PLAIN = [
    ("quantod", FLOW, lambda p, o: -log_likelihood(quantod(**FLOW), p, o.features)),
    ("quantod", PERMUTED, lambda p, o: -log_likelihood(quantod(**PERMUTED), p, o.features)),
    ("msp", {"form": "log_odds"}, lambda p, o: scores.msp(o.logits)),
    ("msp", {}, lambda p, o: -jax.nn.softmax(o.logits, -1).max(-1)),  # written before there were two forms
    ("max_logit", {}, lambda p, o: -o.logits.max(-1)),
    ("energy", {"temperature": 2.0}, lambda p, o: -2.0 * jax.nn.logsumexp(o.logits / 2.0, -1)),
    ("mahalanobis", {}, lambda p, o: scores.mahalanobis(p, o.features)),
    ("relative_mahalanobis", {}, lambda p, o: scores.relative_mahalanobis(*p, o.features)),
    ("gem", {}, lambda p, o: scores.gem(p, o.features)),
    ("knn", {"k": 3}, lambda p, o: scores.knn(p, o.features, 3)),
]


@pytest.mark.parametrize(("name", "settings", "expected"), PLAIN, ids=lambda v: v if isinstance(v, str) else "")
def test_scores_survive_the_disk_and_are_those_of_the_library(tmp_path, make, images, output, name, settings, expected):
    fitted = make(name, settings)
    detector.save(fitted, tmp_path / "d")
    loaded = detector.load(tmp_path / "d")
    assert jax.tree.structure(loaded.params) == jax.tree.structure(fitted.params)
    np.testing.assert_allclose(
        detector.score(loaded, images, batch_size=4), jax.jit(expected)(fitted.params, output), rtol=2e-4, atol=2e-4
    )


@pytest.mark.parametrize(
    ("name", "settings"), [("odin", {"epsilon": 0.01}), ("mahalanobis_perturbed", {"epsilon": 0.01})]
)
def test_perturbed_scores_move_the_standardised_input(make, variables, images, name, settings):
    fitted = make(name, settings)
    module, std = BACKBONES[BACKBONE].build(3), fitted.preprocessing.std
    inputs = standardise(images, fitted.preprocessing)
    if name == "odin":
        odin = partial(
            scores.odin, lambda x: module.apply(variables, x).logits, epsilon=0.01, std=std, form="probability"
        )
        expected = jax.jit(odin)(inputs)
    else:
        function = partial(scores.mahalanobis, fitted.params)
        moved = partial(
            scores.perturbed, lambda x: function(module.apply(variables, x).features), epsilon=0.01, std=std
        )
        expected = jax.jit(moved)(inputs)
    # a sign of a gradient near zero may flip between the folded and the plain network: tolerance for a few pixels
    np.testing.assert_allclose(detector.score(fitted, images, batch_size=8), expected, rtol=5e-3, atol=1e-5)
    assert methods.needs_network(methods.get(name))


def test_an_artefact_of_version_0_1_says_epsilon_for_perturbed(tmp_path, make):
    fitted = make("mahalanobis_perturbed", {"epsilon": 0.01})
    detector.save(fitted, tmp_path / "d")
    edit(tmp_path / "d", score={"name": "mahalanobis", "settings": {"epsilon": 0.01}})
    loaded = detector.load(tmp_path / "d")
    assert (loaded.score, loaded.settings) == ("mahalanobis_perturbed", {"epsilon": 0.01})
    jax.tree.map(np.testing.assert_array_equal, loaded.params, fitted.params)
    edit(tmp_path / "d", score={"name": "mahalanobis", "settings": {"epsilon": 0.0}})
    assert detector.load(tmp_path / "d").settings == {}


def test_decision_rule(make, images, output):
    fitted = make("energy")
    values = np.sort(detector.score(fitted, images))
    threshold = float(values[4])  # outlier iff ABOVE: the image at the threshold is an inlier
    prediction = detector.predict(fitted._replace(threshold=threshold), images)
    assert prediction.outlier.sum() == 2
    np.testing.assert_array_equal(prediction.outlier, prediction.score > np.float32(threshold))
    np.testing.assert_array_equal(prediction.label, np.argmax(output.logits, -1))
    np.testing.assert_allclose(prediction.confidence, jax.nn.softmax(output.logits, -1).max(-1), rtol=1e-4)


def test_predictor_reports_and_checks_images(make, images):
    run = detector.predictor(make(), batch_size=4)
    seen = []
    run.score(images, report=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (7, 7)
    for wrong in (images.astype(np.float32), images[:, :4], images[0]):
        with pytest.raises(ValueError, match=r"images must be uint8 \[N, 8, 8, 3\]"):
            run.predict(wrong)


@pytest.mark.parametrize(("name", "settings"), [("quantod", FLOW), ("odin", {}), ("knn", {"k": 3})])
def test_exported_program_gives_the_same_for_any_batch(tmp_path, make, images, name, settings):
    fitted = make(name, settings, threshold=-0.5)
    detector.export(fitted, tmp_path / "e")
    program = detector.load_exported(tmp_path / "e", batch_size=3)
    assert program.class_names == CLASSES
    assert program.threshold == -0.5
    for got, wanted in zip(program.predictor.predict(images)[:4], detector.predict(fitted, images)[:4], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_damaged_exports_are_refused(tmp_path, make):
    detector.export(make(), tmp_path / "e", platforms=("cpu",))
    program = tmp_path / "e" / "program.bin"
    program.write_bytes(program.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged or cut short"):
        detector.load_exported(tmp_path / "e")
    whole = (tmp_path / "e" / "exported.json").read_text()
    content = json.loads(whole) | {"program_sha256": hashlib.sha256(program.read_bytes()).hexdigest()}
    odd = [{"image_size": 1e400}, {"image_size": "x"}, {"class_names": 3}, {"threshold": None}, {"inputs": [1]}]
    for change in odd:
        text = json.dumps(content | change).replace("Infinity", "1e400")
        (tmp_path / "e" / "exported.json").write_text(text)
        with pytest.raises(ValueError, match=r"e holds no valid exported detector .*export it again"):
            detector.load_exported(tmp_path / "e")
    program.unlink()
    with pytest.raises(FileNotFoundError, match=r"program\.bin"):
        detector.load_exported(tmp_path / "e")


def test_a_program_that_is_none_names_its_file(rng):
    """Whatever the reader of its buffers raises: ten cuts of random bytes."""
    for length in range(0, 200, 20):
        with pytest.raises(ValueError, match=r"e/program\.bin holds no program .*export or save the detector again"):
            exported.read_program("e/program.bin", rng.bytes(length))


def test_a_program_that_fails_at_its_first_call_names_its_file():
    calls = []

    def run(rows, report=None):
        calls.append(rows)
        if len(calls) in (2, 3):
            raise KeyError("a user's own mistake" if rows else "RESOURCE_EXHAUSTED: out of memory")
        if rows == 5:
            raise RuntimeError("stablehlo\x1b: unknown opcode")
        return rows

    with pytest.raises(ValueError, match=r"e/program\.bin holds a program that does not run \(stablehlo: unknown"):
        exported.guarded(run, "e/program.bin")(5)
    guarded = exported.guarded(run, "e/program.bin")
    with pytest.raises(KeyError, match="RESOURCE"):
        guarded(0)
    with pytest.raises(ValueError, match="does not run"):
        guarded(1)
    assert guarded(7, report=None) == 7
    with pytest.raises(RuntimeError, match="unknown opcode"):
        guarded(5)


def edit(folder, **changes):
    file = folder / artefact.CONTENT
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def swap_arrays(folder, data):
    (folder / artefact.ARRAYS).write_bytes(data)
    edit(folder, arrays_sha256=hashlib.sha256(data).hexdigest())


DAMAGE = [
    (lambda f: (f / artefact.CONTENT).write_text(""), "damaged"),
    (lambda f: (f / artefact.CONTENT).write_text("[" * 100_000), "damaged"),
    (lambda f: (f / artefact.CONTENT).write_text("[1]"), "must hold a JSON object"),
    (lambda f: (f / artefact.CONTENT).write_bytes(b"\xff\xfe\x00"), "damaged"),
    (lambda f: (f / artefact.ARRAYS).write_bytes(b""), "cut short, 0 bytes"),
    (lambda f: (f / artefact.ARRAYS).write_bytes((f / artefact.ARRAYS).read_bytes()[:-4]), "cut short"),
    (lambda f: swap_arrays(f, pickle.dumps(print)), "no safetensors file"),
    (lambda f: swap_arrays(f, to_bytes({"x": np.zeros(1)})), "missing"),
    (lambda f: edit(f, format=3), "update quantjax"),
    (lambda f: edit(f, kind="something"), "its kind is 'something'"),
    (lambda f: edit(f, backbone={"name": "os.system"}), "backbone must be one of"),
    (lambda f: edit(f, backbone={"name": "wrn16_2"}), "dimension 128"),
    (lambda f: edit(f, backbone={"name": "resnet20"}), "backbone/"),
    (lambda f: edit(f, backbone="wrn10_1"), "no valid detector"),
    (lambda f: edit(f, class_names=["a", "b"]), "head"),
    (lambda f: edit(f, score={"name": "msp", "settings": {}}), "unexpected"),
    (lambda f: edit(f, score={"name": "quantod", "settings": {**FLOW, "blocks": 10**9}}), "number up to"),
    (lambda f: edit(f, score={"name": "quantod", "settings": {**FLOW, "blocks": 3}}), "must be float32"),
    (lambda f: edit(f, score={"name": "quantod", "settings": {**FLOW, "colour": 3}}), "colour"),
    (lambda f: edit(f, score={"name": "quantod", "settings": {**FLOW, "dimension": 10}}), "dimension 64"),
    (lambda f: edit(f, threshold=float("nan")), "damaged.*NaN"),
    (lambda f: edit(f, threshold=None), "no valid detector"),
    (lambda f: edit(f, preprocessing={"mean": [0, 0, 0], "std": [1, 0, 1]}), "positive stds"),
    (lambda f: edit(f, image_size=-3), "no valid detector"),
]


@pytest.fixture(scope="module")
def saved(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "d"
    detector.save(make("quantod", FLOW), folder)
    return folder


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_files_give_one_clear_error(tmp_path, saved, damage, message):
    shutil.copytree(saved, tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(ValueError, match=message):
        detector.load(tmp_path / "d")


def test_a_field_that_has_a_default_may_be_missing(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "d")
    content = json.loads((tmp_path / "d" / artefact.CONTENT).read_text())
    del content["backbone"]["precision"], content["preprocessing"]["order"]
    edit(tmp_path / "d", backbone=content["backbone"], preprocessing=content["preprocessing"])
    one, two = detector.load(saved), detector.load(tmp_path / "d")
    assert (one.precision, one.preprocessing) == (two.precision, two.preprocessing)


@pytest.mark.parametrize("name", [artefact.CONTENT, artefact.ARRAYS])
def test_missing_files_are_named(tmp_path, make, name):
    detector.save(make(), tmp_path / "d")
    (tmp_path / "d" / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        detector.load(tmp_path / "d")


def test_saving_replaces_a_detector_whole_or_not_at_all(tmp_path, make, monkeypatch):
    detector.save(make(threshold=1.0), tmp_path / "d")
    detector.save(make(threshold=2.0), tmp_path / "d")
    assert detector.load(tmp_path / "d").threshold == 2.0

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        detector.save(make(threshold=3.0), tmp_path / "d")
    assert detector.load(tmp_path / "d").threshold == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_saving_deletes_nothing_else(tmp_path, make):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(ValueError, match=r"holds no detector\.json"):
        detector.save(make(), tmp_path / "photos")
    assert (tmp_path / "photos" / "a.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d._replace(threshold=float("nan")), "threshold must be finite"),
        (lambda d: d._replace(score="nearest"), "method must be one of"),
        (lambda d: d._replace(class_names=()), "needs class names"),
        (lambda d: d._replace(variables={}), "missing"),
        (lambda d: d._replace(class_names=("a", "b")), "head"),
    ],
)
def test_a_detector_that_does_not_hold_together_is_refused(tmp_path, make, change, message):
    with pytest.raises(ValueError, match=message):
        detector.save(change(make()), tmp_path / "d")
    with pytest.raises(ValueError, match=message):
        detector.predictor(change(make()))


def test_a_diverged_model_is_not_saved(tmp_path, make):
    fitted = make("knn", {"k": 3})
    with pytest.raises(ValueError, match="score/bank must be finite"):
        detector.save(
            fitted._replace(params=scores.Neighbours(fitted.params.bank.at[0, 0].set(jnp.nan))), tmp_path / "d"
        )
    assert not (tmp_path / "d").exists()
