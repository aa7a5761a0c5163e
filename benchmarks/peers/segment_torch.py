"""UEM's inlier segmentor in PyTorch: DINOv2 with registers as Hugging Face's transformers run it, decoder, dense head.

Written from Nayal, Shoeb & Güney (2024, arXiv 2409.06424) for parity tests and the speed benchmark. The mixture head
multiplies its squares out, as ours does, so that the comparison is one of programs and not of formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
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
    """Images [B, 3, H, W] -> logits [B, h', w', K] float32; with an estimator also u [B, h w, 2].

    `shape` has the sizes of the transformer: width, depth, heads, registers, patch, grid, layers. Head and estimator
    stay in float32 when backbone and decoder are brought to another precision.
    """

    def __init__(self, shape: Any, channels: int, token_hidden: int, head: nn.Module, estimator: nn.Module | None):
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
        self.head, self.estimator = head, estimator
        self.layers, self.patch, self.first = shape.layers, shape.patch, 1 + shape.registers

    def cast(self, dtype: torch.dtype) -> Segmentor:
        self.backbone.to(dtype)
        self.decoder.to(dtype)
        return self

    def tokens(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Patch tokens [B, h w, C] after the chosen blocks, each through the final norm."""
        x, found = self.backbone.embeddings(images), []
        for i, layer in enumerate(self.backbone.encoder.layer):
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x  # as some versions of transformers have it
            if i in self.layers:
                found.append(self.backbone.layernorm(x)[:, self.first :])
        return found

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        h, w = (n // self.patch for n in images.shape[2:])
        tokens = self.tokens(images)
        # channels come last in memory, which the convolutions keep
        x = self.decoder([t.unflatten(1, (h, w)).permute(0, 3, 1, 2) for t in tokens])
        logits = self.head(x.permute(0, 2, 3, 1).float())
        return logits if self.estimator is None else (logits, self.estimator(tokens[-1].float()))


def build(
    shape: Any, num_classes: int, channels: int, token_hidden: int, components: int = 0, widths: Sequence[int] = ()
) -> Segmentor:
    """A segmentor in evaluation mode; with `components` the head is a mixture, else linear.

    widths: those of the estimator's projector, which a linear layer to two values follows; none means no estimator.
    """
    head = MixtureHead(num_classes, channels, components) if components else nn.Linear(channels, num_classes)
    return Segmentor(shape, channels, token_hidden, head, estimator(shape.width, widths) if widths else None).eval()


def estimator(width: int, widths: Sequence[int]) -> nn.Sequential:
    """Projector with ReLU between its layers, and the linear head on its result."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([width, *widths]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1], nn.Linear(widths[-1], 2))
