"""Stage 1 for a frozen transformer: a linear layer, trained with cross-entropy on cached class tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.images import features
from experiments.images.config import Settings
from experiments.progress import OpenProgress
from experiments.run_log import record
from quantjax import losses
from quantjax.extractors import probe
from quantjax.train.loop import fit, shuffled_order
from quantjax.train.step import init_state, make_step, objective
from quantjax.types import Batch, Preprocessing, PyTree

LEARNING_RATE = 0.01  # of Adam, on standardised features; cosine to zero


def train(
    config: Settings,
    model: Any,
    variables: PyTree,
    preprocessing: Preprocessing,
    images: np.ndarray,
    labels: np.ndarray,
    folder: Path,
    progress: OpenProgress,
) -> PyTree:
    """Replace the head in `variables` by one trained on the first len(labels) of images uint8 [N, H, W, 3].

    Class tokens of all N come from the cache that every later stage reads, too: the transformer sees an image once.
    """
    extractor = features.build(
        model, variables, preprocessing, config.image_size, config.score_batch_size, config.precision
    )
    tokens = features.extract(extractor, "training set", images, folder.parent / "cache", progress).features
    tokens = tokens[: len(labels)]
    mean, std = tokens.mean(0), tokens.std(0)
    std = np.where(std > 0.0, std, np.float32(1.0))
    transformer, head = probe.split(variables)
    head = fit_head(config, head, (tokens - mean) / std, labels, folder, progress)
    kernel = head["kernel"] / std[:, None]
    return probe.join(transformer, {"kernel": kernel, "bias": head["bias"] - mean @ kernel})


def fit_head(
    config: Settings, head: PyTree, inputs: np.ndarray, labels: np.ndarray, folder: Path, progress: OpenProgress
) -> PyTree:
    """Train {"kernel" [D, K], "bias" [K]} on inputs [N, D]."""
    steps = -(-len(inputs) // config.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, config.epochs * steps))
    with progress("stage 1, epochs") as report:

        def note(step: int, metrics: dict[str, float]) -> None:
            record(folder, {"stage": "classifier", "step": step, **metrics}, tensorboard=config.tensorboard)
            report(int(metrics["epoch"]), config.epochs, loss=metrics["loss"], accuracy=metrics["accuracy"])

        state = fit(
            make_step(objective(cross_entropy_loss), optimizer),
            init_state(head, optimizer),
            (inputs, labels),
            lambda epoch: shuffled_order(config.seed, epoch, len(inputs), config.batch_size),
            epochs=config.epochs,
            key=jax.random.key(config.seed),
            report=note,
            checkpoints=folder / "checkpoints" / "classifier",
            resume=config.resume,
        )
    return jax.tree.map(np.asarray, state.params)


def cross_entropy_loss(params: PyTree, model_state: PyTree, batch: Batch, key: Any, axis_name: str | None) -> Any:
    """loss_fn of train.step.objective: cross-entropy per row, and whether the row is classified right."""
    del key, axis_name
    assert batch.labels is not None
    logits = probe.logits(params, batch.inputs)
    right = (logits.argmax(axis=1) == batch.labels).astype(jnp.float32)
    return losses.cross_entropy(logits, batch.labels), model_state, {"accuracy": right}
