"""Where patch features come from: named maps of a backbone of FEATURE_BACKBONES, or of any function images -> maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from quantjax.checks import check_choice, check_interval
from quantjax.extractors import FEATURE_BACKBONES, VisionTransformer, standardise
from quantjax.extractors.preprocess import resize_images
from quantjax.types import Array, FeatureMaps, Preprocessing, PyTree

BLOCK = "block_"  # of a transformer's maps, before the number of the block, counted from 0
LARGEST_SCALE = 8
QUARTER = 4  # the last quarter of the blocks is what is read by default


class PatchNetwork(NamedTuple):
    """A frozen network whose maps are patch features."""

    apply: Callable[[PyTree, Array], FeatureMaps | Mapping[str, Array]]
    """(variables, standardised images [B, H, W, 3]) -> named maps [B, h, w, C], of any sizes"""
    maps: tuple[str, ...]
    """Names of the maps that are read"""
    stride: int
    """Pixels per cell of the coarsest of them; windows are multiples of it"""
    preprocessing: Preprocessing = Preprocessing()
    """Of the images in [0, 1]"""
    scales: tuple[float, ...] = (1.0,)
    """At which the network sees a window: each gives maps of its own, of a smaller or larger copy in whole cells"""


def backbone(
    name: str,
    maps: Sequence[str] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | None = None,
    scales: Sequence[float] = (1.0,),
    dtype: Any = jnp.float32,
) -> PatchNetwork:
    """The backbone of that name, read at `maps`: of a plain transformer any block_<i>, of Swin its four.

    By default the last quarter of the blocks. Overrides and preprocessing as of segmentation.make_segmentor, scales as
    of PatchNetwork. Raises ValueError for names that are not known, and for scales outside 1/8..8 or given twice.
    """
    if not scales or len(set(scales)) < len(scales):
        raise ValueError(f"scales must be at least one number, each once, got {list(scales)}")
    for scale in scales:
        check_interval("scales", scale, 1 / LARGEST_SCALE, LARGEST_SCALE)

    check_choice("backbone", name, FEATURE_BACKBONES)
    known, overrides = FEATURE_BACKBONES[name], dict(overrides or {})
    chosen = tuple(default_maps(name) if maps is None else maps)
    there = map_names(name)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(there):
        raise ValueError(
            f"maps must be of {', '.join(there)}, each once, for {name}; got {', '.join(chosen) or 'none'}"
        )
    if known.kind == "plain":
        overrides["layers"] = tuple(sorted(int(one.removeprefix(BLOCK)) for one in chosen))
    module = known.build(dtype=dtype, **overrides)
    preset = preprocessing or known.preprocessing
    return PatchNetwork(module.apply, chosen, known.stride, preset, tuple(map(float, scales)))


def map_names(name: str) -> tuple[str, ...]:
    """Names of all maps that a backbone of FEATURE_BACKBONES can give, shallow to deep."""
    known = FEATURE_BACKBONES[name]
    module = known.build()
    if isinstance(module, VisionTransformer):
        return tuple(f"{BLOCK}{i}" for i in range(module.depth))
    images = jax.ShapeDtypeStruct((1, 4 * known.stride, 4 * known.stride, 3), jnp.float32)
    shapes = jax.eval_shape(lambda key, x: module.init_with_output(key, x)[0], jax.random.key(0), images)
    return tuple(named.name for named in shapes.maps)


def default_maps(name: str) -> tuple[str, ...]:
    """The maps of the last quarter of the blocks, at least one."""
    names = map_names(name)
    return names[-max(len(names) // QUARTER, 1) :]


def named_features(network: PatchNetwork, products: str | None, variables: PyTree, images: Array) -> dict[str, Array]:
    """Images uint8 [B, H, W, 3] -> {name: map [B, h, w, C] float32} of scaled_names, in their order.

    products is the precision of matrix products; None leaves it as it is set. Raises ValueError when the network does
    not return one of its maps.
    """
    named: dict[str, Array] = {}
    for scale in network.scales:
        with nullcontext() if products is None else jax.default_matmul_precision(products):
            found = network.apply(variables, standardise(_scaled(images, scale, network.stride), network.preprocessing))
        by_name = found.by_name if isinstance(found, FeatureMaps) else found
        missing = [name for name in network.maps if name not in by_name]
        if missing:
            raise ValueError(f"maps must be of {', '.join(by_name)}; got {', '.join(missing)}")
        named |= {_scaled_name(name, scale): by_name[name].astype(jnp.float32) for name in network.maps}
    return named


def scaled_names(network: PatchNetwork) -> tuple[str, ...]:
    """Names of what named_features returns: each map at each scale, "block_9" and "block_9 x0.5"."""
    return tuple(_scaled_name(name, scale) for scale in network.scales for name in network.maps)


def _scaled_name(name: str, scale: float) -> str:
    return name if scale == 1.0 else f"{name} x{scale:.4g}"


def _scaled(images: Array, scale: float, cell: int) -> Array:
    """The images as they are, or at another size in whole cells, in [0, 1]."""
    height, width = (max(round(side * scale / cell), 1) * cell for side in images.shape[1:3])
    if scale == 1.0 or (height, width) == images.shape[1:3]:
        return images
    return resize_images(images.astype(jnp.float32) / 255.0, (height, width))
