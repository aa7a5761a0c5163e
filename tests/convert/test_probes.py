"""Weights of linear probes: a transformer's under its published names, or a trained probe's under ours."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.renaming import renamed, stacked
from golden.small_transformers import recorded_state, register

from quantjax.convert.classifiers import load_classifier, to_variables
from quantjax.convert.files import write_safetensors
from quantjax.convert.probes import is_probe, to_probe_variables
from quantjax.convert.transformers import to_backbone_variables
from quantjax.extractors import BACKBONES, FEATURE_BACKBONES, PROBES
from quantjax.extractors.positions import resize_positions
from quantjax.extractors.probe import join, split
from quantjax.trees import flatten

NAME, WIDTH = "vit_tiny_scratch", 96


@pytest.fixture(scope="module")
def transformer():
    """Params of a transformer for positions of 8 x 16 patches of 14 pixels."""
    shapes = jax.eval_shape(FEATURE_BACKBONES[NAME].build().init, jax.random.key(0), np.zeros((1, 28, 28, 3), "f"))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes["params"])


@pytest.fixture
def head(rng):
    return {"kernel": rng.normal(size=(WIDTH, 3)).astype(np.float32), "bias": np.arange(3, dtype=np.float32)}


def arrays_of(transformer, head=None):
    return flatten({"params": transformer} if head is None else join(transformer, head))


def test_a_transformer_alone_gets_a_head_of_zeros(transformer):
    variables, trained = to_probe_variables(arrays_of(transformer), NAME, 5, image_size=42)
    params, head = split(variables)
    assert not trained
    assert params["positions"].shape == (3, 3, WIDTH)
    assert {leaf: array.shape for leaf, array in head.items()} == {"kernel": (WIDTH, 5), "bias": (5,)}
    assert not np.any(head["kernel"])
    np.testing.assert_array_equal(
        params["block_1"]["mlp"]["in"]["kernel"], transformer["block_1"]["mlp"]["in"]["kernel"]
    )


@pytest.mark.parametrize(
    ("name", "size", "rule"), [("dinov2", 42, "exact"), ("registers", 42, "antialiased"), ("clip", 48, "exact")]
)
def test_positions_are_resized_once_by_the_rule_of_their_source(golden, monkeypatch, name, size, rule):
    register(monkeypatch)
    monkeypatch.setattr("quantjax.convert.probes.PROBES", (*PROBES, name))
    monkeypatch.setitem(BACKBONES, name, BACKBONES["dinov2_vits14"]._replace(feature_dimension=16))
    state = recorded_state(golden("transformers"), name)
    params, _ = split(to_probe_variables(state, name, 2, size)[0])
    stored = to_backbone_variables(state, name)["params"]["positions"]
    np.testing.assert_allclose(params["positions"], resize_positions(jnp.asarray(stored), (3, 3), rule), atol=1e-6)
    other = resize_positions(jnp.asarray(stored), (3, 3), "offset")
    assert np.abs(params["positions"] - other).max() > 1e-3


def test_our_own_file_is_read_back(tmp_path, transformer, head):
    variables = join(transformer, head)
    write_safetensors(tmp_path / "a.safetensors", variables)
    again = load_classifier(tmp_path / "a.safetensors", NAME, 3)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))
    arrays = arrays_of(transformer, head)
    assert is_probe(arrays)
    assert to_probe_variables(arrays, NAME, 3, image_size=28)[1]


def test_what_does_not_fit_is_named(transformer, head):
    own = arrays_of(transformer, head)
    with pytest.raises(ValueError, match="probe is for 3 classes, but num_classes is 8"):
        to_probe_variables(own, NAME, 8)
    with pytest.raises(ValueError, match=r"not weights of dinov2_vits14: they are of .* choose vit_tiny_scratch"):
        to_probe_variables(own, "dinov2_vits14", 3)
    with pytest.raises(ValueError, match="multiple of the patch of vit_tiny_scratch, 14, got 32"):
        to_probe_variables(own, NAME, 3, image_size=32)
    with pytest.raises(ValueError, match=r"not weights of a linear probe on vit_tiny_scratch: 1 missing \(bias\)"):
        to_probe_variables({n: a for n, a in own.items() if n != "params/head/bias"}, NAME, 3)
    with pytest.raises(ValueError, match=r"linear probe on vit_tiny_scratch: .*kernel \[5, 3\] instead of \[96, 3\]"):
        to_probe_variables(arrays_of(transformer, head | {"kernel": np.zeros((5, 3), np.float32)}), NAME, 3)
    with pytest.raises(ValueError, match="NaN or infinity in kernel"):
        to_probe_variables(arrays_of(transformer, head | {"kernel": head["kernel"] * np.nan}), NAME, 3)
    with pytest.raises(ValueError, match="without a linear probe for 3 classes"):
        to_variables(arrays_of(transformer), NAME, 3)
    with pytest.raises(ValueError, match="not weights of resnet20: they are a linear probe on a transformer"):
        to_variables(own, "resnet20", 3)


TORCHVISION = {
    r"swin\.": "",
    r"embeddings\.patch_embeddings\.projection": "features.0.0",
    r"embeddings\.norm": "features.0.2",
    r"encoder\.layers\.(\d)\.blocks": lambda m: f"features.{2 * int(m[1]) + 1}",
    r"encoder\.layers\.(\d)\.downsample": lambda m: f"features.{2 * int(m[1]) + 2}",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"attention\.(relative_position_bias\.)?": "attn.",
    r"attn\.o_proj": "attn.proj",
    r"mlp\.fc1": "mlp.0",
    r"mlp\.fc2": "mlp.3",
    r"^layernorm": "norm",
}


def test_a_swin_classifier_of_torchvision(golden, monkeypatch):
    recorded = golden("swin")
    options = {"width": 8, "depths": (2, 2, 3, 1), "heads": (1, 2, 2, 4), "window": 4}
    backbone = FEATURE_BACKBONES["swin_t"]
    monkeypatch.setitem(FEATURE_BACKBONES, "swin_t", backbone._replace(build=partial(backbone.build, **options)))
    state = {k: v for k, v in recorded_state({f"swin/{k}": v for k, v in recorded.items()}, "swin").items()
             if not k.startswith("hidden_states_norms")}  # fmt: skip
    wanted = to_backbone_variables(state, "swin_t")["params"]
    theirs = stacked(renamed(state, TORCHVISION), r"(.*)\.attn\.{}_proj\.(\w+)", r"\1.attn.qkv.\3")
    assert {"features.5.2.mlp.3.weight", "features.6.reduction.weight", "norm.bias"} <= set(theirs)
    theirs |= {"head.weight": np.ones((5, 64), np.float32), "head.bias": np.arange(5, dtype=np.float32)}
    variables, trained = to_probe_variables(theirs, "swin_t", 5, 224)
    params, head = split(variables)
    assert trained
    np.testing.assert_array_equal(head["bias"], np.arange(5))
    assert jax.tree.all(jax.tree.map(np.array_equal, params, wanted))
    assert not to_probe_variables(theirs, "swin_t", 7, 224)[1]  # of other classes: a probe is to be trained
    other = partial(backbone.build, **options | {"window": 7})
    monkeypatch.setitem(FEATURE_BACKBONES, "swin_t", backbone._replace(build=other))
    with pytest.raises(ValueError, match="weights of the classifier swin_t have window 7, got 4"):
        to_probe_variables(theirs, "swin_t", 5, 224)
