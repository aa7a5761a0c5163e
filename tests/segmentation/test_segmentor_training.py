"""Both stages from Python: a small segmentor, and an estimator beside a network that is none of ours."""

from __future__ import annotations

from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from quantjax import segmentation
from quantjax.bundled import streets
from quantjax.data.loader import training_batches
from quantjax.data.objects import open_objects
from quantjax.data.scenes import open_scenes
from quantjax.extractors import NONE
from quantjax.extractors.fpn import FeaturePyramid
from quantjax.segmentation import FrozenSegmentor, Segmentor, linear_head
from quantjax.types import FeatureMaps, named_maps

CROP, CLASSES = (32, 64), 7


@pytest.fixture(scope="module", autouse=True)
def loose_ranks():
    """Optimisers and crops as users run them, on a few of the bundled scenes."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):
        patch.setattr(streets, "ROWS", {"train": 6, "test": 2})
        yield


@pytest.fixture(scope="module")
def batches():
    scenes, objects = open_scenes("streets", None, "train", CROP[0]), open_objects("bundled", None, "train")
    make = training_batches(scenes, objects, crop=CROP, batch_size=4, seed=0, scale=(1.0, 1.0), share=(0.5, 0.9))
    drawn = list(islice(make(0), 60))
    return lambda first: iter(drawn[first:])


class Strided(nn.Module):
    """Four maps, shallow to deep, whose names are not in the order of letters."""

    @nn.compact
    def __call__(self, x):
        maps = {}
        for name in ("d", "c", "b", "a"):
            x = maps[name] = nn.relu(nn.Conv(6, (3, 3), strides=2)(x))
        return FeatureMaps(named_maps(maps), x.mean((1, 2)))


@pytest.mark.parametrize("train_backbone", [False, True])
def test_a_segmentor_is_fitted_and_its_frozen_parts_stay(batches, train_backbone):
    backbone = Strided()
    network = Segmentor(
        backbone.init, backbone.apply, FeaturePyramid("pyramid", channels=4), linear_head(CLASSES), NONE
    )
    blank = jnp.zeros((1, *CROP, 3))
    variables = jax.jit(partial(segmentation.init_segmentor, network))(jax.random.key(0), blank)
    seen = []
    trained = segmentation.fit_segmentor(
        network, variables, batches, steps=8, key=jax.random.key(1), optimizer=optax.adam(1e-2), hue=0.0,
        train_backbone=train_backbone, report=lambda step, means: seen.append(means["loss"]), report_every=4,
    )  # fmt: skip
    assert jax.tree.structure(trained) == jax.tree.structure(variables)
    assert seen[-1] < seen[0]
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), trained, variables)
    assert all(jax.tree.leaves(same["backbone"])) == (not train_backbone)
    assert not any(jax.tree.leaves(same["head"]))


def foreign(variables, images):
    """A segmentor without parts: patches, one layer, one linear head; what stands beside it may know nothing more."""
    b, h, w, _ = images.shape
    patches = images.reshape(b, h // 4, 4, w // 4, 4, 3).swapaxes(2, 3).reshape(b, h // 4, w // 4, 48)
    features = jnp.tanh(patches @ variables["kernel"])
    return features, features @ variables["head"]


def test_an_estimator_is_fitted_beside_any_frozen_segmentor(batches):
    draw = np.random.default_rng(3).normal
    weights = {
        "kernel": draw(size=(48, 24)).astype(np.float32) / 4,
        "head": draw(size=(24, CLASSES)).astype(np.float32),
    }
    kept = jax.tree.map(np.copy, weights)
    network, estimator, seen = FrozenSegmentor(foreign), segmentation.make_estimator((16, 8)), []
    fitted = segmentation.fit_estimator(
        network, weights, estimator, batches, steps=60, key=jax.random.key(0), optimizer=optax.adam(3e-2), hue=0.0,
        report=lambda step, means: seen.append(means["ratio"]), report_every=5,
    )  # fmt: skip
    assert seen[-1] < 0.8 * seen[0]
    assert fitted.segmentor is weights
    jax.tree.map(np.testing.assert_array_equal, weights, kept)
    score = segmentation.make_scorer(network, estimator, window=CROP, stride=CROP)
    crops = next(batches(0))
    maps = [score((weights, fitted.variables), image)["lr"] for image in crops["image"]]
    values, labels = np.stack(maps), crops["label"]
    assert np.median(values[labels == 254]) > np.quantile(values[labels < CLASSES], 0.7)


def test_adam_rises_to_its_rate_and_falls_to_nearly_nothing():
    def rates(optimizer, steps):
        state, found = optimizer.init(jnp.zeros(())), []
        for _ in range(steps):  # of a constant gradient Adam makes steps of the rate's size
            update, state = optimizer.update(jnp.ones(()), state)
            found.append(-float(update))
        return np.array(found)

    wanted = [0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    np.testing.assert_allclose(
        rates(segmentation.adam(10, learning_rate=1.0, warmup=4), 10), wanted, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(rates(segmentation.adam(20), 3), [0, 2.5e-4, 5e-4], rtol=1e-4)  # a tenth of twenty
    np.testing.assert_allclose(rates(segmentation.adam(4000), 3), [0, 5e-4 / 1500, 1e-3 / 1500], rtol=1e-4)


def test_a_mixture_of_other_classes_is_refused():
    from quantjax.heads import GmmSettings

    with pytest.raises(ValueError, match="mixture must have 2 classes, got 3"):
        segmentation.make_estimator((8,), GmmSettings(3, dimension=8))
    with pytest.raises(ValueError, match="backbone must be one of"):
        segmentation.make_segmentor("resnet18", 3)
