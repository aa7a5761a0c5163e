"""Table 4: the segmentor's last layer fine-tuned on pasted objects with PEBAL's or RbA's loss, for comparison.

Both change the segmentor, which the unknown estimation module does not: compare their mIoU with the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.features import Progress
from experiments.segmentation import stages
from experiments.segmentation.config import Settings
from experiments.segmentation.evaluation import PREDICTION, Scorer
from experiments.segmentation.sets import Sets
from quantjax import losses, resize, scores, segmentation
from quantjax.extractors import standardise
from quantjax.inference import sliding
from quantjax.segmentation import Segmentor
from quantjax.segmentation.objectives import augment
from quantjax.train import Mean, objective_of_means
from quantjax.types import Array, PyTree


class Baseline(NamedTuple):
    """A fine-tuning loss and the score it is made for."""

    channels: int  # logits beside those of the K classes
    learning_rate: float
    loss: Callable[..., Array]  # (logits [B, H, W, K + channels], labels, axis_name=...) -> [B]
    score: Callable[[Array], Array]  # logits [H, W, K + channels] -> [H, W]


def squashed_rba_loss(logits: Array, labels: Array, axis_name: str | None = None) -> Array:
    """RbA's loss on sigmoid(F): raw logits of a linear layer would saturate its tanh."""
    return losses.rba_loss(jax.nn.sigmoid(logits), labels, axis_name=axis_name)


def blurred_energy(logits: Array) -> Array:
    """PEBAL's score: the energy of the known classes, blurred."""
    return resize.blur(scores.energy(logits[..., :-1])[None])[0]


# learning rates of the methods' released code, both with polynomial decay of power 0.9
BASELINES = {
    "pebal": Baseline(1, 1e-5, losses.pebal_loss, blurred_energy),
    "rba": Baseline(0, 1e-4, squashed_rba_loss, lambda logits: scores.rba(jax.nn.sigmoid(logits))),
}
POWER = 0.9


def fine_tune(
    config: Settings,
    name: str,
    network: Segmentor,
    segmentor: PyTree,
    sets: Sets,
    key: Array,
    folder: Path,
    progress: Progress,
) -> PyTree:
    """The segmentor with its last layer trained for as many steps as stage 2; everything else stays as it is."""
    baseline = BASELINES[name]
    channels = len(sets.class_names) + baseline.channels
    network = network._replace(head=segmentation.linear_head(channels))
    head = widened(network, segmentor, key)
    schedule = optax.polynomial_schedule(baseline.learning_rate, 0.0, POWER, config.estimator_steps)
    fitted = stages.fit(
        config, name, config.estimator_steps, baseline_objective(config, baseline, network),
        (head, (), segmentor), stages.crops(config, sets, sets.objects), jax.random.fold_in(key, 1), folder, progress,
        optimizer=optax.adam(schedule),
    )  # fmt: skip
    return segmentor | {"head": {"params": fitted.params, "state": ()}}


def baseline_objective(config: Settings, baseline: Baseline, network: Segmentor) -> Any:
    """value_and_grad of the last layer; the batch is (segmentor variables, crops with label 254 on pasted objects)."""

    def means(params: PyTree, model_state: PyTree, batch: Any, key: Array, axis_name: str | None):
        frozen, crops = batch
        images, labels = augment(network.preprocessing, config.hue, crops, key, axis_name)
        variables = jax.lax.stop_gradient(frozen) | {"head": {"params": params, "state": ()}}
        logits = segmentation.segment(network, variables, images).logits
        values = baseline.loss(resize.bilinear(logits, labels.shape[1:]), labels, axis_name=axis_name)
        return {"fine_tuning": Mean(values.sum(), values.size, 1.0)}, model_state

    return objective_of_means(means)


def widened(network: Segmentor, segmentor: PyTree, key: Array) -> PyTree:
    """Parameters of the network's head, which may have more outputs than the segmentor's: those come first."""
    old = segmentor["head"]["params"]
    [dimension] = {leaf.shape[0] for leaf in jax.tree.leaves(old) if leaf.ndim == 2}
    new, _ = network.head.init(key, dimension)
    return jax.tree.map(lambda fresh, kept: jnp.asarray(fresh).at[..., : kept.shape[-1]].set(kept), new, old)


def make_scorer(config: Settings, name: str, network: Segmentor, num_classes: int) -> Scorer:
    """run(segmentor variables, image uint8 [H, W, 3]) -> {name: [H, W] float32, prediction}."""
    baseline = BASELINES[name]
    network = network._replace(head=segmentation.linear_head(num_classes + baseline.channels))

    def windows(variables: PyTree, images: Array) -> Array:
        output = segmentation.segment(network, variables, standardise(images, network.preprocessing))
        return resize.bilinear(output.logits, images.shape[1:3])

    def finish(logits: Array) -> dict[str, Array]:
        classes = jnp.argmax(logits[..., :num_classes], axis=-1)
        return {name: baseline.score(logits), PREDICTION: classes.astype(jnp.uint8)}

    return sliding(windows, finish, window=config.window, stride=config.stride, batch_size=config.window_batch)
