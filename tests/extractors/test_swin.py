"""Swin against Hugging Face's backbone for the same random weights (golden/swin.npz), and its windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.random_weights import random_state
from golden.swin_weights import to_variables
from jax import export

from quantjax.extractors.swin import MASKED, SwinTransformer, join, partition, shift_mask

SIZE = (2, 54, 83, 3)  # neither the patches nor the windows nor the mergings fit


def small(**options):
    return SwinTransformer(width=8, depths=(2, 2, 3, 1), heads=(1, 2, 2, 4), window=4, **options)


def images():
    return jnp.asarray(np.random.RandomState(1).standard_normal(SIZE), jnp.float32)


@pytest.fixture
def recorded(golden):
    return golden("swin")


@pytest.fixture
def variables(recorded):
    shapes = [tuple(int(n) for n in s.split(",")) for s in recorded["shapes"]]
    return to_variables(random_state(list(recorded["names"]), shapes))


def test_variables_are_those_of_the_backbone(variables):
    shapes = jax.eval_shape(small().init, jax.random.key(0), images())
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, variables)


def test_maps_are_those_of_transformers(recorded, variables):
    out = jax.jit(small(shift="always").apply)(variables, images())
    assert [named.name for named in out.maps] == ["res2", "res3", "res4", "res5"]
    for name, found in out.by_name.items():
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, recorded[name], atol=1e-5 * np.abs(recorded[name]).max())
    np.testing.assert_allclose(out.summary, recorded["res5"].mean((1, 2)), atol=1e-5)


def test_windows_of_a_classifier_stay_where_one_is_as_high_as_the_map(golden):
    """SwinModel of transformers; its last map is 4 x 5, of windows of 4."""
    recorded = golden("swin_classifier")
    state = random_state(list(recorded["names"]), [tuple(map(int, s.split(","))) for s in recorded["shapes"]])
    model = SwinTransformer(width=8, depths=(1, 1, 1, 2), heads=(1, 2, 2, 4), window=4)
    assert model.shift == "larger_maps"
    wanted = jax.eval_shape(model.init, jax.random.key(0), images())
    variables = to_variables({f"swin.{name}": array for name, array in state.items()})["params"]
    norms = {f"norm_{i}": {leaf: np.ones(8 << i, np.float32) for leaf in ("scale", "bias")} for i in range(3)}
    norms["norm_3"] = {"scale": state["layernorm.weight"], "bias": state["layernorm.bias"]}
    variables = {"params": variables | norms}
    assert jax.tree.structure(wanted) == jax.tree.structure(variables)
    batch = jnp.asarray(np.random.RandomState(1).standard_normal((2, 128, 160, 3)), jnp.float32)
    found = jax.jit(model.apply)(variables, batch).by_name["res5"]
    np.testing.assert_allclose(found, recorded["res5"], atol=1e-5 * np.abs(recorded["res5"]).max())
    moved = jax.jit(model.clone(shift="always").apply)(variables, batch).by_name["res5"]
    assert np.abs(moved - recorded["res5"]).max() > 1e-2


def test_bfloat16_stays_near_float32(variables):
    run = lambda dtype: SwinTransformer(width=8, depths=(1,) * 4, heads=(1, 2, 2, 4), window=4, dtype=dtype)  # noqa: E731
    full, half = (jax.jit(run(d).apply)(variables, images()[:1, :20, :24]) for d in (jnp.float32, jnp.bfloat16))
    difference = np.abs(half.by_name["res3"] - full.by_name["res3"]).mean() / np.abs(full.by_name["res3"]).mean()
    assert half.by_name["res3"].dtype == jnp.float32
    assert 1e-4 < difference < 0.05  # eight bits: 0.4 % a rounding; below 1e-4 it would not have been used


def test_sizes():
    """Swin-B has 86,743,224 with windows of 7 and one norm; windows of 12 add 360 rows of 376 biases, and 3 norms."""
    shape = jax.ShapeDtypeStruct((1, 130, 259, 3), jnp.float32)
    variables = jax.eval_shape(SwinTransformer().init, jax.random.key(0), shape)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables))
    assert count == 86_743_224 + 360 * 376 + 2 * (128 + 256 + 512)
    out = jax.eval_shape(SwinTransformer().apply, variables, shape)
    assert [x.shape for x in out.by_name.values()] == [
        (1, 33, 65, 128),
        (1, 17, 33, 256),
        (1, 9, 17, 512),
        (1, 5, 9, 1024),
    ]
    assert out.summary.shape == (1, 1024)


def test_a_program_for_any_number_of_images():
    shapes = jax.eval_shape(small().init, jax.random.key(0), images())
    (count,) = export.symbolic_shape("count")
    out = jax.eval_shape(small().apply, shapes, jax.ShapeDtypeStruct((count, *images().shape[1:]), jnp.float32))
    assert [named.map.shape[0] for named in out.maps] == [count] * 4


def test_windows_hold_neighbours_and_are_put_back():
    x = np.arange(4 * 6).reshape(1, 4, 6, 1)
    windows = partition(x, 2)
    assert windows.shape == (1, 6, 4, 1)
    np.testing.assert_array_equal(windows[0, 1, :, 0], [2, 3, 8, 9])  # the second of the first row
    np.testing.assert_array_equal(join(windows, (4, 6), 2), x)


def test_the_mask_parts_what_the_shift_brought_together():
    mask = shift_mask((4, 8), 4, 2)
    assert mask.shape == (2, 16, 16)
    columns = np.arange(16) % 4 < 2  # the last window's right half comes from the left edge
    rows = np.arange(16) < 8  # its lower half from the top edge
    together = (columns[:, None] == columns[None]) & (rows[:, None] == rows[None])
    np.testing.assert_array_equal(mask[1], np.where(together, 0.0, MASKED))
    np.testing.assert_array_equal(mask[0], np.where(rows[:, None] == rows[None], 0.0, MASKED))


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (small(), (2, 16, 16), r"images must have shape \[B, H, W, 3\]"),
        (small(), (2, 16, 16, 4), r"images must have shape \[B, H, W, 3\]"),
        (small(shift="never"), (2, 16, 16, 3), "shift must be one of always, larger_maps; got 'never'"),
        (SwinTransformer(depths=(2, 2)), (2, 16, 16, 3), "must have 4 stages"),
        (SwinTransformer(width=8, heads=(1, 2, 3, 4)), (2, 16, 16, 3), "heads must divide the widths"),
    ],
)
def test_refusals(model, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parity
@pytest.mark.parametrize("size", [(64, 64), (33, 130), (97, 41)])
def test_live_transformers(size):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from make_swin import evaluate, fill, network

    model = network()
    variables = to_variables(fill(model))
    batch = np.random.RandomState(2).standard_normal((1, *size, 3)).astype(np.float32)
    found = jax.jit(small(shift="always").apply)(variables, batch).by_name.values()
    for ours, wanted in zip(found, evaluate(model, batch), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5 * np.abs(wanted).max())
