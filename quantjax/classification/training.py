"""Cross-entropy training of a classifier (Taghikhah et al., AAAI 2024, "Meta-parameters", after Liu et al. 2020).

Images are uint8 and lie on the device once; a step gathers its rows, flips and crops them, standardises them and
takes one SGD step with Nesterov momentum on a cosine schedule.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from quantjax import losses
from quantjax.checks import check_interval, check_same_length, check_shape
from quantjax.data import augment
from quantjax.extractors import NONE, standardise
from quantjax.parallel import local_rows
from quantjax.train.loop import Gather, Report, fit, shuffled_order
from quantjax.train.step import ValueAndGrad, accumulated, init_state, make_step, objective
from quantjax.types import Array, Batch, Preprocessing, PyTree

LEARNING_RATE, FINAL_LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 1e-6, 0.9, 5e-4


def fit_classifier(
    model: Any,
    images: Any,
    labels: Any,
    *,
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
    "batch_stats", as the networks of `extractors` do. A batch is worked through in `accumulate` parts, each with batch
    statistics of its own, whose gradients add up to one step. report, checkpoints, resume, devices and the errors
    raised are those of `train.fit`; the run is a function of its arguments and `seed` alone. Raises ValueError also for
    a wrong shape, lengths that differ, and batches that do not divide into `accumulate` parts.
    """
    check_shape("images", images, "[N, H, W, 3]")
    check_same_length(images=images, labels=labels)
    check_interval("accumulate", accumulate, 1, batch_size)
    if batch_size % accumulate:
        raise ValueError(f"accumulate must divide batch_size, {batch_size}, got {accumulate}")
    optimizer = sgd(epochs * -(-len(images) // batch_size))
    key = jax.random.key(seed)
    variables = model.init(jax.random.fold_in(key, 0), jnp.zeros((1, *images.shape[1:]), jnp.float32))
    state = fit(
        make_step(accumulated(cross_entropy_objective(model, preprocessing), accumulate), optimizer),
        init_state(variables["params"], optimizer, variables["batch_stats"]),
        (images, labels),
        lambda epoch: shuffled_order(seed, epoch, len(images), batch_size),
        epochs=epochs,
        key=jax.random.fold_in(key, 1),
        gather=augmented_rows(batch_size),
        report=report,
        checkpoints=checkpoints,
        resume=resume,
        devices=devices,
    )
    return jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.model_state})


def sgd(steps: int) -> optax.GradientTransformation:
    """SGD for a run of `steps` steps: Nesterov momentum 0.9, cosine from 0.1 to 1e-6, weight decay 5e-4.

    The decay is added to the gradient, as torch.optim.SGD does.
    """
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps, alpha=FINAL_LEARNING_RATE / LEARNING_RATE)
    return optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(schedule, momentum=MOMENTUM, nesterov=True))


def cross_entropy_objective(model: Any, preprocessing: Preprocessing) -> ValueAndGrad:
    """value_and_grad of train.make_step: mean cross-entropy, nats, of images uint8 [B, H, W, 3], and their accuracy."""

    def loss_fn(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, axis_name: str | None
    ) -> tuple[Array, PyTree, dict[str, Array]]:
        output, changed = model.apply(
            {"params": params, "batch_stats": model_state},
            standardise(batch.inputs, preprocessing),
            train=True,
            mask=batch.mask,
            axis_name=axis_name,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        assert batch.labels is not None
        right = (output.logits.argmax(axis=1) == batch.labels).astype(jnp.float32)
        return losses.cross_entropy(output.logits, batch.labels), changed["batch_stats"], {"accuracy": right}

    return objective(loss_fn)


def augmented_rows(batch_size: int) -> Gather:
    """gather of train.make_epoch: rows of (images, labels), flipped and cropped by draws for the global batch."""

    def gather(data: tuple[Any, Any], rows: Array, key: Array, axis_name: str | None = None) -> tuple[Array, Array]:
        images, labels = data
        # drawn for the batch itself: rows that only fill up the devices must not change the others' draws
        draws = local_rows(augment.draw(key, batch_size), axis_name, rows=len(rows))
        return augment.flip_and_crop(images[rows], draws), labels[rows]

    return gather
