"""State dicts of Hugging Face's SwinBackbone as variables of ours, written apart from quantjax.convert."""

from __future__ import annotations

import re

import numpy as np

MODULES = {"layernorm_before": "norm1", "layernorm_after": "norm2", "mlp.fc1": "mlp/in", "mlp.fc2": "mlp/out"}
MODULES |= {"attention.o_proj": "attention/out", "downsample.norm": "norm", "downsample.reduction": "reduction"}


def to_variables(state: dict[str, np.ndarray]) -> dict:
    """Variables of quantjax.extractors.swin.SwinTransformer for a state of SwinBackbone without the last norm."""
    params: dict = {}
    for name, value in state.items():
        if name.startswith("swin.layernorm.") or ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            value = np.concatenate([state[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")])
        *path, leaf = _place(name).split("/")
        node = params
        for key in path:
            node = node.setdefault(key, {})
        if leaf == "weight":
            leaf = "scale" if value.ndim == 1 else "kernel"
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        node[leaf] = value
    return {"params": params}


def _place(name: str) -> str:
    module, leaf = name.rsplit(".", 1)
    if leaf == "relative_position_bias_table":
        module, leaf = module.rsplit(".", 1)[0], "positions"
    found = re.match(r"swin\.encoder\.layers\.(\d)\.(?:blocks\.(\d)\.)?(.*)", module)
    if found is None:
        stage = re.match(r"hidden_states_norms\.stage(\d)", module)
        if stage:
            return f"norm_{int(stage[1]) - 1}/{leaf}"
        return ("patch_norm" if module.endswith("embeddings.norm") else "patches") + f"/{leaf}"
    owner = f"merge_{found[1]}" if found[2] is None else f"stage_{found[1]}_block_{found[2]}"
    inner = MODULES.get(found[3]) or found[3].replace(".", "/").replace("q_proj", "qkv")
    return f"{owner}/{inner}/{leaf}"
