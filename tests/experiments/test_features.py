"""The feature cache: used when it holds exactly these images under exactly these weights, never otherwise."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images import features
from quantjax import data
from quantjax.extractors import ENERGY_OOD, NONE, WideResNet


@contextlib.contextmanager
def silent(title):
    yield lambda done, total, **extra: None


@pytest.fixture(scope="module")
def extractors():
    model = WideResNet(3, depth=10, width=1, dropout_rate=0.0)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    other = jax.tree.map(lambda leaf: leaf * 1.01, variables)
    return [
        features.build(model, variables, ENERGY_OOD, 8, 4, "float32"),
        features.build(model, other, ENERGY_OOD, 8, 4, "float32"),
        features.build(model, variables, NONE, 8, 4, "float32"),
        features.build(model, variables, ENERGY_OOD, 8, 4, "tensorfloat32"),
        features.build(model.clone(dtype=jnp.bfloat16), variables, ENERGY_OOD, 8, 4, "float32"),
    ]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 8, 8, 3), np.uint8)


def test_weights_preprocessing_and_precision_all_count(extractors):
    assert len({e.fingerprint for e in extractors}) == len(extractors)


def test_a_second_pass_reads_the_cache(extractors, images, tmp_path):
    first = features.extract(extractors[0], "a", images, tmp_path, silent)
    assert first.features.shape == (6, 64)
    assert first.logits.shape == (6, 3)
    blind = extractors[0]._replace(run=None)
    again = features.extract(blind, "a", images, tmp_path, silent)
    np.testing.assert_array_equal(again.features, first.features)
    assert again.seconds == first.seconds


def test_a_stale_cache_is_never_used(extractors, images, tmp_path):
    first = features.extract(extractors[0], "a", images, tmp_path, silent)
    other_weights = features.extract(extractors[1], "a", images, tmp_path, silent)
    assert np.abs(other_weights.features - first.features).max() > 1e-4
    changed = images.copy()
    changed[5, 0, 0, 0] ^= 128
    other_images = features.extract(extractors[0], "a", changed, tmp_path, silent)
    assert (other_images.features[5] != first.features[5]).any()
    np.testing.assert_allclose(other_images.features[:5], first.features[:5], atol=1e-6)


def test_a_truncated_cache_is_made_anew(extractors, images, tmp_path):
    first = features.extract(extractors[0], "a", images, tmp_path, silent)
    [file] = tmp_path.rglob("plain.npz")
    whole = file.read_bytes()
    np.save(tmp_path / "bare.npy", np.zeros(3))
    for damaged in (b"", whole[:10], whole[: len(whole) // 2], (tmp_path / "bare.npy").read_bytes()):
        file.write_bytes(damaged)
        again = features.extract(extractors[0], "a", images, tmp_path, silent)
        np.testing.assert_array_equal(again.features, first.features)


def test_layers_come_from_the_cache_once_they_are_in_it(extractors, images, tmp_path):
    model = WideResNet(3, depth=10, width=1, dropout_rate=0.0)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with_layers = features.build(model, variables, ENERGY_OOD, 8, 4, "float32", layers=True)
    plain = features.extract(extractors[0], "a", images, tmp_path, silent)
    assert plain.layers is None
    first = features.extract(with_layers, "a", images, tmp_path, silent)
    assert {name: rows.shape for name, rows in first.layers.items()} == {
        "stem": (6, 32), "group1": (6, 32), "group2": (6, 64), "group3": (6, 128)
    }  # fmt: skip
    again = features.extract(with_layers._replace(run=None), "a", images, tmp_path, silent)
    jax.tree.map(np.testing.assert_array_equal, again.layers, first.layers)
    fewer = features.extract(extractors[0]._replace(run=None), "a", images, tmp_path, silent)
    np.testing.assert_array_equal(fewer.features, first.features)
    assert features.rows_of(first, slice(2, 4)).layers["stem"].shape == (2, 32)


def other_width(stored):
    return stored | {"features": stored["features"][:, :-1]}


def flipped(stored):
    features = stored["features"].copy()
    features.view(np.uint32)[2, 3] ^= 1 << 20
    return stored | {"features": features}


@pytest.mark.parametrize("spoil", [other_width, flipped])
@pytest.mark.parametrize("digest", ["kept", "made anew", "lost"])
def test_features_of_another_width_or_with_a_flipped_bit_are_made_anew(extractors, images, tmp_path, spoil, digest):
    if (spoil, digest) == (flipped, "made anew"):
        return  # that is another cache
    first = features.extract(extractors[0], "a", images, tmp_path, silent)
    [file] = tmp_path.rglob("plain.npz")
    with np.load(file) as opened:
        stored = spoil(dict(opened))
    kept = stored.pop("digest")
    again = {"kept": {"digest": kept}, "lost": {}, "made anew": {"digest": data.fingerprint(*stored.values())}}
    np.savez(file, **again[digest], **stored)
    again = features.extract(extractors[0], "a", images, tmp_path, silent)
    np.testing.assert_array_equal(again.features, first.features)


@pytest.mark.parametrize("spoil", [other_width, flipped])
@pytest.mark.parametrize("digest", ["kept", "lost"])
def test_a_damaged_view_is_made_anew(extractors, images, tmp_path, spoil, digest):
    first = np.array(features.extract_views(extractors[0], images, 1, tmp_path, silent)[0])
    [file] = tmp_path.rglob("view_000.npy")
    np.save(file, spoil({"features": first})["features"])
    if digest == "lost":
        file.with_suffix(".digest").unlink()
    np.testing.assert_array_equal(features.extract_views(extractors[0], images, 1, tmp_path, silent)[0], first)


def test_views_stay_on_the_disk(extractors, images, tmp_path):
    extracted = features.extract_views(extractors[0], images, 2, tmp_path, silent)
    found = features.extract_views(extractors[0]._replace(run_view=None), images, 2, tmp_path, silent)
    assert all(isinstance(view, np.memmap) for view in (*extracted, *found))


def test_more_views_extend_fewer(extractors, images, tmp_path):
    two = features.extract_views(extractors[0], images, 2, tmp_path, silent)
    blind = extractors[0]._replace(run_view=None)
    np.testing.assert_array_equal(features.extract_views(blind, images, 2, tmp_path, silent)[1], two[1])
    three = features.extract_views(extractors[0], images, 3, tmp_path, silent)
    np.testing.assert_array_equal(three[0], two[0])
    assert (three[2] != two[0]).any()
    assert (two[0] != two[1]).any()
    assert features.extract_views(extractors[0], images, 0, tmp_path, silent) == []
