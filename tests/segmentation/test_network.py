"""Segmentor and estimator as compositions: shapes, where gradients go, what the second stage may not change."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import segmentation
from quantjax.extractors import IMAGENET
from quantjax.extractors.fpn import FeaturePyramid
from quantjax.extractors.normalization import Mode
from quantjax.extractors.vit import VisionTransformer
from quantjax.heads import GmmSettings, Projector
from quantjax.types import FeatureMaps, named_maps

CLASSES, CHANNELS = 3, 4
BACKBONE = VisionTransformer(
    patch=14, width=6, depth=4, heads=1, layers=(0, 1, 2, 3), grid=(2, 2), scale_branches=False
)
HEADS = {
    "linear": segmentation.linear_head(CLASSES),
    "gmm": segmentation.gmm_head(GmmSettings(CLASSES, dimension=CHANNELS, components=2, memory=8, per_component=2)),
}


def features(variables, images):
    return BACKBONE.apply(variables, images)


def build(head: str) -> segmentation.Segmentor:
    decoder = FeaturePyramid(kind="plain", channels=CHANNELS, token_hidden=5)
    return segmentation.Segmentor(BACKBONE.init, features, decoder, HEADS[head], IMAGENET)


@pytest.fixture(scope="module", params=list(HEADS))
def network(request):
    network = build(request.param)
    images = jax.random.normal(jax.random.key(0), (2, 28, 42, 3))
    variables = jax.jit(lambda key, x: segmentation.init_segmentor(network, key, x))(jax.random.key(1), images)
    return network, variables, images


def test_logits_stand_at_a_quarter_of_the_patch_for_every_head(network):
    network, variables, images = network
    output = jax.jit(lambda v, x: segmentation.segment(network, v, x))(variables, images)
    assert output.logits.shape == (2, 8, 12, CLASSES)
    assert output.logits.dtype == jnp.float32
    for old, new in zip(
        jax.tree.leaves(variables["decoder"]["batch_stats"]), jax.tree.leaves(output.batch_stats), strict=True
    ):
        np.testing.assert_array_equal(old, new)  # evaluation leaves the statistics alone


def test_training_moves_statistics_and_reaches_every_parameter(network):
    network, variables, images = network

    def loss(trained):
        merged = variables | {
            "backbone": trained["backbone"],
            "decoder": variables["decoder"] | {"params": trained["decoder"]},
            "head": variables["head"] | {"params": trained["head"]},
        }
        output = segmentation.segment(network, merged, images, Mode(train=True))
        return jnp.sum(output.logits * jnp.arange(CLASSES).reshape(1, 1, 1, -1) ** 2), output.batch_stats

    trained = {
        "backbone": variables["backbone"],
        "decoder": variables["decoder"]["params"],
        "head": variables["head"]["params"],
    }
    (_, moved), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)
    still = [
        jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(grads) if not np.abs(g).max() > 0
    ]
    # keys' biases cancel in the softmax; the sum of layer-normed logits does not see a shift of all of them
    assert not [name for name in still if "qkv" not in name and "class_token" not in name and "class_pos" not in name]
    before = jax.tree.leaves(variables["decoder"]["batch_stats"])
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, jax.tree.leaves(moved), strict=True))


@pytest.mark.parametrize("head", ["linear", "gmm"])
def test_the_estimator_reads_the_last_map_and_gives_two_values(head):
    settings = GmmSettings(2, dimension=CHANNELS, components=2, memory=8, per_component=2)
    heads = {"linear": segmentation.linear_head(2), "gmm": segmentation.gmm_head(settings)}
    estimator = segmentation.Estimator(Projector((5, CHANNELS)), heads[head])
    maps = FeatureMaps(named_maps({f"m{i}": jnp.full((1, 2, 3, 6), float(i)) for i in range(4)}), jnp.zeros((1, 6)))
    variables = segmentation.init_estimator(estimator, jax.random.key(0), segmentation.last_map(maps))
    output = segmentation.estimate(estimator, variables, maps)
    assert output.logits.shape == (1, 2, 3, 2)
    other = maps._replace(maps=named_maps({**maps.by_name, "m0": jnp.ones((1, 2, 3, 6))}))
    np.testing.assert_array_equal(segmentation.estimate(estimator, variables, other).logits, output.logits)
    other = maps._replace(maps=named_maps({**maps.by_name, "m3": jnp.ones((1, 2, 3, 6))}))
    assert np.abs(segmentation.estimate(estimator, variables, other).logits - output.logits).max() > 0


def test_the_estimator_has_the_papers_788226_parameters():
    estimator = segmentation.Estimator(Projector(), segmentation.linear_head(2))
    shapes = jax.eval_shape(
        lambda key: segmentation.init_estimator(estimator, key, jnp.zeros((1, 1, 1, 768))), jax.random.key(0)
    )
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 788_226


def test_a_backbone_of_three_maps_and_a_mixture_of_another_width_are_refused():
    maps = FeatureMaps(named_maps({f"m{i}": jnp.zeros((1, 2, 2, 6)) for i in range(3)}), jnp.zeros((1, 6)))
    network = build("linear")._replace(init_backbone=lambda key, x: {}, features=lambda v, x: maps)
    with pytest.raises(ValueError, match=r"must return 4 maps.*\['m0', 'm1', 'm2'\]"):
        segmentation.init_segmentor(network, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    with pytest.raises(ValueError, match="mixture is of dimension 4, the features have 9"):
        HEADS["gmm"].init(jax.random.key(0), 9)
