"""What the two stages minimise, as training steps see it.

Stage 1 fits decoder and head (and a scratch backbone) to inlier scenes. Stage 2 freezes all of that and fits the
unknown estimation module to scenes with pasted objects by the likelihood ratio (eq. 12 and 13 of the paper).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from experiments.segmentation.config import SCRATCH, Settings
from quantjax import losses, resize, segmentation
from quantjax.data import jitter
from quantjax.data.mix import PASTED
from quantjax.extractors import standardise
from quantjax.extractors.normalization import EVALUATE, Mode
from quantjax.parallel import local_rows
from quantjax.scores import Standardisation, likelihood_ratio
from quantjax.segmentation import Estimator, Segmentor
from quantjax.train import Mean, objective_of_means
from quantjax.types import Array, PyTree

IGNORED = losses.IGNORE
CONTRAST_WEIGHT = 0.01  # beta of eq. 13
CLASS_WEIGHT = {"g-g": 0.5, "g-d": 0.0, "d-d": 0.0}  # alpha of eq. 13


def segmentor_objective(config: Settings, network: Segmentor) -> Any:
    """value_and_grad of stage 1: cross-entropy of the upsampled logits, and the mixture's contrast loss.

    params and model_state are those of `split_segmentor`; the batch is (frozen, crops). After the gradient the mixture
    is fitted to this batch by Sinkhorn EM, which no gradient sees.
    """
    trains_backbone = config.backbone in SCRATCH

    def means(params: PyTree, model_state: PyTree, batch: Any, key: Array, axis_name: str | None):
        frozen, crops = batch
        images, labels = augment(network, config.hue, crops, key, axis_name)
        labels = jnp.where(labels == PASTED, IGNORED, labels)
        variables = join_segmentor(params, model_state, frozen)
        if not trains_backbone:
            variables = variables | {"backbone": jax.lax.stop_gradient(variables["backbone"])}
        output = segmentation.segment(network, variables, images, Mode(train=True, axis_name=axis_name))
        logits = resize.bilinear(output.logits, labels.shape[1:])
        entropy = losses.pixel_cross_entropy(logits, labels)
        labelled = losses.valid(labels)
        right = jnp.argmax(logits, axis=-1) == labels
        learned = network.head.learn(
            model_state["head"], output.head, resize.nearest(labels, output.logits.shape[1:3]), axis_name
        )
        terms = {
            "cross_entropy": Mean(entropy.sum(), labelled.sum(), 1.0),
            "accuracy": Mean(jnp.sum(right & labelled, dtype=jnp.float32), labelled.sum()),
            **contrast_term(learned, CONTRAST_WEIGHT * contrast_scale(config, 1.0)),
        }
        return terms, {"decoder": output.batch_stats, "head": learned.state}

    return objective_of_means(means)


def estimator_objective(config: Settings, network: Segmentor, estimator: Estimator) -> Any:
    """value_and_grad of stage 2: binary cross-entropy of the likelihood ratio, and the mixture's terms.

    The batch is (segmentor variables, crops with label 254 on pasted objects); no gradient reaches the segmentor.
    """
    alpha = CLASS_WEIGHT[config.variant]
    mode = EVALUATE if config.freeze_statistics else None

    def means(params: PyTree, model_state: PyTree, batch: Any, key: Array, axis_name: str | None):
        frozen, crops = batch
        images, labels = augment(network, config.hue, crops, key, axis_name)
        labels = jnp.where(labels == IGNORED, IGNORED, (labels == PASTED).astype(labels.dtype))
        size = labels.shape[1:]
        segmentor = frozen if mode is not None else with_statistics(frozen, model_state["decoder"])
        inlier = segmentation.segment(
            network, segmentor, images, EVALUATE if mode is not None else Mode(train=True, axis_name=axis_name)
        )
        inlier = jax.lax.stop_gradient(inlier)
        variables = {"projector": params["projector"], "head": {"params": params["head"], "state": model_state["head"]}}
        output = segmentation.estimate(estimator, variables, inlier.features)
        unknown = resize.bilinear(output.logits, size)
        ratio = ratio_of(config, frozen, unknown, resize.bilinear(inlier.logits, size))
        labelled = losses.valid(labels)
        terms = {
            "ratio": Mean(losses.likelihood_ratio_loss(ratio, labels).sum(), labelled.sum(), 1.0),
            "outliers": Mean(jnp.sum(labels == 1, dtype=jnp.float32), labelled.sum()),
        }
        if alpha:
            terms["classes"] = Mean(losses.pixel_cross_entropy(unknown, labels).sum(), labelled.sum(), alpha)
        learned = estimator.head.learn(
            model_state["head"], output.head, resize.nearest(labels, output.logits.shape[1:3]), axis_name
        )
        terms |= contrast_term(learned, CONTRAST_WEIGHT * contrast_scale(config, alpha))
        decoder = () if mode is not None else inlier.batch_stats
        return terms, {"head": learned.state, "decoder": decoder}

    return objective_of_means(means)


def augment(
    network: Segmentor, hue: float, crops: dict[str, Array], key: Array, axis_name: str | None
) -> tuple[Array, Array]:
    """Flip and jitter a device's share of the crops from draws for the whole batch; standardised images and labels."""
    images, labels = crops["image"], crops["label"]
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    draws = local_rows(jitter.draw(key, devices * images.shape[0], hue=hue), axis_name)
    images, labels = jitter.apply(images, labels, draws)
    return standardise(images, network.preprocessing), labels


def ratio_of(config: Settings, variables: PyTree, unknown: Array, logits: Array) -> Array:
    """LLR [..., H, W] of u [..., 2] and F [..., K]; preset paper standardises raw log-densities (see `scales`)."""
    inlier, outlier = scales(config, variables)
    return likelihood_ratio(unknown, logits, inlier, outlier)


def scales(config: Settings, variables: PyTree) -> tuple[Any, Any]:
    """Standardisations of F and of u: those stored with the segmentor where the values are raw log-densities.

    The estimator's densities live in a space of the same dimension and share the segmentor's scale; their mean
    cancels in u_1 - u_0.
    """
    if config.preset != "paper" or config.variant[0] == "d":
        return None, None
    stored = Standardisation(*(variables["standardisation"][key] for key in Standardisation._fields))
    return stored, stored if config.variant[-1] == "g" else None


def contrast_scale(config: Settings, alpha: float) -> float:
    """The paper multiplies the contrast loss by alpha as well; the released code does not."""
    return alpha if config.preset == "paper" else 1.0


def contrast_term(learned: Any, weight: float) -> dict[str, Mean]:
    """The contrast loss of a head that has one."""
    if learned.contrast is None:
        return {}
    return {"contrast": Mean(learned.contrast.sum(), learned.labelled.sum(), weight)}


def split_segmentor(config: Settings, variables: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    """(params, model_state, frozen) of stage 1."""
    params = {"decoder": variables["decoder"]["params"], "head": variables["head"]["params"]}
    model_state = {"decoder": variables["decoder"]["batch_stats"], "head": variables["head"]["state"]}
    if config.backbone in SCRATCH:
        return params | {"backbone": variables["backbone"]}, model_state, {}
    return params, model_state, {"backbone": variables["backbone"]}


def join_segmentor(params: PyTree, model_state: PyTree, frozen: PyTree) -> PyTree:
    """Undo `split_segmentor`."""
    return {
        "backbone": params["backbone"] if "backbone" in params else frozen["backbone"],
        "decoder": {"params": params["decoder"], "batch_stats": model_state["decoder"]},
        "head": {"params": params["head"], "state": model_state["head"]},
    }


def with_statistics(variables: PyTree, batch_stats: PyTree) -> PyTree:
    """The segmentor with other batch statistics."""
    return variables | {"decoder": variables["decoder"] | {"batch_stats": batch_stats}}
