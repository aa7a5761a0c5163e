"""Small networks of every style, whose outputs transformers.npz holds, under names of their own."""

from __future__ import annotations

from functools import partial

from golden.random_weights import random_state

from quantjax.extractors import FEATURE_BACKBONES

SMALL = {"dinov2": "dinov2_vits14", "registers": "dinov2_vits14_reg", "clip": "clip_vitb16"}


def register(monkeypatch) -> None:
    for name, original in SMALL.items():
        backbone = FEATURE_BACKBONES[original]
        build = partial(backbone.build, width=16, depth=3, heads=2, layers=(0, 1, 2), grid=(5, 5))
        monkeypatch.setitem(FEATURE_BACKBONES, name, backbone._replace(build=build, width=16))


def recorded_state(recorded, name):
    """The state dict of which the outputs are recorded."""
    shapes = [tuple(int(n) for n in s.split(",")) for s in recorded[f"{name}/shapes"]]
    return random_state(list(recorded[f"{name}/names"]), shapes)
