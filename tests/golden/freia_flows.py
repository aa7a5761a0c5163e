"""The reference preset's flow in FrEIA, for goldens and live comparisons."""

from __future__ import annotations

from itertools import pairwise

import FrEIA.framework as framework
import FrEIA.modules as modules
from torch import nn

KINDS = {
    "glow": modules.GLOWCouplingBlock,
    "realnvp": modules.RNVPCouplingBlock,
    "gin": modules.GINCouplingBlock,
    "nice": modules.NICECouplingBlock,
}


def build(kind: str, dimension: int, blocks: int, layers: int, width: int, clamp: float = 3.0, dropout: float = 0.3):
    """ActNorm, seeded permutation and coupling, `blocks` times; networks of layers + 2 linear layers."""

    def network(inputs: int, outputs: int) -> nn.Sequential:
        sizes, stages = [inputs] + [width] * (layers + 1), []
        for fan_in, fan_out in pairwise(sizes):
            stages += [nn.Linear(fan_in, fan_out), nn.Dropout(dropout), nn.ReLU()]
        return nn.Sequential(*stages, nn.Linear(width, outputs))

    flow = framework.SequenceINN(dimension)
    options = {} if kind == "nice" else {"clamp": clamp}
    for k in range(blocks):
        flow.append(modules.ActNorm)
        flow.append(modules.PermuteRandom, seed=(k // 2) * blocks + k % 2)
        flow.append(KINDS[kind], subnet_constructor=network, **options)
    return flow
