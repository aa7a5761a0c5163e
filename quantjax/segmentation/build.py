"""Networks of named parts: the one place where a segmentor and an estimator are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from quantjax.checks import check_choice
from quantjax.extractors import FEATURE_BACKBONES
from quantjax.extractors.fpn import FeaturePyramid
from quantjax.heads import Projector
from quantjax.heads.gmm import GmmSettings
from quantjax.segmentation.heads import DenseHead, gmm_head, linear_head
from quantjax.segmentation.network import Estimator, Segmentor
from quantjax.types import Preprocessing

UNKNOWN_CLASSES = 2  # generic inlier, outlier
WIDTHS = (512, 512, 256)  # of the projector's layers (section 3.2 of the paper)


def make_segmentor(
    backbone: str,
    num_classes: int,
    mixture: GmmSettings | None = None,
    *,
    channels: int = 256,
    token_hidden: int = 512,
    dtype: Any = jnp.float32,
    overrides: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Segmentor:
    """A backbone of FEATURE_BACKBONES, the decoder of its kind, and a linear head or the `mixture` of K classes.

    overrides are attributes in which the backbone's weights differ from its name's, preprocessing that of its images
    where it is another than the name's; backbone and decoder compute in `dtype`. Raises ValueError for a name that is
    not known and for a mixture of another number of classes.
    """
    check_choice("backbone", backbone, FEATURE_BACKBONES)
    known = FEATURE_BACKBONES[backbone]
    network = known.build(dtype=dtype, **(overrides or {}))
    decoder = FeaturePyramid(known.kind, channels, token_hidden, dtype)
    head = dense_head(num_classes, mixture)
    return Segmentor(network.init, network.apply, decoder, head, preprocessing or known.preprocessing)


def make_estimator(widths: Sequence[int] = WIDTHS, mixture: GmmSettings | None = None) -> Estimator:
    """A projector with layers of `widths`, and a linear head or the `mixture` of two classes."""
    return Estimator(Projector(tuple(widths)), dense_head(UNKNOWN_CLASSES, mixture))


def dense_head(num_classes: int, mixture: GmmSettings | None) -> DenseHead:
    """The head of `num_classes`: linear, or a mixture; ValueError for one of another number of classes."""
    if mixture is None:
        return linear_head(num_classes)
    if mixture.num_classes != num_classes:
        raise ValueError(f"the mixture must have {num_classes} classes, got {mixture.num_classes}")
    return gmm_head(mixture)
