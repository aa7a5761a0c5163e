"""A linear layer trained with cross-entropy on the features of a frozen network.

Features are standardised for the training alone: the scale goes into the layer's weights afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from quantjax import losses
from quantjax.checks import check_same_length, check_shape
from quantjax.extractors import probe
from quantjax.train.loop import Report, fit, shuffled_order
from quantjax.train.step import init_state, make_step, objective
from quantjax.types import Array, Batch, PyTree

LEARNING_RATE = 0.01  # of Adam, on standardised features; cosine to zero


def fit_probe(
    head: PyTree,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    report: Report | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
) -> PyTree:
    """Train `head`, {"kernel" [D, K], "bias" [K]}, on features float32 [N, D] and labels int [N]; NumPy arrays.

    Logits are features @ kernel + bias. report, checkpoints, resume and the errors raised are those of `train.fit`.
    Raises ValueError also for a wrong shape and lengths that differ.
    """
    check_shape("features", features, "[N, D]")
    check_same_length(features=features, labels=labels)
    mean, std = features.mean(0), features.std(0)
    std = np.where(std > 0.0, std, np.float32(1.0))
    steps = -(-len(features) // batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, epochs * steps))
    state = fit(
        make_step(objective(cross_entropy_loss), optimizer),
        init_state(head, optimizer),
        ((features - mean) / std, labels),
        lambda epoch: shuffled_order(seed, epoch, len(features), batch_size),
        epochs=epochs,
        key=jax.random.key(seed),
        report=report,
        checkpoints=checkpoints,
        resume=resume,
    )
    trained = jax.tree.map(np.asarray, state.params)
    kernel = trained["kernel"] / std[:, None]
    return {"kernel": kernel, "bias": trained["bias"] - mean @ kernel}


def cross_entropy_loss(
    params: PyTree, model_state: PyTree, batch: Batch, key: Array, axis_name: str | None
) -> tuple[Array, PyTree, dict[str, Any]]:
    """loss_fn of train.step.objective: cross-entropy per row, and whether the row is classified right."""
    del key, axis_name
    assert batch.labels is not None
    logits = probe.logits(params, batch.inputs)
    right = (logits.argmax(axis=1) == batch.labels).astype(jnp.float32)
    return losses.cross_entropy(logits, batch.labels), model_state, {"accuracy": right}
