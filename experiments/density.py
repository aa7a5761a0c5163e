"""Stage 2: a normalizing flow fitted to the classifier's features (QuantOD, eq. 3 and 4)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config import INLIER, Settings
from experiments.features import Progress
from experiments.run_log import FILE, record
from quantjax import losses, metrics
from quantjax.checks import check_finite
from quantjax.flows import log_likelihood, quantod
from quantjax.inference import batched
from quantjax.parallel import first_device_on_cpu
from quantjax.report import Curve, read_jsonl
from quantjax.train.loop import file_order, shuffled_order
from quantjax.train.loop import fit as fit_epochs
from quantjax.train.step import init_state, make_step
from quantjax.types import PyTree

LEARNING_RATE, WEIGHT_DECAY = 9e-5, 1e-6  # Taghikhah et al. 2024, "Meta-parameters"
DROPOUT = 0.3
CLIP_NORM = 1.0  # preset reference, with Adam's betas of 0.8 and epsilon of 1e-4
MIXING = {"paper": "linear", "reference": "permutation"}
SCORE_ROWS = 2048  # rows of one step of the per-epoch evaluation


class FittedFlow(NamedTuple):
    """A trained flow: what builds it, its parameters, and how outlier detection went per epoch."""

    settings: dict[str, Any]  # keyword arguments of quantjax.flows.quantod
    params: PyTree
    curve: Curve
    seconds: float


def fit(
    config: Settings,
    views: Sequence[np.ndarray],
    evaluation: Mapping[str, np.ndarray],
    folder: Path,
    progress: Progress,
) -> FittedFlow:
    """Fit the flow to `views`, V arrays [N, D] of the same rows; epoch e sees view e mod V.

    `evaluation` holds the features of "inlier" and of each outlier set; after each epoch their FPR95 and AUROC go to
    metrics.jsonl. They choose nothing: the last epoch is kept. Raises ValueError for features that are not finite.
    """
    for name, rows in [*((f"training, view {v}", view) for v, view in enumerate(views)), *evaluation.items()]:
        check_finite(f"features: {name}", rows, "check the weights and their preprocessing")
    settings = flow_settings(config, views[0].shape[1])
    flow = quantod(**settings)
    optimizer = adam(config.preset)
    key = jax.random.key(config.seed)
    # ActNorm starts from the statistics of the first batch
    order = epoch_order(config, len(views[0]))
    first = order(0)[0]
    params = flow.init(jax.random.fold_in(key, 2), jnp.asarray(views[0][first[first >= 0]]))
    value_and_grad = losses.likelihood_objective(
        lambda params, x, masks: log_likelihood(flow, params, x, masks),
        flow.draw_masks,
        loss=config.loss,
        q=config.q,
        draw_rows=config.batch_size,
    )
    score = batched(lambda params, x: -log_likelihood(flow, params, x), batch_size=SCORE_ROWS, shared=1)
    start = time.perf_counter()

    with progress("stage 2, epochs") as report:
        latest: dict[str, float] = {}

        def note(step: int, values: dict[str, float]) -> None:
            latest.update(values, step=step)

        def evaluate(epoch: int, state: Any) -> None:
            scores = {name: score(state.params, rows) for name, rows in evaluation.items()}
            rates = _rates(scores)
            record(folder, {"stage": "flow", **latest, **rates}, tensorboard=config.tensorboard)
            report(epoch, config.flow_epochs, loss=latest["loss"], fpr95=rates["fpr95"], auroc=rates["auroc"])

        state = fit_epochs(
            make_step(value_and_grad, optimizer),
            init_state(params, optimizer),
            (views[0], None) if len(views) == 1 else lambda epoch: (views[epoch % len(views)], None),
            order,
            epochs=config.flow_epochs,
            key=jax.random.fold_in(key, 3),
            report=note,
            after_epoch=evaluate,
            checkpoints=folder / "checkpoints" / "flow",
            resume=config.resume,
            whole_epochs=True,
            devices=first_device_on_cpu(),  # matrix products use all cores, and one Adam is cheaper than one per core
        )
    return FittedFlow(
        settings, jax.tree.map(np.asarray, state.params), _curve(config, folder / FILE), time.perf_counter() - start
    )


def flow_settings(config: Settings, dimension: int) -> dict[str, Any]:
    """Keyword arguments of quantjax.flows.quantod for these settings."""
    return {
        "kind": config.flow,
        "dimension": dimension,
        "blocks": config.blocks,
        "layers": config.layers,
        "width": config.width,
        "dropout": DROPOUT,
        "clamp": config.clamp,
        "mixing": MIXING[config.preset],
    }


def adam(preset: str) -> optax.GradientTransformation:
    """Adam with L2 weight decay added to the gradient, as torch.optim.Adam does it."""
    decay = optax.add_decayed_weights(WEIGHT_DECAY)
    if preset == "paper":
        return optax.chain(decay, optax.adam(LEARNING_RATE))
    clip = optax.clip_by_global_norm(CLIP_NORM)
    return optax.chain(clip, decay, optax.adam(LEARNING_RATE, b1=0.8, b2=0.8, eps=1e-4))


def epoch_order(config: Settings, rows: int) -> Any:
    """order(epoch) -> [S, B] of train.loop.fit."""
    if config.shuffle:
        return lambda epoch: shuffled_order(config.seed, epoch, rows, config.batch_size)
    return lambda epoch: file_order(rows, config.batch_size)


def _rates(scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """FPR95 and AUROC in percent, inlier positive, per outlier set and on average."""
    sets = {
        name: {
            "fpr95": 100.0 * metrics.fpr_at_tpr(scores[INLIER], rows),
            "auroc": 100.0 * metrics.auroc(scores[INLIER], rows),
        }
        for name, rows in scores.items()
        if name != INLIER
    }
    averages = {key: float(np.mean([one[key] for one in sets.values()])) for key in ("fpr95", "auroc")}
    return {**averages, "sets": sets}


def _curve(config: Settings, log: Path) -> Curve:
    """FPR95 and AUROC per epoch from the log; an epoch that was run twice, because of a kill, counts once."""
    rows = {int(row["epoch"]): row for row in read_jsonl(log) if row.get("stage") == "flow"}
    epochs = sorted(rows)
    name = f"quantile, q = {config.q}" if config.loss == "quantile" else config.loss
    return Curve(name, epochs, [rows[e]["fpr95"] for e in epochs], [rows[e]["auroc"] for e in epochs])
