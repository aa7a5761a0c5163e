"""A frozen vision transformer under a linear layer that reads its summary: a classifier of any images.

Linear probing as in Radford et al. (ICML 2021) and Oquab et al. (TMLR 2024): features are computed once, the linear
layer alone is trained on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from quantjax.types import Array, ClassifierOutput, FeatureMaps, PyTree

TRANSFORMER, HEAD = "transformer", "head"  # names under "params"


class LinearProbe(nn.Module):
    """Linear classifier on the summary of a transformer, which `build(**attributes)` makes: the class token of
    `vit.VisionTransformer`, the mean of the last map of `swin.SwinTransformer`.

    The position embeddings, where there are any, are stored at the size of the images that the variables are made for:
    no rule of resizing is left to choose. `dtype` is what the transformer computes in; summary and logits are float32.
    """

    num_classes: int
    build: Callable[..., nn.Module]
    patch: int  # pixels; H and W must be multiples of it
    dtype: Any = jnp.float32
    positions: bool = True  # whether the transformer has position embeddings of a grid

    @nn.compact
    def __call__(self, images: Array) -> ClassifierOutput:
        """Standardised images [B, H, W, 3] -> logits [B, K], summary [B, D], maps of the transformer.

        Nothing stops gradients: scores may ask how the logits change with the pixels. Raises ValueError as the
        transformer does.
        """
        grid = (images.shape[1] // self.patch, images.shape[2] // self.patch)
        own = {"grid": grid} if self.positions else {}
        seen: FeatureMaps = self.build(dtype=self.dtype, name=TRANSFORMER, **own)(images)
        head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=nn.initializers.zeros, name=HEAD)
        return ClassifierOutput(head(seen.summary), seen.summary, seen.by_name)


def split(variables: Mapping[str, PyTree]) -> tuple[PyTree, PyTree]:
    """Variables of a probe -> (the transformer's params, the head's {"kernel" [D, K], "bias" [K]})."""
    return variables["params"][TRANSFORMER], variables["params"][HEAD]


def join(transformer: PyTree, head: PyTree) -> dict[str, Any]:
    """Undo `split`."""
    return {"params": {TRANSFORMER: transformer, HEAD: head}}


def logits(head: Mapping[str, Any], features: Any) -> Any:
    """What the head says about class tokens [B, D] -> [B, K]."""
    return features @ head["kernel"] + head["bias"].reshape(1, -1)
