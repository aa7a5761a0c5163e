"""What a classifier is trained for: cross-entropy alone, or with a term that sets outliers apart.

An objective sees, of every row of a batch, an inlier and A auxiliary outliers beside it, which went through the network
together: batch statistics, padding and devices treat them as one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from quantjax import losses
from quantjax.checks import check_interval
from quantjax.classification import virtual_outliers as virtual
from quantjax.documented import show_fields
from quantjax.extractors import standardise
from quantjax.train.step import ValueAndGrad, objective
from quantjax.types import Array, Batch, Preprocessing, PyTree

OWN = "objective"  # beside the network's modules, in params and model_state: what an objective learns and keeps
LONGEST = 2**31 - 1  # rows of a run that are counted
AUXILIARY = 2  # outliers beside an inlier: batches of 128 and 256 (outlier exposure, energy fine-tuning)


class Seen(NamedTuple):
    """What an objective's loss is computed from: this device's rows of a batch."""

    logits: Array
    """[B, 1 + A, K] float32, of the inlier first"""
    features: Array
    """[B, 1 + A, D] float32"""
    labels: Array
    """[B] int32, of the inliers"""
    mask: Array
    """[B] bool, False for padded rows"""
    network: PyTree
    """Parameters of the network"""
    learned: PyTree
    """Parameters of the objective"""
    state: PyTree
    """What the objective keeps from step to step, the same on every device"""
    key: Array
    """Of the step, the same on every device"""
    axis_name: str | None
    """Over which devices reduce"""


def nothing(network: PyTree, rows: int) -> tuple[PyTree, PyTree]:
    """What an objective begins with that learns and keeps nothing."""
    del network, rows
    return (), ()


class Objective(NamedTuple):
    """A way to train a classifier."""

    loss: Callable[[Seen], tuple[Array, PyTree]]
    """Loss of each row [B] in nats, whose mean over the global batch is minimised, and the state after it"""
    auxiliary: int = 0
    """A, auxiliary outliers beside each inlier"""
    begin: Callable[[PyTree, int], tuple[PyTree, PyTree]] = nothing
    """(the network's first parameters, rows of all epochs together) -> what it learns, what it keeps; () for nothing"""


def of_logits(loss: Callable[[Array, Array], Array]) -> Objective:
    """The objective of a loss (logits [B, K], labels [B]) -> [B]."""
    return Objective(lambda seen: (loss(seen.logits[:, 0], seen.labels), seen.state))


def outlier_exposure(weight: float = 0.5) -> Objective:
    """Cross-entropy, plus `weight` times that of auxiliary outliers to the uniform distribution.

    Source: Hendrycks, Mazeika and Dietterich, ICLR 2019; 0.5 is theirs for images.
    """

    def loss(seen: Seen) -> tuple[Array, PyTree]:
        exposed = losses.uniform_cross_entropy(seen.logits[:, 1:]).mean(axis=1)
        return losses.cross_entropy(seen.logits[:, 0], seen.labels) + weight * exposed, seen.state

    return Objective(loss, AUXILIARY)


def energy_margin(weight: float = 0.1, inlier_margin: float = -23.0, outlier_margin: float = -5.0) -> Objective:
    """Cross-entropy, plus `weight` times squared hinges: inliers' energy above one margin, outliers' below another.

    Source: Liu, Wang, Owens and Li, NeurIPS 2020, eq. 8-9; weight and margins are theirs for CIFAR-10, nats. They
    fine-tune a trained classifier for ten epochs at a learning rate of 0.001.
    """

    def loss(seen: Seen) -> tuple[Array, PyTree]:
        inliers = losses.energy_above(seen.logits[:, 0], inlier_margin)
        outliers = losses.energy_below(seen.logits[:, 1:], outlier_margin).mean(axis=1)
        return losses.cross_entropy(seen.logits[:, 0], seen.labels) + weight * (inliers + outliers), seen.state

    return Objective(loss, AUXILIARY)


def vos(
    weight: float = 0.1,
    *,
    start: float = 0.4,
    queue: int = 1000,
    samples: int = 10_000,
    head: tuple[str, ...] = ("head", "linear"),
) -> Objective:
    """Cross-entropy, plus `weight` times a logistic loss on energies of inliers and of virtual outliers.

    After the share `start` of all rows there is one virtual outlier per class that was seen, the least likely of
    `samples` draws from the Gaussian of the class's newest `queue` features, those of this batch included. Log-odds of
    being an outlier are a E + b, where E = -log sum_k max(w_k, 0) exp F_k; a, b and w are learned, from 1, 0 and 1.
    `head` leads to the last linear layer, {"kernel" [D, K], "bias" [K]}, among the network's parameters.

    Raises ValueError for a share outside [0, 1), a queue or samples below 1, and where no such layer is. Source: Du,
    Wang, Cai and Li, ICLR 2022 (epoch 40 of 100, 1,000 features, 10,000 samples, weight 0.1); both sides of the
    logistic loss weigh alike, as in the paper, where the released code takes the mean over all rows of both.
    """
    check_interval("start", start, 0.0, 1.0, closed="left")
    check_interval("queue", queue, 1, float("inf"))
    check_interval("samples", samples, 1, float("inf"))

    def begin(network: PyTree, rows: int) -> tuple[PyTree, PyTree]:
        dimension, classes = _layer(network, head)["kernel"].shape
        learned = {"weights": jnp.ones(classes), "slope": jnp.ones(()), "offset": jnp.zeros(())}
        waiting = jnp.asarray(min(round(start * rows), LONGEST), jnp.int32)
        return learned, {"queues": virtual.empty_queues(classes, queue, dimension), "waiting": waiting}

    def loss(seen: Seen) -> tuple[Array, PyTree]:
        features, labels, mask = _of_all_devices((seen.features[:, 0], seen.labels, seen.mask), seen.axis_name)
        queues = virtual.push(seen.state["queues"], features, labels, mask)
        draws = virtual.draw(jax.random.fold_in(seen.key, 1), len(queues.features), features.shape[1])
        means, factor = virtual.class_gaussians(queues)
        outliers = jax.lax.stop_gradient(virtual.virtual_outliers(draws, means, factor, samples))
        layer = _layer(seen.network, head)
        apart = losses.logistic_separation(
            _log_odds(seen.learned, seen.logits[:, 0]),
            _log_odds(seen.learned, outliers @ layer["kernel"] + layer["bias"][None, :]),
            queues.pushed > 0,
        )
        active = seen.state["waiting"] == 0
        waiting = jnp.maximum(seen.state["waiting"] - mask.sum(dtype=jnp.int32), 0)
        cross_entropy = losses.cross_entropy(seen.logits[:, 0], seen.labels)
        return cross_entropy + jnp.where(active, weight, 0.0) * apart, {"queues": queues, "waiting": waiting}

    return Objective(loss, begin=begin)


def _log_odds(learned: PyTree, logits: Array) -> Array:
    """Log-odds [B] of being an outlier, from logits [B, K]."""
    return learned["slope"] * losses.weighted_energy(logits, learned["weights"]) + learned["offset"]


def _layer(network: PyTree, path: tuple[str, ...]) -> Mapping[str, Array]:
    """The linear layer at `path` of a network's parameters."""
    found = network
    for name in path:
        found = found.get(name, {}) if isinstance(found, Mapping) else {}
    if not isinstance(found, Mapping) or {"kernel", "bias"} - set(found):
        raise ValueError(
            f"head must lead to a linear layer, kernel and bias, among the network's parameters, got {'/'.join(path)} "
            f"(there are {', '.join(network)}); give vos(head=...) the names on the way to the last layer"
        )
    return found


def _of_all_devices(tree: PyTree, axis_name: str | None) -> PyTree:
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


CROSS_ENTROPY = of_logits(losses.cross_entropy)
OBJECTIVES: dict[str, Objective] = {
    "cross_entropy": CROSS_ENTROPY,
    "logit_norm": of_logits(losses.logit_norm),
    "outlier_exposure": outlier_exposure(),
    "energy_margin": energy_margin(),
    "vos": vos(),
}


def start_of(how: Objective, variables: PyTree, rows: int) -> tuple[PyTree, PyTree]:
    """(params, model_state) to begin a run of so many rows with, from the network's {"params", "batch_stats"}."""
    learned, state = how.begin(variables["params"], rows)
    return _with_own(variables["params"], learned), _with_own(variables["batch_stats"], state)


def network_of(tree: PyTree) -> PyTree:
    """What is the network's of params or model_state."""
    return {name: value for name, value in tree.items() if name != OWN}


def _with_own(tree: PyTree, own: PyTree) -> PyTree:
    return {**tree, OWN: own} if jax.tree.leaves(own) else dict(tree)


def classifier_objective(how: Objective, model: Any, preprocessing: Preprocessing) -> ValueAndGrad:
    """value_and_grad of train.make_step for an Objective, params and model_state as `start_of` gives them.

    Inputs are images uint8, [B, H, W, 3], or [B, 1 + A, H, W, 3] where the objective has auxiliary outliers. Reports
    the accuracy on inliers.
    """

    def loss_fn(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, axis_name: str | None
    ) -> tuple[Array, PyTree, dict[str, Array]]:
        assert batch.labels is not None
        network, beside = network_of(params), 1 + how.auxiliary
        images, mask = batch.inputs, batch.mask
        if how.auxiliary:
            images, mask = images.reshape(-1, *images.shape[2:]), jnp.repeat(mask, beside)
        output, changed = model.apply(
            {"params": network, "batch_stats": network_of(model_state)},
            standardise(images, preprocessing),
            train=True,
            mask=mask,
            axis_name=axis_name,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        logits, features = (part.reshape(-1, beside, part.shape[-1]) for part in output[:2])
        own, state = params.get(OWN, ()), model_state.get(OWN, ())
        loss, state = how.loss(Seen(logits, features, batch.labels, batch.mask, network, own, state, key, axis_name))
        right = (logits[:, 0].argmax(axis=1) == batch.labels).astype(jnp.float32)
        return loss, _with_own(changed["batch_stats"], state), {"accuracy": right}

    return objective(loss_fn)


def cross_entropy_objective(model: Any, preprocessing: Preprocessing) -> ValueAndGrad:
    """value_and_grad of train.make_step: mean cross-entropy, nats, of images uint8 [B, H, W, 3], and their accuracy."""
    return classifier_objective(CROSS_ENTROPY, model, preprocessing)


show_fields(__name__)
