"""The feature pyramid decoder of UEM in PyTorch, NCHW, for goldens, parity tests and the speed benchmark.

Written from the description in Nayal, Shoeb & Güney (2024, arXiv 2409.06424) and the layer list of the authors' code;
tests/golden/decoder_weights.py turns its state dict into variables of quantjax.extractors.fpn.FeaturePyramid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class Unit(nn.Module):
    """3x3 convolution without bias, batch norm, ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)))


class PlainLevels(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.double1a, self.double1b, self.double2 = (nn.ConvTranspose2d(width, width, 2, 2) for _ in range(3))
        self.norm1a = nn.BatchNorm2d(width)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        finest = self.double1b(F.gelu(self.norm1a(self.double1a(maps[0]))))
        return [finest, self.double2(maps[1]), maps[2], F.max_pool2d(maps[3], 2, 2)]


class FeaturePyramid(nn.Module):
    """Four maps [B, C_i, h_i, w_i] -> [B, channels, h', w']; `widths` are the C_i; kind "plain" or "pyramid"."""

    def __init__(self, widths: Sequence[int], kind: str = "plain", channels: int = 256, token_hidden: int = 512):
        super().__init__()
        plain = kind == "plain"
        self.levels = PlainLevels(widths[0]) if plain else None
        if plain:
            self.tokens1, self.tokens2 = nn.Linear(widths[3], token_hidden), nn.Linear(token_hidden, channels)
        self.norms = nn.ModuleList(nn.GroupNorm(1, w) for w in widths)
        inputs = [w + channels * (plain and i == 2) for i, w in enumerate(widths)]
        self.laterals = nn.ModuleList(nn.Conv2d(w, channels, 1) for w in inputs)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        self.heads = nn.ModuleList(nn.ModuleList(Unit(channels) for _ in range(max(i, 1))) for i in range(4))

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        levels = [norm(x) for norm, x in zip(self.norms, maps, strict=True)]
        if self.levels:
            levels = self.levels(levels)
            tokens = self.tokens2(F.relu(self.tokens1(maps[3].permute(0, 2, 3, 1))))
            levels[2] = torch.cat([levels[2], tokens.permute(0, 3, 1, 2)], 1)
        levels = [lateral(x) for lateral, x in zip(self.laterals, levels, strict=True)]
        for i in (2, 1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[2:], mode="nearest")
        levels = [output(x) for output, x in zip(self.outputs, levels, strict=True)]
        total = self.heads[0][0](levels[0])
        for x, units in zip(levels[1:], self.heads[1:], strict=True):
            for unit in units:
                x = F.interpolate(unit(x), scale_factor=2, mode="bilinear", align_corners=False)
            total = total + F.interpolate(x, size=total.shape[2:], mode="bilinear", align_corners=True)
        return total
