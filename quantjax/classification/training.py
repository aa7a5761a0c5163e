"""Training of a classifier (Taghikhah et al., AAAI 2024, "Meta-parameters", after Liu et al. 2020).

Images are uint8 and lie on the device once; a step gathers its rows, flips and crops them, standardises them and
takes one SGD step with Nesterov momentum on a cosine schedule. What for is an `Objective`, by default cross-entropy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from quantjax import trees
from quantjax.checks import check_interval, check_same_length, check_shape
from quantjax.classification.objectives import CROSS_ENTROPY, Objective, classifier_objective, network_of, start_of
from quantjax.data import augment
from quantjax.extractors import NONE
from quantjax.parallel import local_rows
from quantjax.train.loop import Gather, Report, fit, shuffled_order
from quantjax.train.step import accumulated, init_state, make_step
from quantjax.types import Array, Preprocessing, PyTree

LEARNING_RATE, FINAL_LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 1e-6, 0.9, 5e-4
# of a trained classifier that goes on with auxiliary outliers (outlier exposure; Liu et al. 2020)
FINE_TUNING_RATE, FINE_TUNING_EPOCHS = 1e-3, 10


def fit_classifier(
    model: Any,
    images: Any,
    labels: Any,
    *,
    objective: Objective = CROSS_ENTROPY,
    auxiliary: Any = None,
    start: PyTree | None = None,
    learning_rate: float = LEARNING_RATE,
    preprocessing: Preprocessing = NONE,
    epochs: int = 100,
    batch_size: int = 128,
    accumulate: int = 1,
    seed: int = 0,
    report: Report | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    devices: Any = None,
) -> PyTree:
    """Train a Linen classifier on images uint8 [N, H, W, 3] and labels int [N]; {"params", "batch_stats"}, NumPy.

    model.apply(variables, standardised images, train, mask, axis_name) returns a ClassifierOutput and updates
    "batch_stats", as the networks of `extractors` do. objective is one of classification.OBJECTIVES or one's own;
    auxiliary are the outliers uint8 [M, H, W, 3] that it may read. start are variables to go on from, by default drawn
    from `seed`; learning_rate is the first one of the schedule, FINE_TUNING_RATE where a trained classifier goes on. A
    batch is worked through in `accumulate` parts, each with batch statistics of its own, whose gradients add up to one
    step. report, checkpoints, resume, devices and the errors raised are those of `train.fit`; the run is a function of
    its arguments and `seed` alone. Raises ValueError also for a wrong shape, lengths that differ, batches that do not
    divide into `accumulate` parts, auxiliary outliers that are missing or not read, a start of another network, and
    an objective that does not suit the network.
    """
    check_shape("images", images, "[N, H, W, 3]")
    check_same_length(images=images, labels=labels)
    check_interval("accumulate", accumulate, 1, batch_size)
    if batch_size % accumulate:
        raise ValueError(f"accumulate must divide batch_size, {batch_size}, got {accumulate}")
    _check_auxiliary(objective, images, auxiliary)
    optimizer = sgd(epochs * -(-len(images) // batch_size), learning_rate)
    key = jax.random.key(seed)
    variables = model.init(jax.random.fold_in(key, 0), jnp.zeros((1, *images.shape[1:]), jnp.float32))
    if start is not None:
        variables = _checked(start, variables)
    params, model_state = start_of(objective, variables, epochs * len(images))
    value_and_grad = accumulated(classifier_objective(objective, model, preprocessing), accumulate)
    state = fit(
        make_step(value_and_grad, optimizer),
        init_state(params, optimizer, model_state),
        (images, labels) if auxiliary is None else (images, labels, auxiliary),
        lambda epoch: shuffled_order(seed, epoch, len(images), batch_size),
        epochs=epochs,
        key=jax.random.fold_in(key, 1),
        gather=augmented_rows(batch_size, objective.auxiliary),
        report=report,
        checkpoints=checkpoints,
        resume=resume,
        devices=devices,
    )
    trained = {"params": network_of(state.params), "batch_stats": network_of(state.model_state)}
    return jax.tree.map(np.asarray, trained)


def _checked(start: PyTree, variables: PyTree) -> PyTree:
    try:
        trees.check(start, variables)
    except ValueError as error:
        raise ValueError(f"start must be variables of this network: {error}") from None
    return start


def _check_auxiliary(objective: Objective, images: Any, auxiliary: Any) -> None:
    if auxiliary is None and objective.auxiliary:
        raise ValueError("auxiliary must be given, images of outliers: the objective reads them")
    if auxiliary is not None and not objective.auxiliary:
        raise ValueError("auxiliary must be left out: the objective reads no outliers")
    if auxiliary is not None:
        check_shape("auxiliary", auxiliary, f"[M, {', '.join(map(str, images.shape[1:]))}]")
        check_interval("the number of auxiliary outliers", len(auxiliary), 1, float("inf"))


def sgd(steps: int, learning_rate: float = LEARNING_RATE) -> optax.GradientTransformation:
    """SGD for a run of `steps` steps: Nesterov momentum 0.9, cosine from `learning_rate` to 1e-6, weight decay 5e-4.

    The decay is added to the gradient, as torch.optim.SGD does.
    """
    schedule = optax.cosine_decay_schedule(learning_rate, steps, alpha=FINAL_LEARNING_RATE / learning_rate)
    return optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(schedule, momentum=MOMENTUM, nesterov=True))


def augmented_rows(batch_size: int, auxiliary: int = 0) -> Gather:
    """gather of train.make_epoch: rows of (images, labels), flipped and cropped by draws for the global batch.

    With A auxiliary outliers a row, data is (images, labels, outliers) and inputs are [B, 1 + A, H, W, 3]: of each row
    an inlier and A outliers drawn from all of them, augmented alike.
    """

    def gather(data: tuple[Any, ...], rows: Array, key: Array, axis_name: str | None = None) -> tuple[Array, Array]:
        images, labels = data[:2]
        # drawn for the batch itself: rows that only fill up the devices must not change the others' draws
        draws = local_rows(augment.draw(key, batch_size), axis_name, rows=len(rows))
        inliers = augment.flip_and_crop(images[rows], draws)
        if not auxiliary:
            return inliers, labels[rows]
        outliers = beside(data[2], len(rows), jax.random.fold_in(key, 1), axis_name)
        return jnp.concatenate([inliers[:, None], outliers], axis=1), labels[rows]

    def beside(images: Array, rows: int, key: Array, axis_name: str | None) -> Array:
        """Outliers [B, A, H, W, 3] for this device's rows."""
        which_key, draw_key = jax.random.split(key)
        which = jax.random.randint(which_key, (batch_size, auxiliary), 0, len(images), jnp.int32)
        draws = augment.draw(draw_key, batch_size * auxiliary)
        by_row = jax.tree.map(lambda leaf: leaf.reshape(batch_size, auxiliary), draws)
        which, own = local_rows((which, by_row), axis_name, rows=rows)
        taken = augment.flip_and_crop(images[which.reshape(-1)], jax.tree.map(jnp.ravel, own))
        return taken.reshape(-1, auxiliary, *images.shape[1:])

    return gather
