"""Whole flows as papers describe them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from quantjax.checks import check_choice
from quantjax.flows.base import Flow, around, chain, in_float32, stack
from quantjax.flows.coupling import gin, glow, nice, realnvp
from quantjax.flows.deferred import deferred
from quantjax.flows.layers import actnorm, invertible_linear, permutation

COUPLINGS: dict[str, Callable[..., Flow]] = {"glow": glow, "realnvp": realnvp, "gin": gin, "nice": nice}
MIXINGS = ("linear", "permutation")
STARTS = ("normalised", "identity")


def seeded_permutations(dimension: int, blocks: int) -> np.ndarray:
    """Fixed permutations [blocks, D] int32 of QuantOD's released program, block k under its own seed."""
    seeds = [(k // 2) * blocks + k % 2 for k in range(blocks)]
    orders = [np.random.RandomState(seed).permutation(dimension) for seed in seeds]
    return np.stack(orders).astype(np.int32)


def quantod(
    kind: str = "glow",
    *,
    dimension: int,
    blocks: int = 8,
    layers: int = 2,
    width: int = 512,
    dropout: float = 0.3,
    clamp: float = 3.0,
    mixing: str = "linear",
    permutations: np.ndarray | None = None,
    start: str = "normalised",
    components: int | None = None,
    dtype: Any = jnp.float32,
) -> Flow:
    """Build the flow of QuantOD on D = `dimension` features: `blocks` equal blocks, parameters stacked [blocks, ...].

    kind: glow, realnvp, gin or nice (the coupling). mixing: "linear" is ActNorm, coupling, learned matrix, as the
    paper says; "permutation" is ActNorm, fixed permutation, coupling, as its released program does, with
    `permutations` [blocks, D] in place of the seeded ones if given. layers: each network has layers + 2 linear layers.
    start: "normalised" as published; "identity" has no ActNorm, and couplings that begin as the identity, so that the
    flow's density begins as its latent's. components: normals of the latent, see base.around; None: one, fixed.
    Raises ValueError on an unknown kind, mixing or start, blocks < 1, layers < 0, width < 1, components < 1, dimension
    < 2, dropout outside [0, 1), permutations that are none.
    Source: Taghikhah et al., "Quantile-based maximum likelihood training for outlier detection", AAAI 2024.
    """
    check_choice("kind", kind, COUPLINGS)
    check_choice("mixing", mixing, MIXINGS)
    check_choice("start", start, STARTS)
    for name, value, least in (("blocks", blocks, 1), ("layers", layers, 0), ("width", width, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    identity = start == "identity"
    options = {"layers": layers, "width": width, "dropout": dropout, "clamp": clamp, "identity": identity}
    coupling = COUPLINGS[kind](dimension, **options, dtype=dtype)
    first = {} if identity else {"actnorm": actnorm()}
    if mixing == "linear":
        if permutations is not None:
            raise ValueError('permutations are used with mixing="permutation" only, got mixing="linear"')
        flow = stack(lambda _: chain(**first, coupling=coupling, linear=invertible_linear()), (), blocks)
    else:
        orders = seeded_permutations(dimension, blocks) if permutations is None else np.asarray(permutations, np.int32)
        _check_permutations(orders, blocks, dimension)
        flow = stack(lambda o: chain(**first, permutation=permutation(o), coupling=coupling), orders, blocks)
    flow = in_float32(flow._replace(reverse_mode=deferred(flow.forward)))
    return flow if components is None else around(flow, components)


def _check_permutations(orders: np.ndarray, blocks: int, dimension: int) -> None:
    if orders.shape != (blocks, dimension):
        raise ValueError(f"permutations must have shape [{blocks}, {dimension}], got {list(orders.shape)}")
    if not (np.sort(orders, axis=1) == np.arange(dimension)[None, :]).all():
        raise ValueError(f"every row of permutations must hold 0..{dimension - 1} once each")
