"""WRN and ResNet against PyTorch for the same random weights (golden/extractors.npz), and their properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.random_weights import random_state

from quantjax.convert.classifiers import to_variables
from quantjax.extractors import BACKBONES, PROBES, CifarResNet, DenseNet, WideResNet

# of small images, whose maps have their sizes; a dense one takes long to trace: test_densenet
SMALL = [n for n, b in BACKBONES.items() if n not in PROBES and not b.side and not n.startswith("densenet")]
IMAGE = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def recorded_variables(recorded, name):
    shapes = [tuple(int(n) for n in s.split(",")) for s in recorded[f"{name}/shapes"]]
    return to_variables(random_state(list(recorded[f"{name}/names"]), shapes), name, 10)


def parameters(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["wrn10_1", "wrn16_2", "resnet20", "resnet18"])
def test_logits_and_features_are_those_of_torch(golden, name):
    recorded = golden("extractors")
    images = jnp.asarray(np.random.RandomState(1).standard_normal((2, 32, 32, 3)), jnp.float32)
    out = jax.jit(BACKBONES[name].build(10).apply)(recorded_variables(recorded, name), images)
    for field in ("logits", "features"):
        wanted = recorded[f"{name}/{field}"]
        np.testing.assert_allclose(getattr(out, field), wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    (
        "name",
        "count",
    ),  # hand counts agree with the papers: 2.24 M, 0.27 M, 0.86 M, 11.17 M, 0.8 M;
    # torchvision's 25,557,032 less 990 classes of 2,049 numbers
    [
        ("wrn40_2", 2_243_546),
        ("resnet20", 269_722),
        ("resnet56", 853_018),
        ("resnet18", 11_173_962),
        ("densenet_bc100_12", 769_162),
        ("resnet50", 23_528_522),
    ],
)
def test_sizes(name, count):
    backbone = BACKBONES[name]
    model = backbone.build(10)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    out = jax.eval_shape(model.apply, variables, IMAGE)
    assert parameters(variables["params"]) == count
    assert out.logits.shape == (2, 10)
    assert out.features.shape == (2, backbone.feature_dimension)


@pytest.mark.parametrize("name", SMALL)
def test_maps_are_named_and_halve_after_the_first_group(name):
    model = BACKBONES[name].build(4, dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    out = jax.eval_shape(model.apply, variables, IMAGE)
    sizes = {k: v.shape[1] for k, v in out.intermediates.items()}
    groups = {f"group{g}": 32 // 2 ** (g - 1) for g in range(1, len(sizes))}
    assert sizes == {"stem": 32} | groups
    assert {v.dtype for v in out.intermediates.values()} == {jnp.dtype(jnp.bfloat16)}
    assert out.logits.dtype == out.features.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_bfloat16_stays_near_float32(golden):
    variables = recorded_variables(golden("extractors"), "wrn10_1")
    images = jnp.asarray(np.random.RandomState(1).standard_normal((2, 32, 32, 3)), jnp.float32)
    half = jax.jit(BACKBONES["wrn10_1"].build(10, dtype=jnp.bfloat16).apply)(variables, images).features
    wanted = golden("extractors")["wrn10_1/features"]
    difference = np.abs(np.asarray(half) - wanted).max() / np.abs(wanted).max()
    assert 1e-5 < difference < 0.03  # bfloat16 keeps 8 bits: 0.4 % a rounding; below 1e-5 it would not have been used


@pytest.mark.parametrize(("name", "norms"), [("wrn10_1", 7), ("wrn16_2", 13), ("resnet20", 19), ("resnet18", 20)])
def test_every_norm_is_synchronised_by_one_message(name, norms):
    model = BACKBONES[name].build(4)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGE)

    def train(variables, images, mask):
        return model.apply(variables, images, True, mask, "devices", mutable=["batch_stats"])

    mask = jax.ShapeDtypeStruct((2,), jnp.bool_)
    equations = jax.make_jaxpr(train, axis_env=[("devices", 4)])(variables, IMAGE, mask).eqns
    messages = [str(e.primitive) for e in equations if {"axis_name", "axes"} & set(e.params)]
    assert [m for m in messages if "psum" in m or "all_gather" in m] == ["all_gather"] * norms


def test_only_the_large_wide_network_drops_out():
    assert BACKBONES["wrn40_2"].build(10).dropout_rate == 0.3
    assert BACKBONES["wrn16_2"].build(10).dropout_rate == 0.0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (WideResNet(10, depth=42), r"6 n \+ 4\), got 42"),
        (DenseNet(10, depth=42), r"6 n \+ 4\), got 42"),
        (CifarResNet(10, depth=18), r"6 n \+ 2\), got 18"),
    ],
)
def test_impossible_depths_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), IMAGE)
