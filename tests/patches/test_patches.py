"""Scores of patches against the same arithmetic in plain NumPy, on maps of a few cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import patches
from quantjax.types import Preprocessing, named_maps

CELL = 4


def apply(variables, images):
    """Two maps: means of cells of 4 pixels in a random basis of 6, and of cells of 8."""
    batch, height, width, _ = images.shape
    means = images.reshape(batch, height // CELL, CELL, width // CELL, CELL, 3).mean((2, 4))
    coarse = means.reshape(batch, height // 8, 2, width // 8, 2, 3).mean((2, 4))
    return {"fine": jnp.tanh(means @ variables), "coarse": jnp.cos(coarse @ variables)}


@pytest.fixture(scope="module")
def network():
    return patches.PatchNetwork(apply, ("fine", "coarse"), 8, Preprocessing((0.4,) * 3, (0.3,) * 3))


@pytest.fixture(scope="module")
def weights():
    return jnp.asarray(np.random.default_rng(1).normal(size=(3, 6)), jnp.float32)


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 256, (20, 36, 3), np.uint8) for _ in range(4)]
    return [{"image": image, "label": rng.integers(0, 3, (20, 36)).astype(np.uint8)} for image in rows]


def maps_of(weights, image):
    """{name: [h, w, 6]} of an image of whole cells, by loops over the cells."""
    x = (image.astype(np.float64) / 255.0 - 0.4) / 0.3

    def means(c):
        return np.array([[x[i : i + c, j : j + c].mean((0, 1)) for j in range(0, x.shape[1], c)]
                         for i in range(0, x.shape[0], c)])  # fmt: skip

    basis = np.asarray(weights, np.float64)
    return {"fine": np.tanh(means(4) @ basis), "coarse": np.cos(means(8) @ basis)}


def test_rows_are_the_whole_patches_of_windows_side_by_side(network, weights, scenes):
    """Windows of 16 x 16 on 20 x 36: rows from 0 alone, as 4 more are under half; columns from 0 and 16."""
    rows = patches.patch_rows(network, weights, scenes[:2], window=(16, 16))
    assert {name: found.shape for name, found in rows.features.items()} == {"fine": (64, 6), "coarse": (16, 6)}
    for name in network.maps:
        wanted = [maps_of(weights, scene["image"][:16, x : x + 16])[name].reshape(-1, 6) for scene in scenes[:2]
                  for x in (0, 16)]  # fmt: skip
        np.testing.assert_allclose(rows.features[name], np.concatenate(wanted), atol=2e-6)
    assert rows.labels is None


def test_patches_beyond_the_scene_are_left_out(network, weights, scenes):
    """A window of 24 x 40 on 20 x 36 pixels: 5 x 9 whole cells of 4 and 2 x 4 of 8."""
    rows = patches.patch_rows(network, weights, [scenes[0]["image"]], window=(24, 40))
    assert [len(found) for found in rows.features.values()] == [45, 8]
    np.testing.assert_allclose(
        rows.features["fine"], maps_of(weights, scenes[0]["image"])["fine"].reshape(-1, 6), atol=2e-6
    )


def test_labels_are_those_at_the_centres_of_patches(network, weights, scenes):
    label = scenes[0]["label"].copy()
    label[2, 6] = 255  # the centre of the second patch of 4 pixels
    rows = patches.patch_rows(network, weights, [scenes[0] | {"label": label}], window=(16, 32), labelled=True)
    wanted = label[2:16:4, 2:32:4].ravel()
    np.testing.assert_array_equal(rows.labels["fine"], wanted[wanted != 255])
    np.testing.assert_array_equal(rows.labels["coarse"], label[4:16:8, 4:32:8].ravel())
    assert len(rows.features["fine"]) == 31


def gaussian(rows, queries):
    """Half squared Mahalanobis distances of directions, variances raised by a millionth."""
    rows, queries = (values / np.linalg.norm(values, axis=-1, keepdims=True) for values in (rows, queries))
    covariance = np.cov(rows.T, bias=True)
    away = queries - rows.mean(0)
    inverse = np.linalg.inv(covariance + 1e-6 * np.diag(np.diag(covariance)))
    return 0.5 * np.einsum("...i,ij,...j->...", away, inverse, away)


def neighbour(rows, queries):
    """Cosine distance to the second nearest."""
    rows, queries = (values / np.linalg.norm(values, axis=-1, keepdims=True) for values in (rows, queries))
    return np.sort(1.0 - queries @ rows.T, axis=-1)[..., 1]


def leftover(rows, queries):
    """Length of what the two leading components leave, of six."""
    rows, queries = (values / np.linalg.norm(values, axis=-1, keepdims=True) for values in (rows, queries))
    vectors = np.linalg.svd(rows - rows.mean(0))[2][2:]
    return np.linalg.norm((queries - rows.mean(0)) @ vectors.T, axis=-1)


def share_of_two(rows):
    """Just the variance of two of the six components, so that they are principal."""
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
    return float(values[:2].sum() / values.sum()) - 1e-6


def interpolated(values, size):
    """[h, w] -> [size], bilinear, pixel by pixel."""
    out = np.zeros(size)
    for i, j in np.ndindex(size):
        y, x = (np.clip((k + 0.5) * n / m - 0.5, 0, n - 1) for k, n, m in zip((i, j), values.shape, size, strict=True))
        top, left = int(y), int(x)
        bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
        upper = values[top, left] * (1 - x + left) + values[top, right] * (x - left)
        lower = values[bottom, left] * (1 - x + left) + values[bottom, right] * (x - left)
        out[i, j] = upper * (1 - y + top) + lower * (y - top)
    return out


@pytest.mark.parametrize(
    ("name", "settings", "brute"),
    [
        ("mahalanobis_pp", {}, gaussian),
        ("knn", {"k": 2, "step": 1}, neighbour),
        ("pca_residual", None, leftover),
    ],
)
def test_scene_scores_equal_plain_arithmetic(network, weights, scenes, name, settings, brute):
    """16 x 24 windows of a scene of 16 x 32, at columns 0 and 8: their scores' mean where they overlap."""
    rows = patches.patch_rows(network, weights, scenes, window=(16, 32))
    one = network._replace(maps=("fine",)) if settings is None else network
    rows = rows._replace(features={key: rows.features[key] for key in one.maps})
    if settings is None:
        settings = {"share": share_of_two(rows.features["fine"].astype(np.float64))}
    fitted = patches.fit_patches(name, rows, settings=settings)
    run = patches.make_scorer(one, fitted.method, window=(16, 24), stride=(16, 8), batch_size=2)
    image = np.random.default_rng(5).integers(0, 256, (16, 32, 3), np.uint8)
    found = run((weights, fitted.params), image)

    sums, hits = np.zeros((16, 32)), np.zeros((16, 32))
    for x in (0, 8):
        part = np.zeros((16, 24))
        for key, values in maps_of(weights, image[:, x : x + 24]).items():
            if key in one.maps:
                known = rows.features[key].astype(np.float64)
                reference = brute(known, known)
                part += (interpolated(brute(known, values), (16, 24)) - reference.mean()) / reference.std()
        sums[:, x : x + 24] += part
        hits[:, x : x + 24] += 1
    np.testing.assert_allclose(found[name], sums / hits, rtol=2e-3, atol=2e-3)
    assert not found["prediction"].any()
    assert found["prediction"].dtype == np.uint8


def test_classes_without_patches_are_left_out(network, weights, scenes):
    """Labels 0 and 2 alone, as 3 classes may be named: two means, and the score of the nearer."""
    labelled = [scene | {"label": np.where(scene["label"] == 1, 2, scene["label"])} for scene in scenes]
    rows = patches.patch_rows(network, weights, labelled, window=(16, 32), labelled=True)
    fitted = patches.fit_patches("mahalanobis_pp", rows)
    assert fitted.method.classes == (2, 2)
    assert fitted.params["fine"]["method"].means.shape == (2, 6)
    shapes = patches.template(fitted.method, (6, 6))
    assert jax.tree.map(np.shape, fitted.params) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_a_named_backbone_gives_any_of_its_blocks():
    network = patches.backbone("vit_tiny_scratch", ("block_2", "block_0"))
    assert patches.default_maps("deit_tiny16") == ("block_9", "block_10", "block_11")
    assert patches.default_maps("swin_b") == patches.map_names("swin_b")[-1:]
    shapes = jax.eval_shape(
        lambda images: patches.named_features(network, None, {"params": _params()}, images),
        jax.ShapeDtypeStruct((1, 28, 56, 3), jnp.uint8),
    )
    assert {name: found.shape for name, found in shapes.items()} == dict.fromkeys(("block_0", "block_2"), (1, 2, 4, 96))


def _params():
    from quantjax.extractors import FEATURE_BACKBONES

    module = FEATURE_BACKBONES["vit_tiny_scratch"].build()
    return jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 28, 28, 3), jnp.float32))["params"],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, w, s: patches.patch_rows(n, w, [], window=(16, 16)), "scenes must hold at least one"),
        (
            lambda n, w, s: patches.patch_rows(n, w, [s[0]["image"][..., 0]], window=(16, 16)),
            r"a scene must have shape",
        ),
        (lambda n, w, s: patches.patch_rows(n, w, [s[0]["image"][:3]], window=(16, 16)), "must hold a whole patch"),
        (lambda n, w, s: patches.patch_rows(n._replace(maps=("deep",)), w, s, window=(16, 16)), "maps must be of"),
        (lambda n, w, s: patches.backbone("vit_tiny_scratch", ("block_4",)), "maps must be of block_0, block_1"),
        (lambda n, w, s: patches.backbone("vit_tiny_scratch", ()), "got none"),
        (lambda n, w, s: patches.check_method("energy"), "must read features alone: one of .*mahalanobis_pp"),
        (lambda n, w, s: patches.check_method("residual"), "must read features alone"),
    ],
)
def test_wrong_arguments_are_named(network, weights, scenes, change, message):
    with pytest.raises(ValueError, match=message):
        change(network, weights, scenes)


def test_maps_may_come_as_named_maps(network, weights, scenes):
    from quantjax.types import FeatureMaps

    named = network._replace(apply=lambda v, x: FeatureMaps(named_maps(apply(v, x)), x.mean((1, 2))))
    found, wanted = (patches.patch_rows(n, weights, scenes[:1], window=(16, 32)) for n in (named, network))
    np.testing.assert_array_equal(found.features["coarse"], wanted.features["coarse"])


def test_a_diverged_network_is_refused(network, weights, scenes):
    rows = patches.patch_rows(network, weights * np.nan, scenes[:1], window=(16, 32))
    with pytest.raises(ValueError, match="features of map fine must be finite"):
        patches.fit_patches("mahalanobis_pp", rows)


def test_maps_of_a_smaller_copy_stand_beside_those_of_the_window(network, weights):
    """An image of constant halves: at half the size a patch that lies in one half says what it said."""
    image = np.full((32, 64, 3), 40, np.uint8)
    image[:, 32:] = (200, 120, 90)
    scaled = network._replace(scales=(1.0, 0.5))
    assert patches.scaled_names(scaled) == ("fine", "coarse", "fine x0.5", "coarse x0.5")
    found = patches.named_features(scaled, None, weights, jnp.asarray(image[None]))
    assert tuple(found) == patches.scaled_names(scaled)
    assert found["fine x0.5"].shape == (1, 4, 8, 6)
    corners = np.ix_([0], [0, 3], [0, 7])
    np.testing.assert_allclose(found["fine x0.5"][corners], found["fine"][:, ::7, ::15], atol=2e-3)
