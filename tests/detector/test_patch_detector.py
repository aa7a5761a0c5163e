"""A detector of patches: fitted from plain images, calibrated, stored, exported, and refused where it does not fit."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import detector, patches, segmentation
from quantjax.extractors import FEATURE_BACKBONES

BACKBONE = "vit_tiny_scratch"  # cells of 14 pixels


@pytest.fixture(scope="module", autouse=True)
def loose_ranks():
    """Initialisers promote."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def variables():
    """Random ones, of the spread that initialisation gives."""
    module, rng = FEATURE_BACKBONES[BACKBONE].build(), np.random.default_rng(7)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 28, 56, 3), jnp.float32))

    def draw(path, leaf):
        values = 0.02 * rng.standard_normal(leaf.shape)
        return (1.0 + values if "scale" in str(path[-1]) else values).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def frames(count, seed):
    """Dark noise, 30 x 60."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 60, (30, 60, 3), np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def fitted(variables):
    found = detector.fit_patches("pca_residual", BACKBONE, frames(12, 0), variables=variables)
    assert math.isnan(found.threshold)
    return detector.calibrate(found, frames(6, 1), 0.9)


@pytest.fixture(scope="module")
def scene():
    """A frame with a bright square in it."""
    image = frames(1, 2)[0]
    image[8:22, 20:40] = np.random.default_rng(3).integers(180, 256, (14, 20, 3), np.uint8)
    return image


def test_frames_alone_give_a_calibrated_detector(fitted, scene):
    assert (fitted.window, fitted.stride) == ((28, 56), (14, 28))
    assert fitted.method.maps == ("block_3",)
    assert fitted.calibration["source"] == "pixels of 3 inlier scenes, at most 20,000 of each"
    found = detector.predict(fitted, scene)
    assert not found.label.any()
    assert found.outlier.shape == found.score.shape == (30, 60)
    np.testing.assert_array_equal(found.outlier, found.score > fitted.threshold)
    assert found.score[8:22, 20:40].mean() > found.score[:, :8].mean() + 1.0  # deviations of the frames' scores


def test_a_stored_detector_says_the_same(fitted, scene, tmp_path):
    detector.save(fitted, tmp_path / "d")
    again = detector.load(tmp_path / "d")
    assert again.method == fitted.method
    np.testing.assert_array_equal(detector.score(again, scene), detector.score(fitted, scene))
    assert json.loads((tmp_path / "d" / "detector.json").read_text())["kind"] == "quantjax patch detector"


def test_an_exported_detector_says_the_same(fitted, scene, tmp_path):
    detector.export(fitted, tmp_path / "e", platforms=("cpu",))
    found = detector.load_exported(tmp_path / "e").predictor.predict(scene)
    wanted = detector.predict(fitted, scene)
    np.testing.assert_allclose(found.score, wanted.score, atol=2e-5)
    np.testing.assert_array_equal(found.label, wanted.label)


def test_evaluation_runs_what_the_detector_runs(fitted, scene, tmp_path):
    from quantjax.detector import patches as of_patches

    scorer = patches.make_scorer(
        of_patches.network(fitted), fitted.method, window=fitted.window, stride=fitted.stride, products="highest"
    )
    label = np.zeros((30, 60), np.uint8)
    label[8:22, 20:40] = 1
    row = {"image": scene, "label": label, "name": "square"}
    maps = []
    found = segmentation.evaluate(
        lambda image: scorer((fitted.variables, fitted.params), image), [row], ["pca_residual"], tmp_path,
        look=lambda index, row, given: maps.append(given),
    )  # fmt: skip
    np.testing.assert_array_equal(maps[0]["pca_residual"], detector.score(fitted, scene))
    assert found.rates["pca_residual"].auroc > 0.8


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("knn", {"k": 2, "coreset": 10}),
        ("mahalanobis_pp", {"regularisation": 1e-3}),
        ("quantod_pp", {"blocks": 1, "layers": 0, "width": 8, "epochs": 1, "batch_size": 32, "regularisation": 1e-3}),
    ],
)
def test_every_kind_of_method_is_stored(variables, scene, tmp_path, name, settings):
    labelled = [{"image": f, "label": np.arange(60, dtype=np.uint8)[None].repeat(30, 0) // 30} for f in frames(12, 4)]
    found = detector.fit_patches(
        name, BACKBONE, labelled, variables=variables, maps=("block_0",), scales=(1.0, 0.5), settings=settings,
        labelled=name == "mahalanobis_pp", image_height=29,
    )  # fmt: skip
    assert found.method.classes == ((2, 2) if name == "mahalanobis_pp" else (1, 1))
    detector.save(found._replace(threshold=0.0), tmp_path / "d")
    again = detector.load(tmp_path / "d")
    assert again._replace(variables=0, params=0) == found._replace(variables=0, params=0, threshold=0.0)
    jax.tree.map(np.testing.assert_array_equal, again.params, found.params)
    score = detector.score(again, scene)
    assert score.shape == (30, 60)
    assert np.isfinite(score).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["score"].update(name="energy"), "must read features alone"),
        (lambda d: d["score"]["maps"][0].update(name="block_9"), "must be fitted to maps block_3, got block_9"),
        (lambda d: d.update(maps=["block_9"]), "maps must be of block_0"),
        (lambda d: d.update(scales=[1e9]), "scales must lie"),
        (lambda d: d["score"]["maps"][0].update(classes=1e9), "classes of a map must lie"),
        (lambda d: d["score"]["maps"][0]["settings"].update(depth=1), "no setting 'depth'"),
        (lambda d: d.update(window=[28, 57]), "window must be multiples of 14"),
        (lambda d: d.update(class_names=["a", "b"]), "class_names must be one"),
        (lambda d: d["backbone"].update(overrides={"depth": 90}), "an override of the backbone"),
        (lambda d: d["score"].pop("maps"), "key 'maps' is missing"),
    ],
)
def test_damaged_files_are_named(fitted, tmp_path, change, message):
    detector.save(fitted, tmp_path / "d")
    file = tmp_path / "d" / "detector.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        detector.load(tmp_path / "d")


@pytest.mark.parametrize(
    ("scenes", "options", "message"),
    [
        ([], {}, "scenes must hold at least one"),
        ([np.zeros((30, 60, 3))], {}, "a scene must be uint8"),
        ([np.zeros((30, 60), np.uint8)], {}, "a scene must have shape"),
        (frames(1, 0), {"window": (28, 57)}, "width that are multiples of the patch"),
        (frames(1, 0), {"precision": "float8"}, "precision must be one of"),
    ],
)
def test_wrong_arguments_are_named(variables, scenes, options, message):
    with pytest.raises(ValueError, match=message):
        detector.fit_patches("pca_residual", BACKBONE, scenes, variables=variables, **options)
