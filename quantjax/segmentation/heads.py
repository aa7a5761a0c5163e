"""Discriminative and generative heads behind one signature, so that no stage asks which one it trains.

The variants of the paper (Nayal, Shoeb, Güney 2024) combine them: D = linear logits, G = a Gaussian mixture per class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from quantjax.heads import gmm
from quantjax.heads.linear import LinearHead
from quantjax.rows import IGNORED
from quantjax.types import Array, PyTree


class Learned(NamedTuple):
    """What a head learned from labels outside the optimiser."""

    state: PyTree
    """Of the head, after this batch."""
    contrast: Array | None
    """[B, h, w] nats per pixel, 0 where unlabelled; None for a head without contrast loss"""
    labelled: Array | None
    """[B, h, w] bool, the pixels that count"""


class DenseHead(NamedTuple):
    """Pure functions of a per-pixel head; params are trained, state is not and may be ()."""

    init: Callable[..., tuple[PyTree, PyTree]]
    """(key, dimension D) -> (params, state)"""
    forward: Callable[..., tuple[Array, Any]]
    """(params, state, x [B, h, w, D]) -> (logits [B, h, w, K], output)"""
    learn: Callable[..., Learned]
    """(state, output, labels [B, h, w] uint8, axis_name=None) -> Learned"""


def linear_head(num_classes: int) -> DenseHead:
    """One linear layer."""
    module = LinearHead(num_classes)

    def init(key: Array, dimension: int) -> tuple[PyTree, PyTree]:
        return module.init(key, jnp.zeros((1, 1, 1, dimension), jnp.float32))["params"], ()

    def forward(params: PyTree, state: PyTree, x: Array) -> tuple[Array, Any]:
        del state
        logits: Any = module.apply({"params": params}, x)
        return logits, None

    def learn(state: PyTree, output: Any, labels: Array, axis_name: str | None = None) -> Learned:
        del output, labels, axis_name
        return Learned(state, None, None)

    return DenseHead(init, forward, learn)


def gmm_head(settings: gmm.GmmSettings) -> DenseHead:
    """A mixture of Gaussians per class that Sinkhorn EM fits (GMMSeg, Liang et al., NeurIPS 2022)."""

    def init(key: Array, dimension: int) -> tuple[PyTree, PyTree]:
        if dimension != settings.dimension:
            raise ValueError(f"the mixture is of dimension {settings.dimension}, the features have {dimension}")
        return gmm.init(key, settings)

    def forward(params: PyTree, state: PyTree, x: Array) -> tuple[Array, Any]:
        output = gmm.forward(settings, params, state, x)
        return output.logits, output

    def learn(state: PyTree, output: Any, labels: Array, axis_name: str | None = None) -> Learned:
        new_state, targets = gmm.update(settings, state, output, labels, axis_name)
        return Learned(new_state, gmm.contrast(output, targets), targets != IGNORED)

    return DenseHead(init, forward, learn)


def without_memory(head: PyTree) -> PyTree:
    """Variables of a head that learns no more: means and deviations stay, the memory bank, most of the bytes, goes."""
    state = head["state"]
    if not isinstance(state, gmm.GmmState):
        return head
    empty: Any = np.zeros((len(state.pointer), 0, state.mean.shape[-1]), np.float32)
    return head | {"state": state._replace(bank=empty)}
