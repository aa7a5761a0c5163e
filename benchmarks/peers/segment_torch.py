"""UEM's inlier segmentor in PyTorch: DINOv2 with registers as Hugging Face's transformers run it, decoder, dense head.

Written from Nayal, Shoeb & Güney (2024, arXiv 2409.06424) for parity tests and the speed benchmark. The mixture head
multiplies its squares out, as ours does, so that the comparison is one of programs and not of formulas.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from benchmarks.peers.fpn_torch import FeaturePyramid


class MixtureHead(nn.Module):
    """Class log-densities of normalised features, the best component of each class, through a layer norm."""

    def __init__(self, num_classes: int, dimension: int, components: int):
        super().__init__()
        self.feature_norm, self.class_norm = nn.LayerNorm(dimension), nn.LayerNorm(num_classes)
        self.mean = nn.Parameter(torch.randn(num_classes * components, dimension))
        self.deviation = nn.Parameter(torch.ones(num_classes * components, dimension))
        self.components = components

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, mean = F.normalize(self.feature_norm(x), dim=-1), F.normalize(self.mean, dim=-1)
        precision = self.deviation**-2
        constant = (mean**2 * precision - precision.log()).sum(1) + x.shape[-1] * math.log(2 * math.pi)
        log_density = -0.5 * (x**2 @ precision.T - 2 * x @ (mean * precision).T + constant)
        return self.class_norm(log_density.unflatten(-1, (-1, self.components)).amax(-1))


class Segmentor(nn.Module):
    """Images [B, 3, H, W] -> logits [B, h', w', K] float32.

    `shape` has the sizes of the transformer: width, depth, heads, registers, patch, grid, layers. The head stays in
    float32 when backbone and decoder are brought to another precision.
    """

    def __init__(self, shape: Any, channels: int, token_hidden: int, head: nn.Module):
        super().__init__()
        config = Dinov2WithRegistersConfig(
            hidden_size=shape.width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            num_register_tokens=shape.registers,
            patch_size=shape.patch,
            image_size=shape.grid[0] * shape.patch,
        )
        self.backbone = Dinov2WithRegistersModel(config)
        self.decoder = FeaturePyramid([shape.width] * 4, "plain", channels, token_hidden)
        self.head, self.layers, self.patch, self.first = head, shape.layers, shape.patch, 1 + shape.registers

    def cast(self, dtype: torch.dtype) -> Segmentor:
        self.backbone.to(dtype)
        self.decoder.to(dtype)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        h, w = (n // self.patch for n in images.shape[2:])
        states = self.backbone(images, output_hidden_states=True).hidden_states
        tokens = [self.backbone.layernorm(states[i + 1])[:, self.first :] for i in self.layers]
        # channels come last in memory, which the convolutions keep
        x = self.decoder([t.unflatten(1, (h, w)).permute(0, 3, 1, 2) for t in tokens])
        return self.head(x.permute(0, 2, 3, 1).float())


def build(shape: Any, num_classes: int, channels: int, token_hidden: int, components: int = 0) -> Segmentor:
    """A segmentor in evaluation mode; with `components` the head is a mixture, else linear."""
    head = MixtureHead(num_classes, channels, components) if components else nn.Linear(channels, num_classes)
    return Segmentor(shape, channels, token_hidden, head).eval()
