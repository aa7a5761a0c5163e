"""Published names of transformers: the same network under every one of them, and errors that say what was given."""

import sys
import zipfile
from functools import partial

import jax
import numpy as np
import pytest
from golden import swin_weights
from golden.renaming import renamed, stacked
from golden.small_transformers import SMALL, recorded_state, register

from quantjax.convert.files import write_safetensors
from quantjax.convert.transformers import backbone_overrides, read_backbone, to_backbone_variables
from quantjax.extractors import FEATURE_BACKBONES

FACEBOOK = {
    r"embeddings\.(cls_token|mask_token|register_tokens)": r"\1",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"encoder\.layer": "blocks",
    r"attention\.o_proj": "attn.proj",
    r"layer_scale(\d)\.lambda1": r"ls\1.gamma",
    r"layernorm": "norm",
}
PUBLISHED = {r"attention\.(\w)\w*_proj": lambda m: "attention." + PARTS[m[1]]}
PARTS = {"q": "attention.query", "k": "attention.key", "v": "attention.value", "o": "output.dense"}
OPENAI = {
    r"embeddings\.class_embedding": "class_embedding",
    r"embeddings\.position_embedding\.weight": "positional_embedding",
    r"embeddings\.patch_embedding": "conv1",
    r"pre_layrnorm": "ln_pre",
    r"post_layernorm": "ln_post",
    r"encoder\.layers": "transformer.resblocks",
    r"self_attn\.out_proj": "attn.out_proj",
    r"layer_norm(\d)": r"ln_\1",
    r"mlp\.fc1": "mlp.c_fc",
    r"mlp\.fc2": "mlp.c_proj",
}

SWIN = {
    r"swin\.": "",
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"embeddings\.norm": "patch_embed.norm",
    r"encoder\.layers": "layers",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"attention\.(relative_position_bias\.)?": "attn.",
    r"attn\.o_proj": "attn.proj",
    r"hidden_states_norms\.stage(\d)": lambda m: f"norm{int(m[1]) - 1}",
    r"^layernorm": "norm",
}
PUBLISHED_SWIN = PUBLISHED | {
    r"relative_position_bias\.": "self.",
    r"attention\.attention\.": "attention.self.",
    r"blocks\.(\d+)\.mlp\.fc1": r"blocks.\1.intermediate.dense",
    r"blocks\.(\d+)\.mlp\.fc2": r"blocks.\1.output.dense",
}


@pytest.fixture
def states(golden, monkeypatch):
    register(monkeypatch)
    recorded = golden("transformers")
    return {name: recorded_state(recorded, name) for name in SMALL}


def same(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_layouts_and_places(states):
    state, params = states["registers"], to_backbone_variables(states["registers"], "registers")["params"]
    kernel = state["embeddings.patch_embeddings.projection.weight"]
    np.testing.assert_array_equal(params["patches"]["kernel"][1, 2, 0, 3], kernel[3, 0, 1, 2])
    layer = "encoder.layer.1.attention."
    qkv = params["block_1"]["attention"]["qkv"]
    np.testing.assert_array_equal(qkv["kernel"][:, 16:32], state[f"{layer}k_proj.weight"].T)
    np.testing.assert_array_equal(qkv["bias"][32:], state[f"{layer}v_proj.bias"])
    positions = state["embeddings.position_embeddings"][0]
    np.testing.assert_array_equal(params["class_position"], positions[:1])
    np.testing.assert_array_equal(params["positions"][2, 3], positions[1 + 2 * 5 + 3])
    np.testing.assert_array_equal(params["registers"], state["embeddings.register_tokens"][0])


@pytest.mark.parametrize("name", ["dinov2", "registers"])
def test_names_of_dinov2(states, name):
    state, wanted = states[name], to_backbone_variables(states[name], name)
    assert same(to_backbone_variables(renamed(state, PUBLISHED), name), wanted)
    wrapped = {f"dinov2.{k}": v for k, v in state.items()} | {"classifier.weight": np.zeros((3, 32), np.float32)}
    assert same(to_backbone_variables(wrapped, name), wanted)
    facebook = stacked(renamed(state, FACEBOOK), r"(.*)\.attention\.{}_proj\.(\w+)", r"\1.attn.qkv.\3")
    assert "blocks.2.attn.qkv.weight" in facebook
    assert same(to_backbone_variables(facebook, name), wanted)
    chunked = {k.replace("blocks.", "blocks.0."): v for k, v in facebook.items()}
    assert same(to_backbone_variables(chunked, name), wanted)


def test_names_of_clip(states):
    state, wanted = states["clip"], to_backbone_variables(states["clip"], "clip")
    text = {"text_model.final_layer_norm.weight": np.ones(4, np.float32), "logit_scale": np.float32(1)}
    both = {f"vision_model.{k}": v for k, v in state.items()} | text
    both["vision_model.embeddings.position_ids"] = np.arange(26)
    assert same(to_backbone_variables(both, "clip"), wanted)
    visual = stacked(renamed(state, OPENAI), r"(.*)\.self_attn\.{}_proj\.(\w+)", r"\1.attn.in_proj_\3")
    assert "transformer.resblocks.0.attn.in_proj_bias" in visual
    assert same(to_backbone_variables(visual, "clip"), wanted)
    # the text half has arrays of the same names and another size
    other = {k: v[..., :8] for k, v in visual.items() if k.startswith("transformer")}
    whole = {f"visual.{k}": v for k, v in visual.items()} | other | {"visual.proj": np.zeros((16, 4), np.float32)}
    assert same(to_backbone_variables(whole, "clip"), wanted)


def test_position_rules_follow_the_source(states):
    facebook = stacked(renamed(states["dinov2"], FACEBOOK), r"(.*)\.attention\.{}_proj\.(\w+)", r"\1.attn.qkv.\3")
    assert backbone_overrides(facebook, "dinov2") == {"grid": (5, 5), "position_rule": "offset"}
    assert backbone_overrides(states["dinov2"], "dinov2") == {"grid": (5, 5), "position_rule": "exact"}
    assert backbone_overrides(states["registers"], "registers")["position_rule"] == "antialiased"
    assert backbone_overrides(states["clip"], "clip")["position_rule"] == "exact"


def test_names_of_timm(states):
    """timm adds the class token's position to the token and keeps none for it, where there are registers."""
    wanted = to_backbone_variables(states["registers"], "registers")["params"]
    state = stacked(renamed(states["registers"], FACEBOOK), r"(.*)\.attention\.{}_proj\.(\w+)", r"\1.attn.qkv.\3")
    del state["mask_token"]
    state["reg_token"] = state.pop("register_tokens")
    state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    state["pos_embed"] = state["pos_embed"][:, 1:]
    params = to_backbone_variables(state, "registers")["params"]
    first = params.pop("class_token") + params.pop("class_position")
    np.testing.assert_array_equal(first, wanted.pop("class_token") + wanted.pop("class_position"))
    assert same(params, wanted)
    assert backbone_overrides(state, "registers") == {"grid": (5, 5), "position_rule": "antialiased"}
    plain = stacked(renamed(states["dinov2"], FACEBOOK), r"(.*)\.attention\.{}_proj\.(\w+)", r"\1.attn.qkv.\3")
    del plain["mask_token"]  # which is all that tells timm's from the authors'
    assert backbone_overrides(plain, "dinov2")["position_rule"] == "antialiased"
    with pytest.raises(ValueError, match=r"DINOv2's kind, patch 14, width 16, depth 3, 4 registers.*choose registers"):
        to_backbone_variables(state, "dinov2")


def test_a_checkpoint_of_training_is_a_backbone_too(states):
    facebook = stacked(renamed(states["dinov2"], FACEBOOK), r"(.*)\.attention\.{}_proj\.(\w+)", r"\1.attn.qkv.\3")
    teacher = {f"backbone.{k}": v for k, v in facebook.items()} | {"dino_head.mlp.0.weight": np.zeros((2, 2))}
    wanted = to_backbone_variables(states["dinov2"], "dinov2")
    assert same(to_backbone_variables({"teacher": teacher}, "dinov2"), wanted)
    assert same(to_backbone_variables({f"module.{k}": v for k, v in states["dinov2"].items()}, "dinov2"), wanted)


def test_files_are_read_back(tmp_path, states):
    wanted = to_backbone_variables(states["dinov2"], "dinov2")
    np.savez(tmp_path / "foreign.npz", **states["dinov2"])
    variables, overrides = read_backbone(tmp_path / "foreign.npz", "dinov2")
    assert same(variables, wanted)
    assert overrides == {"grid": (5, 5), "position_rule": "exact"}
    write_safetensors(tmp_path / "own.safetensors", wanted)
    variables, overrides = read_backbone(str(tmp_path / "own.safetensors"), "dinov2")
    assert same(variables, wanted)
    assert overrides == {"grid": (5, 5)}  # ours carry no rule: it is the backbone's own
    damaged = tmp_path / "cut.safetensors"
    damaged.write_bytes((tmp_path / "own.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.safetensors is damaged"):
        read_backbone(damaged, "dinov2")


def test_another_size_is_named_with_both_sizes(states):
    with pytest.raises(ValueError) as error:
        to_backbone_variables(states["registers"], "dinov2_vitb14")
    for part in (
        "these are not weights of dinov2_vitb14: they are of DINOv2's kind, patch 14, width 16, depth 3, 4 registers,",
        "dinov2_vitb14 is DINOv2's kind, patch 14, width 768, depth 12, 0 registers; choose registers;",
    ):
        assert part in str(error.value)
    cut = {k: v for k, v in states["dinov2"].items() if ".layer.2." not in k}
    with pytest.raises(ValueError, match=r"depth 2, 0 registers, but dinov2 is .*depth 3, .*or the file is cut off"):
        to_backbone_variables(cut, "dinov2")


def test_arrays_that_do_not_fit_are_listed(states):
    state = dict(states["dinov2"])
    state.pop("encoder.layer.1.attention.k_proj.bias")
    state["extra"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError) as error:
        to_backbone_variables(state, "dinov2")
    assert "1 missing (params/block_1/attention/qkv/bias)" in str(error.value)
    assert "unexpected (extra" in str(error.value)
    state = dict(states["dinov2"])
    state["layernorm.bias"] = np.full(16, np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN or infinity in params/norm/bias"):
        to_backbone_variables(state, "dinov2")
    state["embeddings.position_embeddings"] = np.zeros((1, 24, 16), np.float32)
    with pytest.raises(ValueError, match="a square of patches, got 24 rows"):
        to_backbone_variables(state, "dinov2")
    with pytest.raises(ValueError, match=r"no weights of a transformer that is known here.*got conv1\.weight"):
        to_backbone_variables({"conv1.weight": np.zeros(3)}, "dinov2")
    with pytest.raises(ValueError, match="backbone must be one of"):
        to_backbone_variables(states["dinov2"], "dinov3")


class Offline(Exception):
    """Stands in for the errors of huggingface_hub."""


def fake_hub(monkeypatch, fetch):
    """A package of that name whose hf_hub_download is `fetch`."""
    from types import ModuleType, SimpleNamespace

    kinds = ("EntryNotFoundError", "RepositoryNotFoundError", "HFValidationError", "HfHubHTTPError")
    errors = SimpleNamespace(**{kind: type(kind, (Offline,), {}) for kind in kinds})
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (errors.EntryNotFoundError,), {})
    hub = ModuleType("huggingface_hub")
    hub.errors = errors
    hub.hf_hub_download = lambda repository, file, local_files_only=False: fetch(errors, repository, file)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_the_hub(tmp_path, monkeypatch, states):
    np.savez(tmp_path / "a.npz", **states["dinov2"])
    asked = []

    def only_the_second(errors, repository, file):
        asked.append((repository, file))
        if len(asked) == 1:
            raise errors.EntryNotFoundError
        return tmp_path / "a.npz"

    fake_hub(monkeypatch, only_the_second)
    variables, _ = read_backbone("hf:facebook/dinov2-tiny", "dinov2")
    assert same(variables, to_backbone_variables(states["dinov2"], "dinov2"))
    assert asked == [("facebook/dinov2-tiny", f) for f in ("model.safetensors", "pytorch_model.bin")]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("LocalEntryNotFoundError", ConnectionError, "hf:a/b is not in the cache and the .* hub cannot be reached"),
        ("HfHubHTTPError", ConnectionError, "hf:a/b is not in the cache"),
        ("EntryNotFoundError", FileNotFoundError, "hf:a/b holds neither model.safetensors nor pytorch_model.bin"),
        ("RepositoryNotFoundError", FileNotFoundError, "no repository 'a/b' that you may read"),
    ],
)
def test_what_the_hub_may_refuse(monkeypatch, kind, error, message):
    def refuse(errors, repository, file):
        raise getattr(errors, kind)

    fake_hub(monkeypatch, refuse)
    with pytest.raises(error, match=message):
        read_backbone("hf:a/b", "dinov2_vits14")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"hf:a/b needs huggingface_hub: pip install 'quantjax\[hub\]'"):
        read_backbone("hf:a/b", "dinov2_vits14")


@pytest.fixture
def swin(golden, monkeypatch):
    """The state of the recorded Swin, whose network is registered as `swin`."""
    options = {"width": 8, "depths": (2, 2, 3, 1), "heads": (1, 2, 2, 4)}
    backbone = FEATURE_BACKBONES["swin_b"]
    monkeypatch.setitem(FEATURE_BACKBONES, "swin", backbone._replace(build=partial(backbone.build, **options)))
    return recorded_state({f"swin/{k}": v for k, v in golden("swin").items()}, "swin")


def test_names_of_swin(swin):
    wanted = swin_weights.to_variables(swin)  # whose outputs tests/extractors/test_swin.py compares
    assert same(to_backbone_variables(swin, "swin"), wanted)
    assert backbone_overrides(swin, "swin") == {"window": 4, "shift": "always"}
    assert same(to_backbone_variables(renamed(swin, PUBLISHED_SWIN), "swin"), wanted)
    authors = stacked(renamed(swin, SWIN), r"(.*)\.attn\.{}_proj\.(\w+)", r"\1.attn.qkv.\3")
    authors["layers.0.blocks.1.attn_mask"] = np.zeros((4, 16, 16), np.float32)
    assert "layers.2.blocks.1.attn.qkv.bias" in authors
    assert same(to_backbone_variables(authors, "swin"), wanted)
    assert backbone_overrides(authors, "swin")["shift"] == "always"  # a norm at every map: a segmentor's


def test_swin_of_a_classifier_has_one_norm(swin):
    classifier = {k: v for k, v in swin.items() if not k.startswith("hidden_states_norms")}
    params = to_backbone_variables(classifier | {"classifier.bias": np.zeros(3)}, "swin")["params"]
    assert backbone_overrides(classifier, "swin")["shift"] == "larger_maps"
    np.testing.assert_array_equal(params["norm_3"]["scale"], swin["swin.layernorm.weight"])
    np.testing.assert_array_equal(params["norm_1"]["scale"], np.ones(16))
    np.testing.assert_array_equal(params["norm_1"]["bias"], np.zeros(16))
    with pytest.raises(ValueError) as error:
        to_backbone_variables(swin, "dinov2_vits14")
    assert "they are of Swin, patch 4, width 8, depths (2, 2, 3, 1), but dinov2_vits14 is" in str(error.value)
    assert "choose swin;" in str(error.value)


def test_a_compiled_program_is_refused_with_the_way_out(tmp_path):
    """OpenAI publishes CLIP as TorchScript, a zip file with code in it."""
    with zipfile.ZipFile(tmp_path / "ViT.pt", "w") as file:
        file.writestr("ViT/code/__torch__.py", "print('hello')")
    with pytest.raises(ValueError, match=r"is a TorchScript program; .*torch\.jit\.load\(FILE\)\.state_dict\(\)"):
        read_backbone(tmp_path / "ViT.pt", "clip_vitb16")
