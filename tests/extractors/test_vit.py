"""Vision transformers against Hugging Face's for the same random weights (golden/transformers.npz), and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.small_transformers import SMALL, recorded_state, register

from quantjax.convert.transformers import backbone_overrides, to_backbone_variables
from quantjax.extractors import FEATURE_BACKBONES, VisionTransformer
from quantjax.extractors.vit import Mlp, gelu, quick_gelu

TINY = VisionTransformer(patch=4, width=8, depth=2, heads=2, layers=(0, 1), grid=(2, 3), scale_branches=False)
ONE_BLOCK = TINY.clone(depth=1, layers=(0,))
IMAGES = jax.ShapeDtypeStruct((1, 8, 12, 3), jnp.float32)


def parameters(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def relative(given, wanted):
    return float(np.linalg.norm(np.asarray(given) - wanted) / np.linalg.norm(wanted))


def drawn(model, images, rng):
    """Variables drawn by numpy: compiling their own initialisers takes longer than all that is tested with them."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32), shapes)


@pytest.mark.parametrize("name", SMALL)
def test_every_block_is_that_of_transformers(golden, monkeypatch, name):
    register(monkeypatch)
    recorded, state = golden("transformers"), recorded_state(golden("transformers"), name)
    patch = FEATURE_BACKBONES[name].stride
    images = np.random.RandomState(1).standard_normal((2, 3 * patch, 6 * patch, 3)).astype(np.float32)
    model = FEATURE_BACKBONES[name].build(**backbone_overrides(state, name))
    out = jax.jit(model.apply)(to_backbone_variables(state, name), images)
    assert [named.name for named in out.maps] == ["block_0", "block_1", "block_2"]
    for block, given in out.by_name.items():
        assert relative(given, recorded[f"{name}/{block}"]) < 1e-5, block
    assert relative(out.summary, recorded[f"{name}/summary"]) < 1e-5


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # the published count less the mask token, which only pretraining uses: 86,583,552 - 768
        ("dinov2_vitb14_reg", 86_583_552 - 768),
        ("dinov2_vitb14", 86_583_552 - 768 - 4 * 768),
        ("vit_small_scratch", 2_858_112),  # 6 (12 * 192^2 + 13 * 192) + (588 + 391 + 5) * 192
    ],
)
def test_sizes(name, count):
    backbone = FEATURE_BACKBONES[name]
    images = jax.ShapeDtypeStruct((1, 28, 56, 3), jnp.float32)
    variables = jax.eval_shape(backbone.build().init, jax.random.key(0), images)
    assert parameters(variables) == count


@pytest.mark.parametrize("name", [n for n, b in FEATURE_BACKBONES.items() if b.kind == "plain"])
def test_four_maps_in_order_and_float32(name):
    backbone = FEATURE_BACKBONES[name]
    model, s = backbone.build(dtype=jnp.bfloat16), backbone.stride
    images = jax.ShapeDtypeStruct((2, 2 * s, 3 * s, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    out = jax.eval_shape(model.apply, variables, images)
    assert [named.name for named in out.maps] == [f"block_{i}" for i in model.layers]  # not in the order of letters
    assert {(v.shape, v.dtype) for v in out.by_name.values()} == {((2, 2, 3, backbone.width), jnp.dtype(jnp.float32))}
    assert (out.summary.shape, out.summary.dtype) == ((2, backbone.width), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_half_precision_stays_near_and_every_parameter_learns(rng):
    images = jnp.asarray(rng.standard_normal((2, 8, 8, 3)), jnp.float32)
    variables = drawn(ONE_BLOCK, images, rng)

    def probe(variables):
        """A random mixture of the outputs, and the outputs."""
        out = ONE_BLOCK.apply(variables, images)
        return (out.by_name["block_0"] * mixture).sum() + out.summary[:, 0].sum(), out

    mixture = jnp.asarray(rng.standard_normal((2, 2, 2, 8)), jnp.float32)
    (_, out), gradient = jax.jit(jax.value_and_grad(probe, has_aux=True))(variables)
    half = jax.jit(lambda v: ONE_BLOCK.clone(dtype=jnp.bfloat16).apply(v, images))(variables)
    error = relative(half.by_name["block_0"], np.asarray(out.by_name["block_0"]))
    assert 1e-5 < error < 0.03  # bfloat16 keeps 8 bits: 2^-9 a rounding, a handful one after the other
    largest = {
        jax.tree_util.keystr(k): float(jnp.abs(g).max()) for k, g in jax.tree_util.tree_leaves_with_path(gradient)
    }
    assert all(value > 0 for value in largest.values()), largest


def test_initial_weights_are_small_and_repeat():
    one = Mlp(gelu)
    x = jnp.zeros((1, 1, 16))
    first, again = (jax.jit(one.init)(jax.random.key(3), x)["params"] for _ in range(2))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    kernel = np.asarray(first["in"]["kernel"])
    assert np.abs(kernel).max() <= 0.04
    assert 0.014 < kernel.std() < 0.021  # 0.02, cut at two of it: 0.0176
    assert not np.any(first["in"]["bias"])


def test_each_patch_is_one_product(rng):
    """A change of one pixel moves only its own patch before attention: block 0 of a network without attention."""
    images = jnp.asarray(rng.standard_normal((1, 8, 12, 3)), jnp.float32)
    variables = drawn(ONE_BLOCK, images, rng)
    silent = jax.tree.map(jnp.asarray, variables["params"])
    silent["block_0"]["attention"]["out"]["kernel"] *= 0.0
    apply = jax.jit(lambda x: ONE_BLOCK.apply({"params": silent}, x).by_name["block_0"])
    moved = jnp.abs(apply(images.at[0, 6, 5, 1].add(1.0)) - apply(images)).max(-1)
    assert [tuple(map(int, i)) for i in jnp.argwhere(moved > 1e-6)] == [(0, 1, 1)]


def test_gelu_is_exact():
    assert float(gelu(jnp.float32(1.0))) == pytest.approx(0.8413447, abs=1e-6)  # Phi(1); the tanh form gives 0.8411920


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (1, 8, 13, 3), r"multiples of the patch, 4; got 8 x 13: resize, crop or pad them to 8 x 12"),
        ({}, (8, 12, 3), r"images must have shape \[B, H, W, 3\], got \[8, 12, 3\]"),
        ({"layers": (0, 2)}, (1, 8, 12, 3), r"layers must be increasing numbers in 0\.\.1, got \(0, 2\)"),
        ({"layers": (1, 0)}, (1, 8, 12, 3), r"layers must be increasing"),
        ({"heads": 3}, (1, 8, 12, 3), "width must be a multiple of heads, got width 8 and 3 heads"),
        ({"style": "beit"}, (1, 8, 12, 3), "style must be one of clip, dinov2; got 'beit'"),
    ],
)
def test_errors_name_the_way_out(options, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(TINY.clone(**options).init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parity
@pytest.mark.parametrize("name", SMALL)
def test_against_transformers_now(monkeypatch, name):
    pytest.importorskip("transformers", exc_type=ImportError)
    from golden.make_transformers import evaluate, load_random, networks

    register(monkeypatch)
    network = networks()[name]
    state = load_random(network)
    variables, options = to_backbone_variables(state, name), backbone_overrides(state, name)
    for cells in ((5, 5), (8, 4)):
        recorded = evaluate(network, cells)
        out = jax.jit(FEATURE_BACKBONES[name].build(**options).apply)(variables, recorded["images"])
        for key, given in (*out.by_name.items(), ("summary", out.summary)):
            assert relative(given, recorded[key]) < 1e-5, (cells, key)


def test_gelu_and_quick_gelu_are_a_choice():
    """x Phi(x) and x sigmoid(1.702 x) at 1: 0.8413 and 0.8458."""
    for name in ("clip_vitb16", "clip_vitl14"):
        quick, exact = FEATURE_BACKBONES[name].build(), FEATURE_BACKBONES[f"{name}_gelu"].build()
        assert (quick.activation, exact.activation) == ("quick_gelu", "gelu")
        assert quick == exact.clone(activation="quick_gelu")
    np.testing.assert_allclose([gelu(1.0), quick_gelu(1.0)], [0.8413447, 0.8457958], rtol=1e-6)
    images = jnp.asarray(np.random.default_rng(1).standard_normal((1, 4, 4, 3)), jnp.float32)
    clip = ONE_BLOCK.clone(style="clip", grid=(1, 1))
    variables = drawn(clip, images, np.random.default_rng(0))
    quick, exact, default = (
        jax.jit(clip.clone(activation=a).apply)(variables, images).summary for a in ("quick_gelu", "gelu", None)
    )
    np.testing.assert_array_equal(quick, default)
    assert 1e-4 < np.abs(quick - exact).max() < 0.2
    with pytest.raises(ValueError, match="activation must be one of gelu, quick_gelu; got 'relu'"):
        jax.eval_shape(clip.clone(activation="relu").init, jax.random.key(0), images)
