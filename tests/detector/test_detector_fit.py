"""detector.fit and calibrate: on rows, on a named network, on networks of one's own, with and without their code."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from quantjax import detector, scores
from quantjax.extractors import BACKBONES, IMAGENET, standardise

ROOT = Path(__file__).resolve().parents[2]
SIZE, CLASSES = 8, 2


@pytest.fixture(scope="module")
def rows():
    """(features, their labels, other features, outliers): two clouds of four dimensions, and one far away."""
    rng = np.random.default_rng(0)
    centres = np.array([[3.0, 0, 0, 0], [0, 3.0, 0, 0]])
    labels = np.arange(400) % 2
    clouds = (centres[labels] + rng.normal(size=(400, 4))).astype(np.float32)
    return clouds[:200], labels[:200], clouds[200:], rng.normal(size=(50, 4)).astype(np.float32) + 8.0


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (40, SIZE, SIZE, 3), dtype=np.uint8)


LABELS = np.arange(40) % CLASSES


class Small(linen.Module):
    """A network as users write it: logits and the features under them."""

    @linen.compact
    def __call__(self, x):
        features = linen.relu(linen.Conv(4, (3, 3))(x)).mean((1, 2))
        return linen.Dense(CLASSES)(features), features


class SmallNnx(nnx.Module):
    def __init__(self, rngs):
        self.dense, self.head = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, CLASSES, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)  # its generator's state is no number that a file could hold

    def __call__(self, x):
        features = self.dropout(nnx.relu(self.dense(x.mean((1, 2)))))
        return self.head(features), features


def test_rows_by_hand(rows, tmp_path):
    """Mahalanobis of features: the library's score, the promised share of held-out inliers, all outliers found."""
    features, labels, held_out, outliers = rows
    made = detector.fit("mahalanobis", features=features, labels=labels, class_names=("left", "right"))
    made = detector.calibrate(made, held_out, true_positive_rate=0.9, source="other rows")
    low, high = made.calibration.pop("interval")
    assert 85.0 < low < 90.0 < high < 95.0
    # the rank is 0.9 * 201, rounded up: 181 of 200
    assert made.calibration == {"source": "other rows", "n": 200, "promised_tpr": 90.0, "achieved_tpr": 90.5}
    detector.save(made, tmp_path / "d")
    loaded = detector.load(tmp_path / "d")
    assert loaded.class_names == ("left", "right")
    run = detector.predictor(loaded, batch_size=32)
    wanted = scores.mahalanobis(scores.fit_tied_gaussian(features, labels, 2), jnp.asarray(outliers))
    decided = run.predict(outliers)
    np.testing.assert_allclose(decided.score, wanted, rtol=1e-5)
    assert decided.outlier.all()
    assert decided.label is None
    assert run.predict({"features": outliers, "logits": np.eye(2)[[0, 1] * 25]}).label.tolist() == [0, 1] * 25
    assert np.isnan(run.score(np.full((1, 4), np.nan)))
    assert run.predict(np.full((1, 4), np.nan)).outlier[0]


def test_logits_alone(rows, tmp_path):
    logits = rows[2][:, :2]
    made = detector.calibrate(detector.fit("energy", logits=logits), logits)
    np.testing.assert_allclose(detector.score(made, logits), -jax.nn.logsumexp(logits, axis=1), rtol=1e-5)
    decided = detector.predict(made, {"logits": logits[:3]})
    np.testing.assert_array_equal(decided.label, logits[:3].argmax(1))
    detector.export(made, tmp_path / "e", platforms=("cpu",))
    program = detector.load_exported(tmp_path / "e")
    assert (program.inputs, program.image_size) == ({"logits": 2}, None)
    np.testing.assert_allclose(program.predictor.score(logits), detector.score(made, logits), rtol=1e-5)


def test_a_named_network(images):
    """The scores are those of features that the unfolded network gives."""
    backbone = BACKBONES["wrn10_1"]
    module = backbone.build(CLASSES)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    made = detector.fit("knn", "wrn10_1", images, variables=variables, class_names=("a", "b"), settings={"k": 3})
    features = module.apply(variables, standardise(images, backbone.preprocessing)).features
    wanted = scores.knn(scores.fit_neighbours(features), features, 3)
    np.testing.assert_allclose(detector.score(made, images), wanted, atol=1e-5)


def own_linen():
    return Small().apply, Small().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))


def own_nnx():
    graph, state = nnx.split(nnx.view(SmallNnx(nnx.Rngs(0)), deterministic=True))
    return lambda state, x: nnx.merge(graph, state)(x), state


@pytest.mark.parametrize("own", [own_linen, own_nnx], ids=["linen", "nnx"])
def test_a_network_of_one_s_own_outlives_its_code(own, images, tmp_path):
    """Saved here, loaded and used by a process that knows nothing of the network."""
    network, variables = own()
    made = detector.fit("gem_perturbed", network, images, LABELS, variables=variables, preprocessing=IMAGENET)
    made = detector.calibrate(made, images)
    detector.save(made, tmp_path / "d")
    np.save(tmp_path / "images.npy", images[:3])
    code = (
        "import sys, numpy as np\nfrom quantjax import detector\n"
        "run = detector.predictor(detector.load(sys.argv[1] + '/d'))\n"
        "assert 'test_detector_fit' not in sys.modules\n"
        "decided = run.predict(np.load(sys.argv[1] + '/images.npy'))\n"
        "np.savez(sys.argv[1] + '/decided.npz', score=decided.score, label=decided.label)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)
    with np.load(tmp_path / "decided.npz") as stored:
        wanted = detector.predict(made, images[:3])
        np.testing.assert_allclose(stored["score"], wanted.score, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(stored["label"], wanted.label)
    again = detector.load(tmp_path / "d")
    detector.save(again, tmp_path / "twice")
    np.testing.assert_allclose(
        detector.score(detector.load(tmp_path / "twice"), images[:3]), wanted.score, rtol=1e-3, atol=1e-4
    )


def on_the_host(x):
    """A network that JAX cannot see into."""

    def run(x):
        features = np.asarray(x).mean((1, 2)).astype(np.float32)
        return features @ np.ones((3, CLASSES), np.float32), features

    shapes = [jax.ShapeDtypeStruct((x.shape[0], width), jnp.float32) for width in (CLASSES, 3)]
    return jax.pure_callback(run, tuple(shapes), x)


def test_a_network_behind_a_callback_works_here_and_says_where_it_does_not(images, tmp_path):
    made = detector.calibrate(detector.fit("mahalanobis", on_the_host, images, LABELS), images)
    gaussian = scores.fit_tied_gaussian(images.mean((1, 2)) / 255.0, LABELS, CLASSES)
    wanted = scores.mahalanobis(gaussian, jnp.asarray(images.mean((1, 2)) / 255.0, jnp.float32))
    np.testing.assert_allclose(detector.score(made, images), wanted, rtol=1e-3)
    for write in (detector.save, detector.export):
        with pytest.raises(ValueError, match=r"pure_callback.*extract its features and fit on these"):
            write(made, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_network_for_one_platform_is_saved_for_that(images, tmp_path):
    def network(x):
        means = x.mean((1, 2))
        return means, jax.lax.platform_dependent(means, **{jax.default_backend(): lambda m: 2.0 * m})

    made = detector.calibrate(detector.fit("knn", network, images, settings={"k": 1}), images)
    detector.save(made, tmp_path / "d")
    again = detector.load(tmp_path / "d")
    assert again.backbone.__self__.platforms == (jax.default_backend(),)
    np.testing.assert_allclose(detector.score(again, images[:4]), detector.score(made, images[:4]), atol=1e-6)


def test_torch_features(rows):
    torch = pytest.importorskip("torch")
    features, labels = torch.from_numpy(rows[0]), torch.from_numpy(rows[1])
    made = detector.calibrate(detector.fit("gem", features=features, labels=labels), torch.from_numpy(rows[2]))
    assert detector.predict(made, torch.from_numpy(rows[3])).outlier.all()


def test_until_it_is_calibrated_a_detector_only_scores(rows, tmp_path):
    made = detector.fit("knn", features=rows[0])
    assert np.isfinite(detector.score(made, rows[2])).all()
    for call in (lambda: detector.predict(made, rows[2]), lambda: detector.save(made, tmp_path / "d")):
        with pytest.raises(ValueError, match=r"threshold must be finite, got nan; calibrate it .*detector\.calibrate"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "nearest"}, "method must be one of .*; got 'nearest'"),
        ({"labels": None}, "method mahalanobis needs labels: give labels="),
        ({"method": "energy"}, "method energy needs logits: give logits="),
        ({"method": "odin"}, "method odin reads logits, images: give a network and images"),
        ({"method": "quantod", "settings": {"depth": 3}}, "method quantod has no setting 'depth'; it has preset, kind"),
        ({"labels": np.zeros(3, int)}, "these need the same number of rows: features has 200, labels has 3"),
        ({"labels": np.arange(200) % 3, "class_names": ("a", "b")}, r"labels must lie in 0\.\.1"),
        ({"features": np.full((200, 4), np.nan)}, "features must be finite"),
        ({"features": np.zeros(200)}, "features must have shape"),
        ({"images": np.zeros((200, 8, 8, 3), np.uint8)}, "images need a network"),
        ({"network": on_the_host}, "a network is fitted on images"),
    ],
)
def test_what_cannot_be_fitted(rows, change, message):
    given = {"method": "mahalanobis", "features": rows[0], "labels": rows[1], **change}
    with pytest.raises(ValueError, match=message):
        detector.fit(**given)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x: x.mean((1, 2)), r"a network must return \(logits \[B, K\], features \[B, D\]\)"),
        (lambda x: (x.mean((1, 2)), x), r"a network must return features \[B, \.\]"),
        (lambda x: (x.mean((1, 2, 3))[:, None], x.mean((1, 2))), "the network gives 1 logits, but there are 2 class"),
    ],
)
def test_networks_that_return_something_else(network, message, images):
    with pytest.raises(ValueError, match=message):
        detector.fit("gem", network, images, LABELS, class_names=("a", "b"))


def test_rows_that_the_detector_does_not_take(rows):
    run = detector.predictor(detector.fit("knn", features=rows[0])._replace(threshold=1.0))
    for wrong, message in (
        (rows[2][:, :3], r"features must have shape \[N, 4\]"),
        ({"logits": rows[2]}, r"rows must hold features \[N, 4\], got logits"),
        ({"features": rows[2], "images": rows[2]}, "rows must hold"),
    ):
        with pytest.raises(ValueError, match=message):
            run.score(wrong)


def test_weights_stay_on_the_device(images, monkeypatch):
    """A second call sends the images alone."""
    network, variables = own_linen()
    made = detector.fit("energy", network, images, variables=jax.tree.map(np.asarray, variables))
    run = detector.predictor(made._replace(threshold=0.0))
    first = run.score(images[:1])
    monkeypatch.setattr("quantjax.inference.batches.replicate", None)
    np.testing.assert_array_equal(run.score(images[:1]), first)
