"""Segmentor and unknown estimation module as the questions about scenes ask for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.questions.networks import drawn
from benchmarks.questions.sizes import Sizes
from benchmarks.scenes.sizes import Size
from benchmarks.scenes.windows import Peer, segmentor, variables_of
from quantjax import segmentation
from quantjax.train import init_state, make_step

STEPS = 4000  # of the stage, over which the learning rate falls


def size_of(sizes: Sizes) -> Size:
    """The segmentor that `sizes` ask for."""
    return Size(
        sizes.backbone, sizes.window, sizes.scene_classes, sizes.components, sizes.channels, sizes.token_hidden, 0, 0
    )


def widths(sizes: Sizes) -> tuple[int, ...]:
    """Of the estimator's projector."""
    return (sizes.token_hidden, sizes.token_hidden, sizes.channels)


def build(sizes: Sizes, dtype: str, head: str = "mixture") -> tuple[segmentation.Segmentor, segmentation.Estimator]:
    """Segmentor with head linear or mixture, and the estimator with a linear head."""
    return segmentor(size_of(sizes), head, dtype), segmentation.make_estimator(widths(sizes))


def weights(network: segmentation.Segmentor, estimator: segmentation.Estimator) -> tuple[Any, Any]:
    """Random variables of both, drawn without compiling anything for them."""
    of_segmentor, of_estimator = drawn(weight_shapes(network, estimator))
    # a mixture's moments must be those of densities
    params, state = network.head.init(jax.random.key(0), network.decoder.channels)
    return of_segmentor | {"head": {"params": params, "state": state}}, of_estimator


def weight_shapes(network: segmentation.Segmentor, estimator: segmentation.Estimator) -> tuple[Any, Any]:
    """Shapes of both's variables; small images suffice, since none depends on theirs."""
    blank = jax.ShapeDtypeStruct((1, 56, 56, 3), jnp.float32)

    def start(key: Any, images: Any) -> tuple[Any, Any]:
        of_segmentor = segmentation.init_segmentor(network, key, images)
        last = segmentation.last_map(network.features(of_segmentor["backbone"], images))
        return of_segmentor, segmentation.init_estimator(estimator, key, last)

    return jax.eval_shape(start, jax.random.key(0), blank)


def weights_of(peer: Peer, network: segmentation.Segmentor, sizes: Sizes, head: str = "mixture") -> tuple[Any, Any]:
    """Our variables for those of torch's networks."""
    layers = [name.removesuffix(".weight") for name in peer.state if re.fullmatch(r"estimator\.\d+\.weight", name)]
    dense = [
        {"kernel": np.array(peer.state[f"{name}.weight"].T), "bias": peer.state[f"{name}.bias"]} for name in layers
    ]
    projector = {"params": {f"linear{i}": layer for i, layer in enumerate(dense[:-1])}}
    estimator = {"projector": projector, "head": {"params": {"linear": dense[-1]}, "state": ()}}
    return variables_of(peer.state, network, size_of(sizes), head), estimator


def logits(network: Any, estimator: Any, variables: tuple[Any, Any], images: Any) -> tuple[Any, Any]:
    """F [B, h, w, K] of the segmentor and u [B, h', w', 2] of the estimator for standardised windows."""
    output = segmentation.segment(network, variables[0], images)
    return output.logits, segmentation.estimate(estimator, variables[1], output.features).logits


def estimator_step(network: segmentation.Segmentor, estimator: segmentation.Estimator) -> Callable[..., Any]:
    """step(state, (frozen variables, crops), key) of stage 2."""
    return make_step(segmentation.estimator_objective(network, estimator), segmentation.adam(STEPS))


def estimator_arguments(sizes: Sizes, batch: int, frozen: Any, own: Any) -> tuple[Any, ...]:
    """What `estimator_step` is called with, from the variables of segmentor and estimator."""
    params = {"projector": own["projector"], "head": own["head"]["params"]}
    state = init_state(params, segmentation.adam(STEPS), {"head": own["head"]["state"], "decoder": ()})
    key, shape = jax.random.key(0), (batch, *sizes.crop)
    return state, (frozen, {"image": jax.random.bits(key, (*shape, 3), jnp.uint8), "label": _labels(key, shape)}), key


def _labels(key: Any, shape: tuple[int, ...]) -> Any:
    """One pixel in ten lies on a pasted object."""
    return jnp.where(jax.random.uniform(key, shape) < 0.1, jnp.uint8(254), jnp.uint8(0))
