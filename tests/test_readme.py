"""README's Python examples run as they stand; its test command is the one that is checked."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(autouse=True)
def as_users_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        yield


def block(word: str) -> str:
    [found] = [b for b in BLOCKS if word in b]
    return found


def test_python_examples_are_short():
    for word in ("own_features", "own_photos", "own_network", "features_of"):
        assert len([line for line in block(word).splitlines() if line.strip()]) <= 10


def test_features_of_ones_own(rng):
    rows, labels = rng.normal(size=(300, 6)).astype(np.float32), np.arange(300) % 2
    rows[labels == 1, 0] += 4.0
    for name, array in (("features", rows[:200]), ("labels", labels[:200]), ("held_out", rows[200:])):
        np.save(f"{name}.npy", array)
    np.save("new.npy", np.concatenate([rows[:3], np.full((1, 6), 30.0)]))
    scope: dict = {}
    exec(block("own_features"), scope)
    assert scope["decision"].outlier.tolist() == [False, False, False, True]


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


def test_features_of_a_torch_model(pixels):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(6), torch.nn.Flatten())
    scope = {**pixels, "model": model, "new": np.zeros((2, 8, 8, 3), np.uint8)}
    exec(block("features_of"), scope)
    assert scope["outlier"].shape == (2,)
    assert scope["fitted"].dimension == 4


def test_the_quantile_loss_in_a_foreign_loop():
    scope: dict = {}
    exec(block("quantile_nll(jnp.sum"), scope)
    drawn_from = {"mean": np.ones(3, np.float32), "log_std": np.full(3, np.log(2.0), np.float32)}
    assert float(scope["loss"](scope["params"])) < float(scope["loss"](drawn_from))


def test_the_detector_example_names_what_exists():
    from quantjax import detector

    code = block("detector.predictor")
    for name in re.findall(r"detector\.(\w+)\(", code):
        assert callable(getattr(detector, name))
    for field in re.findall(r"decision\.(\w+)", code):
        assert field in detector.Prediction._fields


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
