"""Image classifiers that return logits, penultimate features and named maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from quantjax.extractors.inference import extract, fold
from quantjax.extractors.preprocess import ENERGY_OOD, IMAGENET, NONE, standardise
from quantjax.extractors.resnet import CifarResNet, ResNet18
from quantjax.extractors.wrn import WideResNet
from quantjax.types import Preprocessing


class Backbone(NamedTuple):
    """A named architecture: what a flag or a checkpoint refers to."""

    build: Callable[..., Any]  # build(num_classes, dtype=float32) -> Linen module
    feature_dimension: int  # D
    preprocessing: Preprocessing  # what published weights of this architecture expect


BACKBONES: dict[str, Backbone] = {
    "wrn40_2": Backbone(partial(WideResNet, depth=40, width=2), 128, ENERGY_OOD),
    # small ones for demonstrations on few images, hence without dropout
    "wrn16_2": Backbone(partial(WideResNet, depth=16, width=2, dropout_rate=0.0), 128, ENERGY_OOD),
    "wrn10_1": Backbone(partial(WideResNet, depth=10, width=1, dropout_rate=0.0), 64, ENERGY_OOD),
    "resnet18": Backbone(ResNet18, 512, ENERGY_OOD),
    **{f"resnet{d}": Backbone(partial(CifarResNet, depth=d), 64, IMAGENET) for d in (20, 32, 44, 56)},
}

__all__ = [
    "BACKBONES",
    "ENERGY_OOD",
    "IMAGENET",
    "NONE",
    "Backbone",
    "CifarResNet",
    "ResNet18",
    "WideResNet",
    "extract",
    "fold",
    "standardise",
]
