"""FrEIA's weights give FrEIA's numbers; weights that do not fit are named."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.convert.flows import settings, to_flow
from quantjax.flows.recipes import seeded_permutations

LAYOUT = {"glow": (7, 3, 2), "realnvp": (6, 2, 1), "gin": (7, 2, 0), "nice": (6, 3, 2)}  # D, blocks, layers


def recorded(arrays, kind):
    start = f"{kind}/state/"
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


@pytest.mark.parametrize("kind", LAYOUT)
def test_recorded_numbers_of_freia(golden, kind):
    arrays = golden("flows")
    flow, params = to_flow(recorded(arrays, kind), kind="gin" if kind == "gin" else None)
    z, log_det = jax.jit(flow.forward)(params, arrays[f"{kind}/x"])
    np.testing.assert_allclose(z, arrays[f"{kind}/z"], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(log_det, arrays[f"{kind}/log_det"], atol=1e-5, rtol=1e-5)
    back, _ = jax.jit(flow.inverse)(params, z)
    np.testing.assert_allclose(back, arrays[f"{kind}/x"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", LAYOUT)
def test_settings_are_read_off_names_and_shapes(golden, kind):
    dimension, blocks, layers = LAYOUT[kind]
    found = settings(recorded(golden("flows"), kind), kind="gin" if kind == "gin" else None)
    wanted = {"kind": kind, "dimension": dimension, "blocks": blocks, "layers": layers, "width": 8}
    assert found == wanted | {"mixing": "permutation"}


def test_converted_params_have_the_tree_of_a_fresh_flow(golden):
    flow, params = to_flow(recorded(golden("flows"), "realnvp"))
    fresh = jax.eval_shape(flow.init, jax.random.key(0), jax.ShapeDtypeStruct((4, 6), jnp.float32))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, fresh)


def test_wrapped_and_prefixed_names_are_read(golden):
    arrays = golden("flows")
    state = recorded(arrays, "glow")
    wrapped = {"nfs_state_dict": {f"module.{name}": value for name, value in state.items()}}
    for ours, plain in zip(jax.tree.leaves(to_flow(wrapped)[1]), jax.tree.leaves(to_flow(state)[1]), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_other_permutations_are_kept(golden):
    arrays = golden("flows")
    state = dict(recorded(arrays, "nice"))
    state["module_list.4.perm"] = np.roll(state["module_list.4.perm"], 1)
    options = settings(state)
    assert not np.array_equal(options["permutations"], seeded_permutations(6, 3))
    np.testing.assert_array_equal(options["permutations"][1], state["module_list.4.perm"])
    moved = to_flow(state)
    z, _ = moved[0].forward(moved[1], arrays["nice/x"])
    assert np.abs(z - arrays["nice/z"]).max() > 1e-2


def test_missing_unexpected_and_wrong_shapes_are_listed(golden):
    state = dict(recorded(golden("flows"), "glow"))
    del state["module_list.2.subnet1.3.weight"]
    state["module_list.2.subnet9.0.bias"] = np.zeros(3)
    state["module_list.5.subnet2.9.bias"] = np.zeros(5)
    with pytest.raises(ValueError, match="missing: ") as error:
        to_flow(state)
    text = str(error.value)
    assert "missing: module_list.2.subnet1.3.weight;" in text
    assert "unexpected: module_list.2.subnet9.0.bias;" in text
    assert "wrong shape: module_list.5.subnet2.9.bias [5] instead of [8]" in text
    assert "kind glow, dimension 7, blocks 3, layers 2, width 8" in text


def test_weights_of_something_else_are_refused():
    with pytest.raises(ValueError, match=r"no FrEIA flow.*got fc\.weight"):
        to_flow({"fc.weight": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="got none"):
        to_flow({})


def test_kind_is_checked(golden):
    state = recorded(golden("flows"), "glow")
    with pytest.raises(ValueError, match="kind must be one of"):
        to_flow(state, kind="maf")
    with pytest.raises(ValueError, match=r"missing: module_list\.2\.F\.0\.bias"):
        to_flow(state, kind="nice")


@pytest.mark.parity
@pytest.mark.parametrize("kind", LAYOUT)
@pytest.mark.parametrize(("dimension", "blocks", "layers", "width"), [(128, 8, 2, 512), (65, 3, 1, 48)])
def test_live_freia(kind, dimension, blocks, layers, width):
    torch = pytest.importorskip("torch")
    from freia_flows import build

    torch.manual_seed(0)
    theirs = build(kind, dimension, blocks, layers, width)
    x = 2 * torch.randn(128, dimension) + 1
    theirs(x)
    theirs.eval()
    flow, params = to_flow({"nfs_state_dict": theirs.state_dict()}, kind="gin" if kind == "gin" else None)
    with torch.no_grad():
        z, log_det = theirs(x)
    ours, our_log_det = jax.jit(flow.forward)(params, x.numpy())
    np.testing.assert_allclose(ours, z.numpy(), atol=1e-4)
    np.testing.assert_allclose(our_log_det, np.broadcast_to(np.asarray(log_det), 128), atol=1e-4, rtol=1e-6)
