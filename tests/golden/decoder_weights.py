"""State dicts of the PyTorch feature pyramid as variables of ours; needs no torch."""

from __future__ import annotations

import numpy as np


def to_variables(state: dict[str, np.ndarray], kind: str = "plain") -> dict:
    """Variables of quantjax.extractors.fpn.FeaturePyramid for a state of benchmarks/peers/fpn_torch.py."""
    variables: dict = {"params": {}, "batch_stats": {}}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        path, leaf = _place(name.split("."), kind)
        running = leaf in ("running_mean", "running_var")
        node = variables["batch_stats" if running else "params"]
        for key in path:
            node = node.setdefault(key, {})
        leaf, value = _leaf(leaf, value, path[-1])
        node[leaf] = value
    return variables


def _place(parts: list[str], kind: str) -> tuple[list[str], str]:
    *path, leaf = parts
    room, *rest = path
    if room in ("tokens1", "tokens2"):
        return path, leaf
    if room == "levels":
        layers = {"double1a": ["first_double"], "norm1a": ["first_norm"]}
        return layers.get(rest[0]) or [f"level{i}" for i in rest[0][6:7]] + ["double"], leaf
    level = int(rest[0]) + 1
    if room == "heads":
        return [f"head{level}", f"{rest[2]}{rest[1]}"], leaf
    plain = room == "laterals" and level < 3 and kind == "plain"
    return [f"level{level}", "lateral"] if plain else [f"{room[:-1]}{level}"], leaf


def _leaf(name: str, value: np.ndarray, owner: str) -> tuple[str, np.ndarray]:
    value = np.asarray(value)
    if name.startswith("running_"):
        return name.removeprefix("running_"), value
    if value.ndim == 1:
        return ("bias" if name == "bias" else "scale"), value
    if owner in ("double", "first_double"):
        return "kernel", value.transpose(0, 2, 3, 1)  # [C, F, 2, 2]
    if value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)
        return "kernel", value[0, 0] if owner.startswith("lateral") else value
    return "kernel", value.T
