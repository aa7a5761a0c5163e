"""Bring your own backbone: any function images -> FeatureMaps stands in for one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from quantjax.extractors import NONE
from quantjax.extractors.fpn import FeaturePyramid
from quantjax.extractors.normalization import Mode
from quantjax.segmentation import Segmentor, init_segmentor, linear_head, segment
from quantjax.segmentation.network import decoder_maps
from quantjax.types import FeatureMaps, named_maps

CLASSES, WIDTH, SIDE = 3, 8, 16


def draw(key, images):
    """Kernels of four convolutions 3x3: a plain tree of arrays."""
    widths = [images.shape[-1], WIDTH, WIDTH, WIDTH, WIDTH]
    keys = jax.random.split(key, 4)
    return [
        jax.random.normal(k, (3, 3, a, b)) / (9 * a) ** 0.5
        for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def strided(strides):
    """A convolutional network whose layer i has stride strides[i]."""

    def features(kernels, images):
        x, maps = images, {}
        for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            x = jnp.tanh(
                jax.lax.conv_general_dilated(
                    x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            )
            maps[f"layer{i}"] = x
        return FeatureMaps(named_maps(maps), x.mean((1, 2)))

    return features


def bring(kind):
    """(segmentor, side of its last map, side of its logits); plain maps all have the patch grid's size."""
    strides, last, out = ((4, 1, 1, 1), 4, 16) if kind == "plain" else ((2, 2, 2, 2), 1, 8)
    decoder = FeaturePyramid(kind, channels=8, token_hidden=8)
    return Segmentor(draw, strided(strides), decoder, linear_head(CLASSES), NONE), last, out


@pytest.fixture(params=["plain", "pyramid"])
def brought(request, rng):
    segmentor, last, out = bring(request.param)
    images = jnp.asarray(rng.normal(size=(2, SIDE, SIDE, 3)), jnp.float32)
    shapes = jax.eval_shape(lambda x: init_segmentor(segmentor, jax.random.key(0), x), images)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32), shapes)
    return segmentor, variables, images, last, out


def test_a_convolution_stands_in_for_a_backbone(brought):
    segmentor, variables, images, last, out = brought

    def loss(params, images):
        parts = {
            "backbone": params["backbone"],
            "decoder": {**variables["decoder"], "params": params["decoder"]},
            "head": {**variables["head"], "params": params["head"]},
        }
        output = segment(segmentor, parts, images, Mode(train=True))
        target = jax.nn.one_hot(jnp.zeros(output.logits.shape[:3], jnp.int32), CLASSES)
        return -(jax.nn.log_softmax(output.logits) * target).sum(-1).mean(), output

    params = {
        "backbone": variables["backbone"],
        "decoder": variables["decoder"]["params"],
        "head": variables["head"]["params"],
    }
    (value, output), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, images)
    assert output.logits.shape == (2, out, out, CLASSES)
    assert output.features.by_name["layer3"].shape == (2, last, last, WIDTH)
    assert np.isfinite(value)
    moved = jax.tree.map(lambda g: bool(np.abs(g).max() > 0.0), gradients)
    assert all(jax.tree.leaves(moved["head"]))
    assert all(moved["backbone"])
    # a norm right behind takes a convolution's mean away, so that a bias or two may rest
    assert np.mean(jax.tree.leaves(moved["decoder"])) > 0.8
    before, after = variables["decoder"]["batch_stats"], output.batch_stats
    assert not jax.tree.all(jax.tree.map(np.array_equal, before, after))


def initialised(segmentor, backbone=None):
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(lambda x: init_segmentor(segmentor, jax.random.key(0), x, backbone), images)


def test_weights_of_ones_own_take_the_place_of_random_ones():
    segmentor, *_ = bring("plain")
    kernels = jax.eval_shape(draw, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    mine = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), kernels)

    def never(key, images):
        raise AssertionError("random weights were drawn")

    made = initialised(segmentor._replace(init_backbone=never), mine)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, initialised(segmentor))


def test_a_compiled_backbone_hands_its_maps_on_in_order(rng):
    def features(kernels, images):
        maps = strided((4, 1, 1, 1))(kernels, images)
        return maps._replace(maps=named_maps(dict(zip("dcba", maps.by_name.values(), strict=True))))

    images = jnp.asarray(rng.normal(size=(1, SIDE, SIDE, 3)), jnp.float32)
    kernels = draw(jax.random.key(0), images)
    plain = features(kernels, images)
    several = jax.vmap(features, (None, 0))(kernels, images[None])
    shapes = jax.eval_shape(features, kernels, images)
    for found in (jax.jit(features)(kernels, images), several, shapes, jax.tree.map(lambda leaf: leaf, plain)):
        assert [named.name for named in found.maps] == ["d", "c", "b", "a"]
    compiled = decoder_maps(jax.jit(features)(kernels, images))
    for found, wanted in zip(compiled, plain.by_name.values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    program = export.export(jax.jit(features))(kernels, images)
    stored = export.deserialize(program.serialize()).call(kernels, images)
    np.testing.assert_allclose(stored.by_name["a"], plain.by_name["a"], rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(stored) == jax.tree.structure(plain)


def test_a_dict_of_maps_is_refused():
    def unordered(kernels, images):
        return FeatureMaps({"layer0": images}, images[:, 0, 0])

    segmentor, *_ = bring("plain")
    with pytest.raises(TypeError, match="maps must be a tuple of NamedMap, got a dict"):
        initialised(segmentor._replace(features=unordered))


def test_too_few_maps_are_refused():
    segmentor, *_ = bring("plain")

    def shallow(kernels, images):
        return strided((4, 1))(kernels[:2], images)

    with pytest.raises(ValueError, match=r"must return 4 maps, shallow to deep, got \['layer0', 'layer1'\]"):
        initialised(segmentor._replace(features=shallow))
