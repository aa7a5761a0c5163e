"""Scores after a small step of the input that makes it look more like an inlier; higher = more outlying.

Inliers gain more from such a step than outliers do, which widens the gap. These scores need a gradient with respect
to the input, so they cannot share the backbone pass of the others. Run the network in evaluation mode: rows must not
see each other.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from quantjax.checks import check_interval, check_shape
from quantjax.scores.logits import msp
from quantjax.types import Array


def perturb(
    score: Callable[[Array], Array], images: Array, epsilon: float, std: tuple[float, ...] | Array = (1.0,)
) -> Array:
    """Return images - epsilon * sign(d score / d images) / std, the step that lowers each row's own score.

    score: images [B, H, W, C] -> [B], rows independent. images are what the network sees, after preprocessing, and std
    (C values, or one for all) is that preprocessing's standard deviation: so epsilon is in units of pixels in [0, 1].
    Leave std at 1 where images are pixels in [0, 1], also when `score` standardises them itself.
    Raises ValueError on a wrong rank, a negative epsilon, or std of another length than 1 or C.
    Source: Liang et al. (ICLR 2018), eq. 2.
    """
    check_shape("images", images, "[B, H, W, C]")
    check_interval("epsilon", epsilon, 0.0, float("inf"), closed="left")
    images, scale = jnp.asarray(images, jnp.float32), jnp.asarray(std, jnp.float32)
    if scale.shape not in ((1,), (images.shape[3],)):
        raise ValueError(f"std must have 1 or {images.shape[3]} values, one per channel, got shape {list(scale.shape)}")
    gradient = jax.grad(lambda x: jnp.sum(score(x)))(images)
    return images - epsilon * jnp.sign(gradient) / scale[None, None, None, :]


def perturbed(
    score: Callable[[Array], Array],
    images: Array,
    *,
    epsilon: float = 0.0005,
    std: tuple[float, ...] | Array = (1.0,),
) -> Array:
    """Return score at the perturbed images [B, H, W, C] -> [B]; the default epsilon is that of Mahalanobis and GEM.

    Arguments and errors as perturb. Source: Lee et al. (NeurIPS 2018), section 2.2.
    """
    return score(perturb(score, images, epsilon, std))


def odin(
    classify: Callable[[Array], Array],
    images: Array,
    *,
    temperature: float = 1000.0,
    epsilon: float = 0.0048,
    std: tuple[float, ...] | Array = (1.0,),
    form: str = "log_odds",
) -> Array:
    """Return msp of logits / T in one of its forms, after a step towards the predicted class; [B].

    classify: images [B, H, W, C] -> logits [B, K]. The step lowers the cross-entropy of the predicted class at
    temperature T; epsilon, std and their units as in perturb. form="probability" is the published score, in -1..-1/K;
    at T = 1000 its values differ in their last digits.
    Raises ValueError as perturb and msp do, and when the temperature is not positive. Source: Liang et al. (ICLR 2018).
    """
    check_interval("temperature", temperature, 0.0, float("inf"), closed="neither")

    def predicted_cross_entropy(x: Array) -> Array:
        scaled = jnp.asarray(classify(x), jnp.float32) / temperature
        return jax.nn.logsumexp(scaled, axis=1) - jnp.max(scaled, axis=1)

    moved = perturb(predicted_cross_entropy, images, epsilon, std)
    return msp(jnp.asarray(classify(moved), jnp.float32) / temperature, form)
