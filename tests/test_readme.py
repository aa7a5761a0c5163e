"""Every Python example of README and of the pages in docs/ runs as it stands."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCKS = [code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)]


@pytest.fixture(autouse=True)
def as_users_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        yield


def block(word: str) -> str:
    [found] = [b for b in BLOCKS if word in b]
    return found


def test_every_example_is_run_here():
    words = [word for _, word in re.findall(r"""block\((["'])(.+?)\1\)""", Path(__file__).read_text())]
    assert len(words) == len(BLOCKS)
    assert all(sum(word in code for word in words) == 1 for code in BLOCKS)


def test_a_sum_of_methods():
    from quantjax import methods

    exec(block('"energy_relative"'), {})
    assert methods.get("energy_relative").defaults["relative_mahalanobis_pp.beta"] == 1.0
    methods.unregister("energy_relative")


def test_python_examples_are_short():
    for word in ('save(fitted, "own_features")', "own_photos", "own_network", "features_of"):
        assert len([line for line in block(word).splitlines() if line.strip()]) <= 10


def test_features_of_ones_own(rng):
    rows, labels = rng.normal(size=(300, 6)).astype(np.float32), np.arange(300) % 2
    rows[labels == 1, 0] += 4.0
    for name, array in (("features", rows[:200]), ("labels", labels[:200]), ("held_out", rows[200:])):
        np.save(f"{name}.npy", array)
    np.save("new.npy", np.concatenate([rows[:3], np.full((1, 6), 30.0)]))
    scope: dict = {}
    exec(block('save(fitted, "own_features")'), scope)
    assert scope["decision"].outlier.tolist() == [False, False, False, True]


@pytest.mark.parametrize("method", ["mahalanobis", "knn", "quantod"])
def test_features_of_ones_own_under_strict_promotion(rng, method):
    """Each method that README names there, at its smallest."""
    from quantjax import detector

    rows, settings = rng.normal(size=(64, 4)).astype(np.float32), {}
    if method == "quantod":
        settings = {"blocks": 1, "layers": 0, "width": 8, "epochs": 1, "batch_size": 32}
    with jax.numpy_dtype_promotion("strict"):
        fitted = detector.fit(method, features=rows, labels=np.arange(64) % 2, settings=settings)
        fitted = detector.calibrate(fitted, rows)
        assert detector.predict(fitted, rows).outlier.mean() < 0.1


def test_a_folder_of_images_of_ones_own(rng):
    from quantjax.convert.files import write_safetensors
    from quantjax.extractors import BACKBONES

    for split, name in ((s, n) for s in ("train", "test") for n in ("cat", "dog")):
        folder = Path("photos") / split / name
        folder.mkdir(parents=True)
        for k in range(6):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{k}.png")
    shapes = jax.eval_shape(BACKBONES["wrn10_1"].build(2).init, jax.random.key(0), np.zeros((1, 32, 32, 3), "f"))
    variables = jax.tree.map(lambda leaf: np.abs(0.1 * rng.normal(size=leaf.shape)).astype("f"), shapes)
    write_safetensors("classifier.safetensors", variables, {})
    scope: dict = {}
    exec(block("own_photos"), scope)
    from quantjax import detector

    loaded = detector.load("own_photos")
    assert (loaded.class_names, loaded.image_size, loaded.calibration["n"]) == (("cat", "dog"), 32, 12)


@pytest.fixture
def pixels(rng):
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    return {"images": images[:30], "labels": np.arange(30) % 2, "held_out": images[30:]}


def test_a_flax_network_of_ones_own(pixels):
    """Run up to the class, to make the variables that the example has trained."""
    network, rest = block("own_network").split("fitted = ", 1)
    exec(network, pixels)
    pixels["variables"] = pixels["Network"]().init(jax.random.key(0), pixels["images"] / np.float32(255))
    exec("fitted = " + rest, pixels)
    from quantjax import detector

    assert np.isfinite(detector.score(detector.load("own_network"), pixels["held_out"])).all()


def test_an_nnx_model_of_ones_own(pixels):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self):
            self.features, self.classes = (nnx.Linear(*sizes, rngs=nnx.Rngs(0)) for sizes in ((3, 4), (4, 2)))

        def __call__(self, x):
            features = self.features(x.mean((1, 2)))
            return self.classes(features), features

    scope = {**pixels, "model": Model(), "new": pixels["held_out"][:3]}
    exec(block("nnx.split"), scope)
    assert scope["outlier"].shape == (3,)


@pytest.mark.parity
def test_features_of_a_torch_model(pixels):
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(6), torch.nn.Flatten())
    scope = {**pixels, "model": model, "new": np.zeros((2, 8, 8, 3), np.uint8)}
    exec(block("features_of"), scope)
    assert scope["outlier"].shape == (2,)
    assert scope["fitted"].dimension == 4


def test_features_in_other_files(rng):
    np.savez("inliers.npz", features=rng.normal(size=(60, 4)).astype(np.float16), labels=np.arange(60) % 3)
    scope: dict = {}
    exec(block("read_features("), scope)
    assert scope["fitted"].dimension == 4


def test_a_flow_on_features_of_ones_own(rng):
    inliers = rng.normal(size=(256, 6)) @ rng.normal(size=(6, 6))
    np.save("features.npy", np.concatenate([inliers, np.full((1, 6), 30.0)]))
    scope: dict = {}
    exec(block("flows.fit("), scope)
    scores = np.asarray(scope["scores"])
    assert scores.shape == (257,)
    assert np.isfinite(scores).all()
    assert scores[-1] > np.quantile(scores[:-1], 0.95)
    assert len(scope["fitted"].curve.mean_log_likelihood) == 5


def test_the_quantile_loss_in_a_foreign_loop():
    scope: dict = {}
    exec(block("quantile_nll(jnp.sum"), scope)
    drawn_from = {"mean": np.ones(3, np.float32), "log_std": np.full(3, np.log(2.0), np.float32)}
    assert float(scope["loss"](scope["params"])) < float(scope["loss"](drawn_from))


def test_detectors_of_runs():
    from test_detector_segmentation import make as make_scene_detector

    from quantjax import detector

    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    fitted = detector.fit("knn", lambda x: (x.mean((1, 2)), x.mean((1, 2))), images)
    detector.save(detector.calibrate(fitted, images), "runs/quantod-digits-<hash>/detector")
    detector.save(make_scene_detector(), "runs/uem-streets-g-d-<hash>/detector")
    scope = {"images": images[:3], "scene": images[0]}
    exec(block("marked = run.predict"), scope)
    assert [part.shape for part in scope["decision"]] == [(3,)] * 5
    assert [part.shape for part in scope["marked"]] == [(32, 32)] * 3


def test_what_is_promised(rng):
    from quantjax import detector

    logits = rng.normal(size=(900, 2)).astype(np.float32)
    scope = {"fitted": detector.fit("energy", logits=logits[:300]), "held_out": logits[300:700]}
    scope |= {"monday": logits[700:] - 4.0}
    exec(block("false_alarm_rate") + "found = detector.drift(fitted, decision.score)", scope)
    assert scope["found"].drifted
    assert scope["state"].p_value < 0.01
    assert np.median(scope["decision"].p_value) < 0.05


def test_an_exported_program(rng):
    from quantjax import detector

    features = rng.normal(size=(50, 4)).astype(np.float32)
    fitted = detector.fit("gem", features=features, labels=[0, 1] * 25)
    detector.save(detector.calibrate(fitted, features), "own_features")
    scope = {"rows": np.concatenate([features[:2], np.full((1, 4), 30.0, np.float32)])}
    exec(block("load_exported") + "decided = program.predictor.predict(rows)", scope)
    assert scope["decided"].outlier.tolist()[2]
    assert scope["decided"].outlier.tolist() == detector.predict(scope["fitted"], scope["rows"]).outlier.tolist()


def test_the_estimator_beside_a_segmentor_of_ones_own(monkeypatch):
    from quantjax.bundled import streets

    monkeypatch.setattr(streets, "ROWS", {"train": 4, "test": 1})
    scope: dict = {}
    exec(block("FrozenSegmentor"), scope)
    found, image = scope["maps"], scope["scenes"][0]["image"]
    assert found["lr"].shape == found["prediction"].shape == image.shape[:2]
    assert found["lr"].std() > 0
    assert np.isfinite(found["lr"]).all()


def test_a_backbone_of_ones_own():
    scope: dict = {}
    exec(block("class Strided"), scope)
    assert scope["logits"].shape == (2, 32, 32, 3)
    assert np.isfinite(scope["logits"]).all()


def test_a_detector_of_frames_without_training():
    names: dict = {}
    exec(block("fit_patches"), names)
    assert names["unknown"].shape == names["frames"][0].shape[:2]
    assert names["unknown"].mean() < 0.5
