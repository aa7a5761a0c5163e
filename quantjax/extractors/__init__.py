"""Image classifiers that return logits, features and named maps, and backbones of segmentors that return four maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

from quantjax.documented import show_fields
from quantjax.extractors.densenet import DenseNet
from quantjax.extractors.folding import extract, fold
from quantjax.extractors.layers import layer_statistics
from quantjax.extractors.preprocess import CIFAR, CLIP, ENERGY_OOD, IMAGENET, NONE, standardise
from quantjax.extractors.probe import LinearProbe
from quantjax.extractors.resnet import CifarResNet, ResNet18, ResNet50
from quantjax.extractors.swin import SwinTransformer
from quantjax.extractors.vit import Activation, VisionTransformer
from quantjax.extractors.wrn import WideResNet
from quantjax.types import Preprocessing


class Backbone(NamedTuple):
    """A named architecture: what a flag or a checkpoint refers to."""

    build: Callable[..., Any]
    """build(num_classes, dtype=float32) -> Linen module"""
    feature_dimension: int
    """D"""
    preprocessing: Preprocessing
    """What published weights of this architecture expect"""
    side: int | None = None
    """Pixels, H = W, of the images that published weights are for; None: any"""
    short_side: int | None = None
    """Pixels to which their publishers resize the short side of an image before they cut its centre; None: the side"""


BACKBONES: dict[str, Backbone] = {
    "wrn40_2": Backbone(partial(WideResNet, depth=40, width=2), 128, ENERGY_OOD),
    # small ones for demonstrations on few images, hence without dropout
    "wrn16_2": Backbone(partial(WideResNet, depth=16, width=2, dropout_rate=0.0), 128, ENERGY_OOD),
    "wrn10_1": Backbone(partial(WideResNet, depth=10, width=1, dropout_rate=0.0), 64, ENERGY_OOD),
    "densenet_bc100_12": Backbone(DenseNet, 342, CIFAR),
    "resnet18": Backbone(ResNet18, 512, ENERGY_OOD),
    "resnet50": Backbone(ResNet50, 2048, IMAGENET, side=224, short_side=256),
    **{f"resnet{d}": Backbone(partial(CifarResNet, depth=d), 64, IMAGENET) for d in (20, 32, 44, 56)},
}


class FeatureBackbone(NamedTuple):
    """A named backbone of segmentors: what a flag or a checkpoint refers to."""

    build: Callable[..., Any]
    """build(dtype=float32, **overrides) -> Linen module, images -> FeatureMaps of four maps"""
    kind: Literal["plain", "pyramid"]
    """Maps of one size, or each of half the size of the one before"""
    width: int
    """C of the last map"""
    stride: int
    """Pixels per cell of the last map; H and W must be multiples of it for plain ones"""
    preprocessing: Preprocessing
    """What published weights of this architecture expect"""


_SMALL, _BASE, _LARGE = (384, 12, 6), (768, 12, 12), (1024, 24, 16)  # width, depth, heads


def _vit(size: tuple[int, int, int], preset: Preprocessing = IMAGENET, **options: Any) -> FeatureBackbone:
    """A plain backbone; of 12 or 24 blocks it returns the four that DINOv2's authors take for segmentation."""
    width, depth, heads = size
    options = {"patch": 14, "layers": (4, 11, 17, 23) if depth == 24 else (1, 4, 8, 11), **options}
    build = partial(VisionTransformer, width=width, depth=depth, heads=heads, **options)
    return FeatureBackbone(build, "plain", width, options["patch"], preset)


def _dinov2(size: tuple[int, int, int], registers: int = 0) -> FeatureBackbone:
    return _vit(size, registers=registers, position_rule="antialiased" if registers else "exact")


def _clip(size: tuple[int, int, int], patch: int, activation: Activation = "quick_gelu") -> FeatureBackbone:
    grid = (224 // patch, 224 // patch)
    return _vit(size, CLIP, patch=patch, grid=grid, style="clip", scale_branches=False, activation=activation)


def _supervised(size: tuple[int, int, int]) -> FeatureBackbone:
    # maps of every third block: the middle ones tell objects, the last ones classes
    return _vit(size, patch=16, grid=(14, 14), layers=(2, 5, 8, 11), scale_branches=False, position_rule="antialiased")


FEATURE_BACKBONES: dict[str, FeatureBackbone] = {
    "dinov2_vits14": _dinov2(_SMALL),
    "dinov2_vitb14": _dinov2(_BASE),
    "dinov2_vitl14": _dinov2(_LARGE),
    "dinov2_vits14_reg": _dinov2(_SMALL, registers=4),
    "dinov2_vitb14_reg": _dinov2(_BASE, registers=4),
    "dinov2_vitl14_reg": _dinov2(_LARGE, registers=4),
    "clip_vitb16": _clip(_BASE, 16),
    "clip_vitl14": _clip(_LARGE, 14),
    # the same trained with GELU, as most weights of OpenCLIP
    "clip_vitb16_gelu": _clip(_BASE, 16, "gelu"),
    "clip_vitl14_gelu": _clip(_LARGE, 14, "gelu"),
    # trained with labels on ImageNet: timm's, DeiT's and torchvision's, without gains of branches
    "deit_tiny16": _supervised((192, 12, 3)),
    "deit_small16": _supervised(_SMALL),
    "vit_base16": _supervised(_BASE),
    "swin_b": FeatureBackbone(SwinTransformer, "pyramid", 1024, 32, IMAGENET),
    "swin_t": FeatureBackbone(
        partial(SwinTransformer, width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7),
        "pyramid",
        768,
        32,
        IMAGENET,
    ),
    # small ones to be trained with the decoder, where no pretrained weights are at hand
    "vit_small_scratch": _vit((192, 6, 3), layers=(1, 2, 4, 5), grid=(17, 23), scale_branches=False),
    "vit_tiny_scratch": _vit((96, 4, 3), layers=(0, 1, 2, 3), grid=(8, 16), scale_branches=False),
}

# no published weights: they are as large as whoever trains them wants
SCRATCH = ("vit_small_scratch", "vit_tiny_scratch")
# transformers whose published weights hold a linear layer on the summary already, and torchvision's short side for them
SUPERVISED = {"deit_tiny16": 256, "deit_small16": 256, "vit_base16": 256, "swin_t": 232}
# linear probes on the summary of frozen transformers, mostly their class token, under the transformer's name
PROBES = (*(name for name, backbone in FEATURE_BACKBONES.items() if backbone.kind == "plain"), "swin_t")


def _probe(of: FeatureBackbone) -> Backbone:
    network = partial(LinearProbe, build=of.build, patch=of.stride, positions=of.kind == "plain")
    return Backbone(network, of.width, of.preprocessing)


BACKBONES |= {name: _probe(FEATURE_BACKBONES[name]) for name in PROBES}
BACKBONES |= {name: BACKBONES[name]._replace(side=224) for name in PROBES if name not in SCRATCH}
BACKBONES |= {name: BACKBONES[name]._replace(short_side=side) for name, side in SUPERVISED.items()}

__all__ = [
    "BACKBONES",
    "CIFAR",
    "CLIP",
    "ENERGY_OOD",
    "FEATURE_BACKBONES",
    "IMAGENET",
    "NONE",
    "PROBES",
    "SCRATCH",
    "SUPERVISED",
    "Backbone",
    "CifarResNet",
    "DenseNet",
    "FeatureBackbone",
    "LinearProbe",
    "ResNet18",
    "ResNet50",
    "SwinTransformer",
    "VisionTransformer",
    "WideResNet",
    "extract",
    "fold",
    "layer_statistics",
    "standardise",
]

show_fields(__name__)
