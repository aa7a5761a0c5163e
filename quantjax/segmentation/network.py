"""Inlier segmentor and unknown estimation module as pure functions (Nayal, Shoeb, Güney 2024, arXiv 2409.06424).

    image -> backbone -> maps -> decoder -> x -> head -> F [K]           segmentor, stage 1
                          |
                          last map -> projector -> head -> u [2]         estimator, stage 2: (inlier, outlier)

Variables are dicts: of a segmentor {"backbone", "decoder": {"params", "batch_stats"}, "head": {"params", "state"}},
of an estimator {"projector": {"params"}, "head": {"params", "state"}}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from quantjax.extractors.normalization import EVALUATE, Mode
from quantjax.segmentation.heads import DenseHead
from quantjax.types import Array, FeatureMaps, NamedMap, Preprocessing, PyTree

DECODER_MAPS = 4  # maps that a feature pyramid reads

Maps = FeatureMaps | tuple[Array, ...] | list[Array] | Array  # maps [B, h, w, C], shallow to deep, or a single one


class Segmentor(NamedTuple):
    """What a segmentor is made of; its arrays live apart."""

    init_backbone: Callable[[Array, Array], PyTree]
    """(key, images [B, H, W, 3]) -> variables"""
    features: Callable[[PyTree, Array], FeatureMaps]
    """(variables, standardised images [B, H, W, 3]) -> maps"""
    decoder: Any
    """extractors.fpn.FeaturePyramid"""
    head: DenseHead
    """Decoder maps -> F [B, h, w, K]."""
    preprocessing: Preprocessing
    """Of the images in [0, 1]."""


class Estimator(NamedTuple):
    """What the unknown estimation module is made of."""

    projector: Any
    """heads.Projector"""
    head: DenseHead
    """Projected maps -> u [B, h, w, 2]."""


class FrozenSegmentor(NamedTuple):
    """Any network beside which an estimator can stand: it is read, never trained."""

    apply: Callable[[PyTree, Array], tuple[Maps, Array]]
    """(variables, standardised images [B, H, W, 3]) -> (maps, the last of which the estimator reads, or that one map
    [B, h, w, C]; logits [B, h', w', K])"""
    preprocessing: Preprocessing = Preprocessing()
    """Of its images; by default they come as they are, in [0, 1]."""


class SegmentorOutput(NamedTuple):
    """One pass of a segmentor."""

    features: FeatureMaps
    """Of the backbone."""
    logits: Array
    """[B, h, w, K] F, float32"""
    head: Any
    """What the head's learn reads"""
    batch_stats: PyTree
    """Of the decoder, after this batch"""


class EstimatorOutput(NamedTuple):
    """One pass of the unknown estimation module."""

    logits: Array
    """[B, h, w, 2] u, float32: generic inlier, outlier"""
    head: Any
    """What the head\'s learn reads."""


def init_segmentor(segmentor: Segmentor, key: Array, images: Array, backbone: PyTree | None = None) -> PyTree:
    """Variables of a segmentor for images [B, H, W, 3] of any content; `backbone` takes the place of random weights."""
    keys = jax.random.split(key, 3)
    if backbone is None:
        backbone = segmentor.init_backbone(keys[0], images)
    maps = decoder_maps(segmentor.features(backbone, images))
    decoder = segmentor.decoder.init(keys[1], maps)
    x = jax.eval_shape(lambda: segmentor.decoder.apply(decoder, maps))
    params, state = segmentor.head.init(keys[2], x.shape[-1])
    return {"backbone": backbone, "decoder": decoder, "head": {"params": params, "state": state}}


def init_estimator(estimator: Estimator, key: Array, last_map: Array) -> PyTree:
    """Variables of an estimator for the segmentor's last map [B, h, w, C]."""
    keys = jax.random.split(key, 2)
    projector = estimator.projector.init(keys[0], last_map)
    x = jax.eval_shape(lambda: estimator.projector.apply(projector, last_map))
    params, state = estimator.head.init(keys[1], x.shape[-1])
    return {"projector": projector, "head": {"params": params, "state": state}}


def segment(segmentor: Segmentor, variables: PyTree, images: Array, mode: Mode = EVALUATE) -> SegmentorOutput:
    """Run a segmentor on standardised images [B, H, W, 3]; with mode.train the decoder uses the batch's statistics."""
    features = segmentor.features(variables["backbone"], images)
    maps, decoder = decoder_maps(features), variables["decoder"]
    if mode.train:
        x, changed = segmentor.decoder.apply(decoder, maps, mode, mutable=["batch_stats"])
        batch_stats = changed["batch_stats"]
    else:
        x, batch_stats = segmentor.decoder.apply(decoder, maps, mode), decoder["batch_stats"]
    head = variables["head"]
    logits, output = segmentor.head.forward(head["params"], head["state"], x)
    return SegmentorOutput(features, logits, output, batch_stats)


def frozen(network: Segmentor | FrozenSegmentor) -> FrozenSegmentor:
    """The network as an estimator sees it; the decoder of a Segmentor runs with its stored statistics."""
    if isinstance(network, FrozenSegmentor):
        return network

    def apply(variables: PyTree, images: Array) -> tuple[Maps, Array]:
        output = segment(network, variables, images)
        return output.features, output.logits

    return FrozenSegmentor(apply, network.preprocessing)


def estimate(estimator: Estimator, variables: PyTree, features: Maps) -> EstimatorOutput:
    """Run the unknown estimation module on the last map of a segmentor's backbone (eq. 5 to 7, 10)."""
    x = estimator.projector.apply(variables["projector"], last_map(features))
    return EstimatorOutput(*estimator.head.forward(variables["head"]["params"], variables["head"]["state"], x))


def decoder_maps(features: FeatureMaps) -> list[Array]:
    """The four maps that a decoder reads; raises ValueError when the backbone returns fewer."""
    maps = _in_order(features)
    if len(maps) < DECODER_MAPS:
        names = [named.name for named in maps]
        raise ValueError(f"a backbone must return {DECODER_MAPS} maps, shallow to deep, got {names}")
    return [named.map for named in maps[-DECODER_MAPS:]]


def last_map(features: Maps) -> Array:
    """The deepest map [B, h, w, C]; a single map is that itself."""
    if isinstance(features, FeatureMaps):
        return _in_order(features)[-1].map
    return features[-1] if isinstance(features, tuple | list) else features


def _in_order(features: FeatureMaps) -> tuple[NamedMap, ...]:
    if isinstance(features.maps, Mapping):
        raise TypeError("maps must be a tuple of NamedMap, got a dict, whose order compiling loses; see named_maps")
    return features.maps
