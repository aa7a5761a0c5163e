"""What the two stages minimise, as training steps see it.

Stage 1 fits decoder and head (and, where it is not pretrained, the backbone) to inlier scenes. Stage 2 freezes all of
that and fits the unknown estimation module to scenes with pasted objects by the likelihood ratio (Nayal, Shoeb and
Güney 2024, arXiv 2409.06424, eq. 12 and 13).

Batches are (frozen variables, {"image": uint8 [B, H, W, 3], "label": uint8 [B, H, W]}), as `fit_stream` hands them on;
labels are 0..K-1, 254 on pasted objects, 255 ignored. Crops are flipped and jittered inside the compiled step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from quantjax import losses, resize
from quantjax.data import jitter
from quantjax.extractors import standardise
from quantjax.extractors.normalization import Mode
from quantjax.parallel import local_rows
from quantjax.rows import IGNORED, PASTED
from quantjax.scores import Standardisation, likelihood_ratio
from quantjax.segmentation.heads import DenseHead, Learned
from quantjax.segmentation.network import Estimator, FrozenSegmentor, Segmentor, estimate, frozen, segment
from quantjax.train import Mean, ValueAndGrad, objective_of_means
from quantjax.types import Array, Preprocessing, PyTree

CONTRAST_WEIGHT = 0.01  # beta of eq. 13, as the released code counts it
HUE = 0.5  # turns of the colour circle, released code


class Scales(NamedTuple):
    """How raw log-densities are brought to scale before the ratio; None leaves values as they are."""

    logits: Standardisation | None = None
    """Of max_k F_k, the segmentor's."""
    unknown: Standardisation | None = None
    """Of u_0 and u_1, the estimator's."""


UNSCALED = Scales()


def segmentor_objective(
    network: Segmentor, *, contrast_weight: float = CONTRAST_WEIGHT, hue: float = HUE
) -> ValueAndGrad:
    """value_and_grad of stage 1: cross-entropy of the upsampled logits, and the mixture's contrast loss.

    params, model_state and the frozen part of the batch are those of `split_segmentor`, which decides whether the
    backbone trains. After the gradient the mixture is fitted to this batch by Sinkhorn EM, which no gradient sees.
    """

    def means(params: PyTree, model_state: PyTree, batch: PyTree, key: Array, axis_name: str | None):
        fixed, crops = batch
        images, labels = augment(network.preprocessing, hue, crops, key, axis_name)
        labels = jnp.where(labels == PASTED, IGNORED, labels)
        variables = join_segmentor(params, model_state, fixed)
        output = segment(network, variables, images, Mode(train=True, axis_name=axis_name))
        logits = resize.bilinear(output.logits, labels.shape[1:])
        entropy = losses.pixel_cross_entropy(logits, labels)
        labelled = losses.valid(labels)
        right = jnp.argmax(logits, axis=-1) == labels
        learned = learn(network.head, model_state["head"], output, labels, axis_name)
        terms = {
            "cross_entropy": Mean(entropy.sum(), labelled.sum(), 1.0),
            "accuracy": Mean(jnp.sum(right & labelled, dtype=jnp.float32), labelled.sum()),
            **contrast_term(learned, contrast_weight),
        }
        return terms, {"decoder": output.batch_stats, "head": learned.state}

    return objective_of_means(means)


def estimator_objective(
    network: Segmentor | FrozenSegmentor,
    estimator: Estimator,
    *,
    class_weight: float = 0.0,
    contrast_weight: float = CONTRAST_WEIGHT,
    hue: float = HUE,
    freeze_statistics: bool = True,
    scales: Scales = UNSCALED,
) -> ValueAndGrad:
    """value_and_grad of stage 2: binary cross-entropy of the likelihood ratio, and the head's own terms.

    params are {"projector", "head"}, model_state {"head", "decoder"}; the frozen part of the batch are the network's
    variables, which no gradient reaches. class_weight is alpha of eq. 13, that of the two-class cross-entropy.
    freeze_statistics=False lets the batch statistics of a Segmentor's decoder drift, as the released code does:
    model_state["decoder"] holds them, () otherwise. Raises ValueError when they shall drift in a FrozenSegmentor.
    """
    if not freeze_statistics and not isinstance(network, Segmentor):
        raise ValueError("freeze_statistics must be True beside a FrozenSegmentor, got False; give a Segmentor")

    def known(variables: PyTree, statistics: PyTree, images: Array, axis_name: str | None):
        if freeze_statistics:
            return *frozen(network).apply(variables, images), ()
        assert isinstance(network, Segmentor)
        mode = Mode(train=True, axis_name=axis_name)
        output = segment(network, with_statistics(variables, statistics), images, mode)
        return output.features, output.logits, output.batch_stats

    def means(params: PyTree, model_state: PyTree, batch: PyTree, key: Array, axis_name: str | None):
        variables, crops = batch
        images, labels = augment(network.preprocessing, hue, crops, key, axis_name)
        labels = jnp.where(labels == IGNORED, IGNORED, (labels == PASTED).astype(labels.dtype))
        maps, logits, statistics = jax.lax.stop_gradient(known(variables, model_state["decoder"], images, axis_name))
        output = estimate(estimator, join_estimator(params, model_state), maps)
        unknown = resize.bilinear(output.logits, labels.shape[1:])
        ratio = likelihood_ratio(unknown, resize.bilinear(logits, labels.shape[1:]), *scales)
        labelled = losses.valid(labels)
        terms = {
            "ratio": Mean(losses.likelihood_ratio_loss(ratio, labels).sum(), labelled.sum(), 1.0),
            "outliers": Mean(jnp.sum(labels == 1, dtype=jnp.float32), labelled.sum()),
        }
        if class_weight:
            terms["classes"] = Mean(losses.pixel_cross_entropy(unknown, labels).sum(), labelled.sum(), class_weight)
        learned = learn(estimator.head, model_state["head"], output, labels, axis_name)
        return terms | contrast_term(learned, contrast_weight), {"head": learned.state, "decoder": statistics}

    return objective_of_means(means)


def augment(
    preprocessing: Preprocessing, hue: float, crops: dict[str, Array], key: Array, axis_name: str | None
) -> tuple[Array, Array]:
    """Flip and jitter a device's share of the crops from draws for the whole batch; standardised images and labels."""
    images, labels = crops["image"], crops["label"]
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    draws = local_rows(jitter.draw(key, devices * images.shape[0], hue=hue), axis_name)
    images, labels = jitter.apply(images, labels, draws)
    return standardise(images, preprocessing), labels


def learn(head: DenseHead, state: PyTree, output: PyTree, labels: Array, axis_name: str | None) -> Learned:
    """What a head learns outside the optimiser from labels [B, H, W], at the resolution of its own logits."""
    return head.learn(state, output.head, resize.nearest(labels, output.logits.shape[1:3]), axis_name)


def contrast_term(learned: Learned, weight: float) -> dict[str, Mean]:
    """The contrast loss of a head that has one."""
    if learned.contrast is None or learned.labelled is None:
        return {}
    return {"contrast": Mean(learned.contrast.sum(), learned.labelled.sum(), weight)}


def split_segmentor(variables: PyTree, *, train_backbone: bool = False) -> tuple[PyTree, PyTree, PyTree]:
    """(params, model_state, frozen) of stage 1."""
    params = {"decoder": variables["decoder"]["params"], "head": variables["head"]["params"]}
    model_state = {"decoder": variables["decoder"]["batch_stats"], "head": variables["head"]["state"]}
    if train_backbone:
        return params | {"backbone": variables["backbone"]}, model_state, {}
    return params, model_state, {"backbone": variables["backbone"]}


def join_segmentor(params: PyTree, model_state: PyTree, frozen: PyTree) -> PyTree:
    """Undo `split_segmentor`."""
    return {
        "backbone": params["backbone"] if "backbone" in params else frozen["backbone"],
        "decoder": {"params": params["decoder"], "batch_stats": model_state["decoder"]},
        "head": {"params": params["head"], "state": model_state["head"]},
    }


def join_estimator(params: PyTree, model_state: PyTree) -> PyTree:
    """Variables of an estimator from stage 2's params and model_state."""
    return {"projector": params["projector"], "head": {"params": params["head"], "state": model_state["head"]}}


def with_statistics(variables: PyTree, batch_stats: PyTree) -> PyTree:
    """The segmentor with other batch statistics."""
    return variables | {"decoder": variables["decoder"] | {"batch_stats": batch_stats}}
