"""The segmentor's last layer fine-tuned on pasted objects with PEBAL's or RbA's loss, to compare with (Table 4).

Both change the segmentor, which the unknown estimation module does not: compare its mIoU before and after. PEBAL: Tian
et al., ECCV 2022; RbA: Nayal et al., ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from quantjax import losses, resize, scores
from quantjax.segmentation.heads import linear_head
from quantjax.segmentation.network import Segmentor, segment
from quantjax.segmentation.objectives import HUE, augment
from quantjax.segmentation.scoring import Score
from quantjax.segmentation.training import run_stage
from quantjax.train import Mean, ValueAndGrad, objective_of_means
from quantjax.train.stream import Batches
from quantjax.types import Array, PyTree

POWER = 0.9  # of the polynomial decay, both methods' released code


class FineTuning(NamedTuple):
    """A loss for the last layer and the score it is made for."""

    channels: int
    """Logits beside those of the K classes."""
    learning_rate: float
    """Of the method's released code."""
    loss: Callable[..., Array]
    """(logits [B, H, W, K + channels], labels [B, H, W], axis_name=...) -> [B]"""
    score: Score
    """(logits [H, W, K + channels], None, scales) -> [H, W]"""


def squashed_rba_loss(logits: Array, labels: Array, axis_name: str | None = None) -> Array:
    """RbA's loss on sigmoid(F): raw logits of a linear layer would saturate its tanh."""
    return losses.rba_loss(jax.nn.sigmoid(logits), labels, axis_name=axis_name)


def blurred_energy(logits: Array) -> Array:
    """PEBAL's score: the energy of the known classes, blurred."""
    return resize.blur(scores.energy(logits[..., :-1])[None])[0]


FINE_TUNINGS = {
    "pebal": FineTuning(1, 1e-5, losses.pebal_loss, lambda logits, u, scales: blurred_energy(logits)),
    "rba": FineTuning(0, 1e-4, squashed_rba_loss, lambda logits, u, scales: scores.rba(jax.nn.sigmoid(logits))),
}


def fine_tune(
    network: Segmentor,
    variables: PyTree,
    batches: Batches,
    tuning: FineTuning,
    *,
    num_classes: int,
    steps: int,
    key: Array,
    hue: float = HUE,
    **options: Any,
) -> tuple[Segmentor, PyTree]:
    """The segmentor with a linear head of K + channels logits, trained by `tuning`; everything else stays as it is.

    `variables` are those of a segmentor with a linear head. Batches and options as in segmentation.training.
    """
    network = network._replace(head=linear_head(num_classes + tuning.channels))
    head = widened(network, variables, key)
    optimizer = optax.adam(optax.polynomial_schedule(tuning.learning_rate, 0.0, POWER, steps))
    objective = fine_tuning_objective(network, tuning, hue=hue)
    key = jax.random.fold_in(key, 1)
    params, state = run_stage(objective, (head, (), variables), batches, optimizer, steps=steps, key=key, **options)
    return network, variables | {"head": {"params": params, "state": state}}


def fine_tuning_objective(network: Segmentor, tuning: FineTuning, *, hue: float = HUE) -> ValueAndGrad:
    """value_and_grad of the last layer; the batch is (segmentor variables, crops)."""

    def means(params: PyTree, model_state: PyTree, batch: PyTree, key: Array, axis_name: str | None):
        variables, crops = batch
        images, labels = augment(network.preprocessing, hue, crops, key, axis_name)
        variables = jax.lax.stop_gradient(variables) | {"head": {"params": params, "state": ()}}
        logits = segment(network, variables, images).logits
        values = tuning.loss(resize.bilinear(logits, labels.shape[1:]), labels, axis_name=axis_name)
        return {"fine_tuning": Mean(values.sum(), values.size, 1.0)}, model_state

    return objective_of_means(means)


def widened(network: Segmentor, variables: PyTree, key: Array) -> PyTree:
    """Parameters of the network's head, which may have more outputs than that of `variables`: those come first."""
    old = variables["head"]["params"]
    [dimension] = {leaf.shape[0] for leaf in jax.tree.leaves(old) if leaf.ndim == 2}
    new, _ = network.head.init(key, dimension)
    return jax.tree.map(lambda fresh, kept: jnp.asarray(fresh).at[..., : kept.shape[-1]].set(kept), new, old)
