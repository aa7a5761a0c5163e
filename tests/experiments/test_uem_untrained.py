"""The variants of the scenes' command that train nothing, through `main`, on few small scenes."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import predict
from experiments.scenes import storage, untrained
from experiments.scenes.config import UNTRAINED, parse, resolve
from experiments.uem import main
from quantjax import detector
from quantjax.bundled import streets
from quantjax.extractors import FEATURE_BACKBONES

SMALL = ["--image-height", "28", "--object-share", "0.4", "0.9", "--reference-scenes", "4"]


@pytest.fixture(scope="module", autouse=True)
def few_scenes_and_loose_ranks():
    """As users run them, on fewer scenes."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):
        patch.setattr(streets, "ROWS", {"train": 6, "test": 3})
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("untrained")


@pytest.fixture(scope="module")
def residual(workdir) -> Path:
    flags = ["--variant", "residual", "--maps", "block_0", "--scales", "1", "0.5", *SMALL]
    assert main(["--workdir", str(workdir), "--run", "residual", *flags]) == 0
    return workdir / "residual"


def test_a_run_leaves_rows_report_and_a_detector(residual):
    results = json.loads((residual / "results.json").read_text())
    [row] = results["rows"]
    assert (row["variant"], row["method"], row["dataset"]) == ("residual", "pca_residual", "streets_mix")
    assert results["miou"] == {"before": None, "after": None}
    assert results["parameters"]["total"] == results["parameters"]["backbone"] + results["parameters"]["patches"]
    assert "steps" not in results["config"]
    text = (residual / "results.md").read_text()
    assert "there is no mIoU" in text
    assert "weights are random" in text
    assert (residual / "report.html").read_text().count("data:image/png") == 3
    found = detector.load(residual / "detector")
    assert (found.window, found.stride, found.image_height) == ((28, 56), (14, 28), 28)
    assert (found.maps, found.scales, found.score) == (("block_0",), (1.0, 0.5), "pca_residual")
    assert found.calibration["promised_tpr"] > 90


def test_predict_marks_pictures_with_it(residual, tmp_path, capsys):
    picture = streets.Streets("test", (56, 112))[0]["image"]
    Image.fromarray(picture).save(tmp_path / "frame.png")
    assert predict.main(["--run", str(residual), "--output", str(tmp_path / "out"), str(tmp_path / "frame.png")]) == 0
    assert "% unknown" in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "out" / "frame_mask.png")).shape == (56, 112)


def test_a_finished_run_is_shown_again(residual, workdir, capsys):
    flags = ["--variant", "residual", "--maps", "block_0", "--scales", "1", "0.5", *SMALL]
    assert main(["--workdir", str(workdir), "--run", "residual", *flags]) == 0
    assert "finished before" in capsys.readouterr().out


def test_gaussians_of_classes_of_a_stored_backbone_without_outliers(workdir):
    """Only the backbone of the stored segmentor is read, so that it need not be whole."""
    module = FEATURE_BACKBONES["vit_tiny_scratch"].build()
    blank = jax.ShapeDtypeStruct((1, 28, 56, 3), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), blank)
    rng = np.random.default_rng(2)
    trained = jax.tree.map(lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32), shapes)
    storage.save(workdir / "own.safetensors", {"backbone": trained}, {"backbone": "vit_tiny_scratch", "overrides": {}})
    segmentor = ["--segmentor", str(workdir / "own.safetensors"), "--variant", "gaussian"]
    assert (
        main(["--workdir", str(workdir), "--run", "own", *segmentor, "--per-class", "--evaluate", "none", *SMALL]) == 0
    )
    assert "trained on the inlier scenes" in (workdir / "own" / "results.md").read_text()
    found = detector.load(workdir / "own" / "detector")
    assert found.method.classes[0] > 1
    jax.tree.map(np.testing.assert_array_equal, found.variables, trained)


def test_every_variant_has_a_method():
    assert tuple(untrained.METHODS) == UNTRAINED


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--maps", "block_0"], "--maps is of variants patches, residual, gaussian, flow"),
        (["--variant", "patches", "--maps", "block_7"], "maps must be of block_0"),
        (["--variant", "patches", "--per-class"], "--per-class is of --variant gaussian"),
        (["--variant", "patches", "--reference-scenes", "0"], "--reference-scenes must lie"),
        (["--variant", "flow", "--window", "28", "56"], "--window and --stride go together"),
        (["--variant", "flow", "--scales", "0"], "scales must lie"),
        (["--variant", "flow", "--backbone", "deit_tiny16"], "--backbone-weights must name the weights"),
    ],
)
def test_flags_that_cannot_be_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        resolve(parse(flags), accelerator=False)
