"""The names that published vision transformers give their arrays, and ours for them.

A table maps patterns of whole names without ".weight" / ".bias" to our module, or to our array where a name has no such
ending. "@0", "@1", "@2" mark queries, keys and values that are stored apart and joined here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from quantjax.extractors.positions import PositionRule

NO_PREFIX = r"(?!)"  # matches nothing
CLASSIFIER_NORM = "classifier_norm"  # Swin's last norm where there is no head of segmentation


class Family(NamedTuple):
    """One way to name the arrays of a transformer."""

    mark: str
    """Pattern that only names of this family hold"""
    prefix: str
    """Pattern of what may stand before the names; names without it are then of another network"""
    table: Mapping[str, str]
    ignored: str
    """Pattern of names that the network has no use for"""
    rule: PositionRule | None = "exact"
    """How this source resizes position embeddings without registers"""


def _parts(theirs: Iterable[str], ours: str) -> dict[str, str]:
    return {pattern: f"{ours}@{i}" for i, pattern in enumerate(theirs)}


FACEBOOK = Family(
    r"^(backbone\.)?blocks\.\d+\.(\d+\.)?attn\.qkv\.weight$",
    r"backbone\.",
    {
        r"cls_token": "class_token",
        r"pos_embed": "positions",
        r"register_tokens": "registers",
        r"patch_embed\.proj": "patches",
        r"blocks\.(?:\d+\.)?(\d+)\.norm(\d)": r"block_\1/norm\2",
        r"blocks\.(?:\d+\.)?(\d+)\.attn\.qkv": r"block_\1/attention/qkv",
        r"blocks\.(?:\d+\.)?(\d+)\.attn\.proj": r"block_\1/attention/out",
        r"blocks\.(?:\d+\.)?(\d+)\.ls(\d)\.gamma": r"block_\1/scale\2",
        r"blocks\.(?:\d+\.)?(\d+)\.mlp\.fc1": r"block_\1/mlp/in",
        r"blocks\.(?:\d+\.)?(\d+)\.mlp\.fc2": r"block_\1/mlp/out",
        r"norm": "norm",
    },
    r"mask_token|head\..*",
    "offset",
)


def _hugging_face(layer: str) -> dict[str, str]:
    """What its DINOv2 and its ViT name alike; `layer` stands before the names of a block."""
    return {
        r"embeddings\.cls_token": "class_token",
        r"embeddings\.position_embeddings": "positions",
        r"embeddings\.patch_embeddings\.projection": "patches",
        **_parts(
            (layer + rf"attention\.(?:attention\.{n}|{n[0]}_proj)" for n in ("query", "key", "value")),
            r"block_\1/attention/qkv",
        ),
        layer + r"attention\.(?:output\.dense|o_proj)": r"block_\1/attention/out",
        r"layernorm": "norm",
    }


_LAYER = r"encoder\.layer\.(\d+)\."
HUGGING_FACE = Family(
    r"embeddings\.cls_token$",
    r"(dinov2|dinov2_with_registers)\.",
    {
        **_hugging_face(_LAYER),
        r"embeddings\.register_tokens": "registers",
        _LAYER + r"norm(\d)": r"block_\1/norm\2",
        _LAYER + r"layer_scale(\d)\.lambda1": r"block_\1/scale\2",
        _LAYER + r"mlp\.fc1": r"block_\1/mlp/in",
        _LAYER + r"mlp\.fc2": r"block_\1/mlp/out",
    },
    r"embeddings\.mask_token|classifier\..*",
)

# ViT and DeiT without distillation
_LAYER = r"(?:encoder\.layer|layers)\.(\d+)\."
HUGGING_FACE_VIT = Family(
    r"(encoder\.layer|layers)\.0\.layernorm_before\.weight$",
    r"vit\.",
    {
        **_hugging_face(_LAYER),
        _LAYER + "layernorm_before": r"block_\1/norm1",
        _LAYER + "layernorm_after": r"block_\1/norm2",
        _LAYER + r"(?:intermediate\.dense|mlp\.fc1)": r"block_\1/mlp/in",
        _LAYER + r"(?:output\.dense|mlp\.fc2)": r"block_\1/mlp/out",
    },
    r"embeddings\.mask_token|pooler\..*|classifier\..*",
)

_LAYER = r"encoder\.layers\.encoder_layer_(\d+)\."
TORCHVISION_VIT = Family(
    r"^encoder\.pos_embedding$",
    NO_PREFIX,
    {
        r"class_token": "class_token",
        r"encoder\.pos_embedding": "positions",
        r"conv_proj": "patches",
        _LAYER + r"ln_(\d)": r"block_\1/norm\2",
        _LAYER + r"self_attention\.in_proj_(weight|bias)": r"block_\1/attention/qkv.\2",
        _LAYER + r"self_attention\.out_proj": r"block_\1/attention/out",
        _LAYER + r"mlp\.(?:0|linear_1)": r"block_\1/mlp/in",
        _LAYER + r"mlp\.(?:3|linear_2)": r"block_\1/mlp/out",
        r"encoder\.ln": "norm",
    },
    r"heads\..*",
    "antialiased",  # timm's rule for the same weights; their authors' aligns corners
)

_LAYER = r"encoder\.layers\.(\d+)\."
HUGGING_FACE_CLIP = Family(
    r"embeddings\.class_embedding$",
    r"(clip\.)?vision_model\.",
    {
        r"embeddings\.class_embedding": "class_token",
        r"embeddings\.position_embedding\.weight": "positions",
        r"embeddings\.patch_embedding": "patches",
        r"pre_layrnorm": "pre_norm",
        _LAYER + r"layer_norm(\d)": r"block_\1/norm\2",
        **_parts((_LAYER + rf"self_attn\.{n}_proj" for n in "qkv"), r"block_\1/attention/qkv"),
        _LAYER + r"self_attn\.out_proj": r"block_\1/attention/out",
        _LAYER + r"mlp\.fc1": r"block_\1/mlp/in",
        _LAYER + r"mlp\.fc2": r"block_\1/mlp/out",
        r"post_layernorm": "norm",
    },
    r"embeddings\.position_ids",
)

_LAYER = r"transformer\.resblocks\.(\d+)\."
OPENAI = Family(
    r"^(visual\.)?class_embedding$",
    r"visual\.",
    {
        r"class_embedding": "class_token",
        r"positional_embedding": "positions",
        r"conv1": "patches",
        r"ln_pre": "pre_norm",
        _LAYER + r"ln_(\d)": r"block_\1/norm\2",
        _LAYER + r"attn\.in_proj_(weight|bias)": r"block_\1/attention/qkv.\2",
        _LAYER + r"attn\.out_proj": r"block_\1/attention/out",
        _LAYER + r"mlp\.c_fc": r"block_\1/mlp/in",
        _LAYER + r"mlp\.c_proj": r"block_\1/mlp/out",
        r"ln_post": "norm",
    },
    r"proj",
)

_PREFIX = r"(?:backbone\.)?"
_BLOCK = _PREFIX + r"layers\.(\d+)\.blocks\.(\d+)\."
_OURS = r"stage_\1_block_\2/"
MICROSOFT_SWIN = Family(
    r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table$",
    NO_PREFIX,
    {
        _PREFIX + r"patch_embed\.proj": "patches",
        _PREFIX + r"patch_embed\.norm": "patch_norm",
        _BLOCK + r"norm(\d)": _OURS + r"norm\3",
        _BLOCK + r"attn\.relative_position_bias_table": _OURS + "attention/positions",
        _BLOCK + r"attn\.qkv": _OURS + "attention/qkv",
        _BLOCK + r"attn\.proj": _OURS + "attention/out",
        _BLOCK + r"mlp\.fc1": _OURS + "mlp/in",
        _BLOCK + r"mlp\.fc2": _OURS + "mlp/out",
        _PREFIX + r"layers\.(\d+)\.downsample\.(norm|reduction)": r"merge_\1/\2",
        _PREFIX + r"norm(\d)": r"norm_\1",
        r"norm": CLASSIFIER_NORM,
    },
    r"head\..*|.*\.relative_position_index|.*\.attn_mask",
    None,
)

TORCHVISION_SWIN = Family(
    r"^features\.1\.0\.attn\.relative_position_bias_table$",
    NO_PREFIX,
    {
        r"features\.0\.0": "patches",
        r"features\.0\.2": "patch_norm",
        **{
            rf"features\.{2 * stage + 1}\.(\d+)\.{theirs}": rf"stage_{stage}_block_\1/{ours}"
            for stage in range(4)
            for theirs, ours in {
                r"norm(\d)": r"norm\2",
                r"attn\.relative_position_bias_table": "attention/positions",
                r"attn\.qkv": "attention/qkv",
                r"attn\.proj": "attention/out",
                r"mlp\.0": "mlp/in",
                r"mlp\.3": "mlp/out",
            }.items()
        },
        **{rf"features\.{2 * i + 2}\.(norm|reduction)": rf"merge_{i}/\1" for i in range(3)},
        r"norm": CLASSIFIER_NORM,
    },
    r"head\..*|.*\.relative_position_index",
    None,
)

_PREFIX = r"(?:swin\.)?"
_BLOCK = _PREFIX + r"encoder\.layers\.(\d+)\.blocks\.(\d+)\."
HUGGING_FACE_SWIN = Family(
    r"encoder\.layers\.0\.blocks\.0\.attention\..*relative_position_bias_table$",
    NO_PREFIX,
    {
        _PREFIX + r"embeddings\.patch_embeddings\.projection": "patches",
        _PREFIX + r"embeddings\.norm": "patch_norm",
        _BLOCK + r"layernorm_before": _OURS + "norm1",
        _BLOCK + r"layernorm_after": _OURS + "norm2",
        _BLOCK + r"attention\.(?:self|relative_position_bias)\.relative_position_bias_table": _OURS
        + "attention/positions",
        **_parts(
            (_BLOCK + rf"attention\.(?:self\.{n}|{n[0]}_proj)" for n in ("query", "key", "value")),
            _OURS + "attention/qkv",
        ),
        _BLOCK + r"attention\.(?:output\.dense|o_proj)": _OURS + "attention/out",
        _BLOCK + r"(?:intermediate\.dense|mlp\.fc1)": _OURS + "mlp/in",
        _BLOCK + r"(?:output\.dense|mlp\.fc2)": _OURS + "mlp/out",
        _PREFIX + r"encoder\.layers\.(\d+)\.downsample\.(norm|reduction)": r"merge_\1/\2",
        **{rf"hidden_states_norms\.stage{i + 1}": f"norm_{i}" for i in range(4)},
        _PREFIX + r"layernorm": CLASSIFIER_NORM,
    },
    r"classifier\..*|.*\.relative_position_index",
    None,
)

# DINOv2 with registers in timm: neither class token nor registers have a position, and positions are antialiased
TIMM = FACEBOOK._replace(
    mark=r"(^|\.)reg_token$", table={**FACEBOOK.table, r"reg_token": "registers"}, rule="antialiased"
)

FAMILIES = (
    TIMM, FACEBOOK, TORCHVISION_VIT, HUGGING_FACE_SWIN, HUGGING_FACE_VIT, HUGGING_FACE, HUGGING_FACE_CLIP, OPENAI,
    MICROSOFT_SWIN, TORCHVISION_SWIN,
)  # fmt: skip


def find_family(names: list[str]) -> Family | None:
    """The family whose mark one of the names holds.

    timm names DINOv2 without registers as the authors do, but leaves out the mask token and has its own position rule.
    """
    found = next((f for f in FAMILIES if any(re.search(f.mark, name) for name in names)), None)
    if found is FACEBOOK and not any(name.endswith("mask_token") for name in names):
        return FACEBOOK._replace(rule=TIMM.rule)
    return found


def own_part(state_dict: Mapping[str, np.ndarray], family: Family) -> dict[str, np.ndarray]:
    """The arrays behind the family's prefix, without it, e.g. the visual half of CLIP; all of them if none has it."""
    matches = {name: re.match(family.prefix, name) for name in state_dict}
    behind = {name[match.end() :]: state_dict[name] for name, match in matches.items() if match}
    return behind or dict(state_dict)


def our_name(name: str, family: Family) -> str | None:
    """A foreign name -> our module and ending, e.g. "block_0/norm1.weight"; "" if of no use, None if unknown."""
    if re.fullmatch(family.ignored, name):
        return ""
    stem, _, ending = name.rpartition(".")
    for whole, tail in ((name, ""), (stem, f".{ending}")):
        for theirs, ours in family.table.items():
            match = re.fullmatch(theirs, whole)
            if match and tail in ("", ".weight", ".bias"):
                return match.expand(ours) + tail
    return None
