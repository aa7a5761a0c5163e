"""Linear probes: a transformer's class token under one linear layer, standing where a convolutional network stands."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import swin_weights
from golden.random_weights import random_state

from quantjax.extractors import BACKBONES, CLIP, FEATURE_BACKBONES, IMAGENET, PROBES, extract, fold
from quantjax.extractors.probe import join, logits, split

TINY = "vit_tiny_scratch"


def image(size):
    return jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)


@pytest.fixture(scope="module")
def probe():
    """(model of one block, variables, images, output)."""
    full = BACKBONES[TINY].build(3)
    model = full.clone(build=partial(full.build, depth=1, layers=(0,)))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image(28))
    variables = jax.tree.map(lambda leaf: 0.2 * rng.normal(size=leaf.shape).astype(np.float32), shapes)
    images = jnp.asarray(rng.normal(size=(2, 28, 28, 3)), jnp.float32)
    return model, variables, images, jax.jit(model.apply)(variables, images)


def test_published_transformers_are_offered_as_classifiers():
    plain = {name for name, backbone in FEATURE_BACKBONES.items() if backbone.kind == "plain"}
    assert set(PROBES) == (plain - {"dinov2_toy_reg"}) | {"swin_t"}  # benchmarks add that one for themselves
    assert {"dinov2_vits14", "clip_vitb16"} <= set(PROBES) <= set(BACKBONES)
    assert (BACKBONES["dinov2_vits14"].preprocessing, BACKBONES["clip_vitb16"].preprocessing) == (IMAGENET, CLIP)


@pytest.mark.parametrize(("name", "size"), [("dinov2_vits14", 42), ("clip_vitb16", 32), (TINY, 28)])
def test_shapes_follow_the_images(name, size):
    backbone, patch = BACKBONES[name], FEATURE_BACKBONES[name].stride
    model = backbone.build(4, dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), image(size))
    out = jax.eval_shape(model.apply, variables, image(size))
    assert (out.logits.shape, out.features.shape) == ((2, 4), (2, backbone.feature_dimension))
    assert out.logits.dtype == out.features.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    cells = (size // patch, size // patch)
    assert split(variables)[0]["positions"].shape[:2] == cells
    assert {m.shape[1:3] for m in out.intermediates.values()} == {cells}


def test_logits_are_the_head_on_the_class_token(probe):
    model, variables, images, out = probe
    transformer, head = split(variables)
    assert jax.tree.all(jax.tree.map(np.array_equal, join(transformer, head), variables))
    alone = jax.jit(model.build(grid=(2, 2)).apply)({"params": transformer}, images)
    np.testing.assert_allclose(out.features, alone.summary, atol=1e-5)
    np.testing.assert_allclose(out.logits, logits(head, out.features), atol=1e-5)
    assert np.std(out.logits) > 0.1


def test_folding_passes_a_probe_through(probe):
    model, variables, images, out = probe
    same, params = fold(model, variables)
    assert same is model
    given = jax.jit(lambda v, x: extract(same, v, x))(params, images)
    np.testing.assert_allclose(given[0], out.logits, atol=1e-5)


def test_gradients_reach_every_pixel(probe):
    model, variables, images, _ = probe
    gradient = jax.jit(jax.grad(lambda x: jax.nn.logsumexp(model.apply(variables, x).logits, axis=1).sum()))(images)
    assert (np.asarray(gradient) != 0.0).mean() > 0.99


def test_images_of_broken_patches_are_refused():
    with pytest.raises(ValueError, match=r"multiples of the patch, 14; got 32 x 32.* to 28 x 28"):
        jax.eval_shape(BACKBONES[TINY].build(3).init, jax.random.key(0), image(32))


def test_swin_is_a_classifier_by_the_mean_of_its_last_map(golden):
    """SwinModel of transformers, whose classifier reads the mean of its tokens; see golden/make_swin_classifier.py."""
    recorded = golden("swin_classifier")
    state = random_state(list(recorded["names"]), [tuple(map(int, s.split(","))) for s in recorded["shapes"]])
    full = BACKBONES["swin_t"].build(5)
    options = {"width": 8, "depths": (1, 1, 1, 2), "heads": (1, 2, 2, 4), "window": 4}
    model = full.clone(build=partial(full.build, **options))
    params = swin_weights.to_variables({f"swin.{name}": array for name, array in state.items()})["params"]
    params |= {f"norm_{i}": {leaf: np.ones(8 << i, np.float32) for leaf in ("scale", "bias")} for i in range(3)}
    params |= {"norm_3": {"scale": state["layernorm.weight"], "bias": state["layernorm.bias"]}}
    head = {"kernel": np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32), "bias": np.ones(5, np.float32)}
    images = jnp.asarray(np.random.RandomState(1).standard_normal((2, 128, 160, 3)), jnp.float32)
    out = jax.jit(model.apply)(join(params, head), images)
    wanted = recorded["res5"].mean((1, 2))
    np.testing.assert_allclose(out.features, wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(out.logits, wanted @ head["kernel"] + 1.0, atol=1e-4 * np.abs(wanted).max())


def test_the_size_of_swin_t():
    """torchvision's 28,288,354 with a head for 1,000 classes; three further norms of maps."""
    shapes = jax.eval_shape(BACKBONES["swin_t"].build(1000).init, jax.random.key(0), image(64))
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) == 28_288_354 + 2 * (96 + 192 + 384)
