import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors import BACKBONES, extract, fold

IMAGE = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)


def random_variables(model, rng):
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGE)

    def draw(path, leaf):
        normal = rng.normal(size=leaf.shape).astype(np.float32)
        if leaf.ndim > 1:
            return normal / np.sqrt(np.prod(leaf.shape[:-1]), dtype=np.float32)
        return 0.5 + np.abs(normal) if path[-1].key in ("var", "scale") else normal

    return jax.tree_util.tree_map_with_path(draw, shapes)


def norms(params):
    return sum("scale" in leaf for leaf in _modules(params))


def _modules(tree):
    yield tree
    for value in tree.values():
        if isinstance(value, dict):
            yield from _modules(value)


@pytest.mark.parametrize("name", ["wrn10_1", "wrn16_2", "resnet20"])
def test_folding_changes_no_output(rng, name):
    model = BACKBONES[name].build(5)
    variables = random_variables(model, rng)
    images = jnp.asarray(rng.normal(size=(2, 16, 16, 3)), jnp.float32)
    wanted = jax.jit(model.apply)(variables, images)
    folded, params = fold(model, variables)
    out = jax.jit(folded.apply)(params, images)
    for field in ("logits", "features"):
        a, b = np.asarray(getattr(wanted, field)), np.asarray(getattr(out, field))
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize(
    ("name", "before", "after"),
    # wide: 2 a block and the last one; norm2 of every block folds, and norm1 of the first one where channels change.
    # residual: one for each convolution, all folded.
    [
        ("wrn40_2", 37, 18),
        ("wrn10_1", 7, 4),
        ("resnet20", 19, 0),
        ("resnet18", 20, 0),
        ("resnet50", 53, 0),
    ],
)
def test_every_norm_that_directly_follows_a_convolution_disappears(rng, name, before, after):
    model = BACKBONES[name].build(5)
    variables = random_variables(model, rng)
    folded, params = fold(model, variables)
    assert norms(variables["params"]) == before
    assert norms(params["params"]) == after
    wanted = jax.eval_shape(folded.init, jax.random.key(0), IMAGE)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, wanted)


def test_misuse_is_refused(rng):
    model = BACKBONES["wrn10_1"].build(5)
    variables = random_variables(model, rng)
    with pytest.raises(ValueError, match="batch_stats"):
        fold(model, {"params": variables["params"]})
    with pytest.raises(ValueError, match="folded already"):
        fold(*fold(model, variables))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
def test_slices_change_no_output(rng, rows):
    model = BACKBONES["wrn10_1"].build(5)
    variables = random_variables(model, rng)
    images = jnp.asarray(rng.normal(size=(5, 8, 8, 3)), jnp.float32)
    wanted = jax.jit(model.apply)(variables, images)
    logits, features = jax.jit(lambda x: extract(model, variables, x, rows))(images)
    np.testing.assert_allclose(logits, wanted.logits, atol=1e-5 * np.abs(wanted.logits).max())
    np.testing.assert_allclose(features, wanted.features, atol=1e-5 * np.abs(wanted.features).max())
