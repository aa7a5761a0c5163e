"""Named tuples that cross rooms, and the letters that every shape is written in.

B batch · H W image · C channels · D features · K classes · N rows of a data set · V views · E epochs · S steps
h w token or decoder grid · M mixture components · P pixels
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from jax import export

from quantjax.documented import show_fields

Array = jax.Array
PyTree = Any

ANY = -1  # a length that a template of shapes leaves open


class ClassifierOutput(NamedTuple):
    """What every classifier backbone returns."""

    logits: Array
    """[B, K] float32"""
    features: Array
    """[B, D] float32, the input of the last linear layer"""
    intermediates: Mapping[str, Array]
    """Named maps [B, h, w, C], coarse to fine as the backbone defines them"""


@partial(jax.tree_util.register_dataclass, data_fields=("map",), meta_fields=("name",))
@dataclasses.dataclass(frozen=True, eq=False)
class NamedMap:
    """A map and its name; JAX carries the name along, where it would sort the keys of a dict."""

    name: str
    map: Array
    """[B, h, w, C]"""


class FeatureMaps(NamedTuple):
    """What every backbone of a segmentor returns; any function images -> FeatureMaps can stand in for one."""

    maps: tuple[NamedMap, ...]
    """In order from shallow to deep; a decoder reads the last four. See `named_maps`."""
    summary: Array
    """[B, D] float32, one vector per image (class token, or the mean of the last map)"""

    @property
    def by_name(self) -> dict[str, Array]:
        """The maps [B, h, w, C] by their names, for picking single ones out."""
        return {named.name: named.map for named in self.maps}


def named_maps(maps: Mapping[str, Array]) -> tuple[NamedMap, ...]:
    """Maps [B, h, w, C] under their names, in the order in which the mapping was filled."""
    return tuple(NamedMap(name, values) for name, values in maps.items())


export.register_namedtuple_serialization(FeatureMaps, serialized_name="quantjax.types.FeatureMaps")
export.register_pytree_node_serialization(
    NamedMap,
    serialized_name="quantjax.types.NamedMap",
    serialize_auxdata=lambda names: names[0].encode(),
    deserialize_auxdata=lambda data: (bytes(data).decode(),),
)


class Preprocessing(NamedTuple):
    """Per-channel standardisation of images in [0, 1]; it belongs to the weights."""

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """[3], of the channels in the order that the network sees."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """[3], positive, in the same order."""
    order: Literal["rgb", "bgr"] = "rgb"
    """What the network sees; images themselves are red, green, blue always."""
    side: int | None = None
    """H = W in pixels to which images are resized for the network (bicubic, as Pillow does it); None: as they come."""
    short_side: int | None = None
    """Pixels to which files' short sides are resized (bilinear) before their centres are cut; None: the cut's side."""


class Batch(NamedTuple):
    """Rows of a data set as a training step receives them."""

    inputs: Array
    """[B, ...]"""
    labels: Array | None
    """[B] int32, None where a method needs no labels"""
    mask: Array
    """[B] bool, False for padded rows"""


show_fields(__name__)
