"""Training on real images: a small CIFAR folder in the published layout, cut off between stages and resumed."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from quantjax.extractors import BACKBONES, NONE, Backbone
from quantjax.types import ClassifierOutput

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def training():
    from benchmarks import training

    # the compiler's own optimisations cost more here than they save
    jax.config.update("jax_disable_most_optimizations", True)
    yield training
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def data(tmp_path, rng):
    """CIFAR-10 as five batches of two rows and a test batch, an .npz and a folder of images of another size."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for k, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows = {b"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), b"labels": [k % 4, (k + 1) % 4]}
        (folder / name).write_bytes(pickle.dumps(rows, protocol=2))
    np.savez(tmp_path / "data" / "noise.npz", images=rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    (tmp_path / "data" / "photos").mkdir()
    for k in range(2):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "data/photos" / f"{k}.png")
    (tmp_path / "data" / "notes").mkdir()
    return tmp_path / "data"


class Tiny(nn.Module):
    """The smallest classifier that can be trained and scored: it sees an image's mean colour."""

    num_classes: int
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, images, train=False, mask=None, axis_name=None):
        if train or self.is_initializing():
            self.variable("batch_stats", "steps", jnp.zeros, ()).value += 1.0
        features = nn.relu(nn.Dense(6, name="hidden")(images.mean(axis=(1, 2))))
        return ClassifierOutput(nn.Dense(self.num_classes, name="head")(features), features, {})


def lines(out):
    return [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]


def test_outlier_sets_are_what_lies_beside_cifar(training, data, capsys):
    from benchmarks import sets

    found = sets.outliers(data)
    assert {name: rows.shape for name, rows in found.items()} == {"noise": (3, 32, 32, 3), "photos": (2, 32, 32, 3)}
    assert "notes holds no image" in capsys.readouterr().out


def test_a_run_cut_off_between_stages_goes_on(training, data, tmp_path, monkeypatch):
    from benchmarks.questions.sizes import SMOKE

    monkeypatch.setitem(BACKBONES, "tiny", Backbone(Tiny, 6, NONE))
    sizes, out = SMOKE._replace(classifier="tiny", epochs=2, flow_epochs=2, views=2), tmp_path / "out"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit_flow", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(data, out, sizes, time.monotonic() + 1000)
    assert sorted(path.name for path in out.glob("*.safetensors")) == ["classifier.safetensors"]

    def never(*_):
        raise AssertionError("the classifier is trained already")

    monkeypatch.setattr(training, "fit_classifier", never)
    assert training.train(data, out, sizes, time.monotonic() + 1000) == 0

    epochs = [(row["stage"], row["epoch"]) for row in lines(out) if "epoch" in row]
    assert epochs == [(stage, epoch) for stage in ("classifier", "flow_quantile", "flow_mean") for epoch in (1, 2)]
    assert all(np.isfinite(row["loss"]) for row in lines(out) if "epoch" in row)
    scores = json.loads((out / "scores.json").read_text())["scores"]
    assert {"quantod", "mean flow", "msp", "knn", "odin", "gem_perturbed"} <= set(scores)
    for row in scores.values():
        assert set(row) == {"noise", "photos", "mean"}
        assert all(0 <= rate["auroc"] <= 100 for rate in row.values())
        assert row["mean"]["auroc"] == pytest.approx((row["noise"]["auroc"] + row["photos"]["auroc"]) / 2)
    assert (out / "scores.md").read_text().count("\n| ") == 2 + len(scores)


def test_weights_are_halves_on_the_disk_and_equal_after_a_resumed_run(training, tmp_path):
    from safetensors.numpy import load_file

    run = training.Run(tmp_path, time.monotonic() + 1000)
    made = run.once("weights", lambda: {"params": {"kernel": np.float32([[0.1, 2.0]])}})
    assert load_file(tmp_path / "weights.safetensors")["params/kernel"].dtype == np.float16
    assert made["params"]["kernel"].dtype == np.float32
    np.testing.assert_array_equal(made["params"]["kernel"], np.float32(np.float16([[0.1, 2.0]])))
    again = run.once("weights", lambda: pytest.fail("they are there"))
    np.testing.assert_array_equal(again["params"]["kernel"], made["params"]["kernel"])


def test_out_of_time_leaves_a_checkpoint_and_the_next_run_takes_it_up(training, tmp_path):
    import jax.numpy as jnp
    import optax

    from benchmarks.questions.sizes import SMOKE

    def objective(params, model_state, batch, key, axis_name=None):
        difference = params["x"][None] - batch.inputs
        return (jnp.sum(difference**2), model_state, {}), {"x": 2 * jnp.sum(difference, axis=0)}

    def fit(seconds):
        run = training.Run(tmp_path, time.monotonic() + seconds)
        data = (np.ones((4, 1), np.float32), None)
        return training.fit(run, "toy", SMOKE, objective, optax.sgd(0.01), {"x": jnp.zeros(1)}, (), data, 4, 3)

    with pytest.raises(training.OutOfTime):
        fit(-1.0)
    with pytest.raises(training.OutOfTime):
        fit(-1.0)
    state = fit(1000.0)
    assert int(state.step) == 3
    assert [row["epoch"] for row in lines(tmp_path)] == [1, 2, 3]
    # x <- x + 0.02 * 4 (1 - x), three times from 0
    np.testing.assert_allclose(state.params["x"], 1 - 0.92**3, rtol=1e-5)


def test_no_data_is_one_line(training, tmp_path, capsys):
    from benchmarks.questions.sizes import SMOKE

    assert training.train(tmp_path, tmp_path / "out", SMOKE, time.monotonic() + 10) == 1
    assert capsys.readouterr().err.startswith("error: cifar10 was not found")
