"""Stage 2: a normalizing flow fitted to the classifier's features (QuantOD, eq. 3 and 4)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.images.config import INLIER, Settings
from experiments.progress import OpenProgress
from experiments.run_log import flow_epochs, record
from quantjax import flows, metrics
from quantjax.checks import check_finite
from quantjax.inference import batched
from quantjax.methods import Fitted
from quantjax.report import Curve
from quantjax.types import PyTree

SCORE_ROWS = 2048  # rows of one step of the per-epoch evaluation


class TrainedFlow(NamedTuple):
    """A trained flow, and how outlier detection went per epoch."""

    fitted: Fitted
    curve: Curve | None
    seconds: float


def fit(
    config: Settings,
    views: Sequence[np.ndarray],
    evaluation: Mapping[str, np.ndarray],
    folder: Path,
    progress: OpenProgress,
) -> TrainedFlow:
    """Fit the flow to `views`, V arrays [N, D] of the same rows; epoch e sees view e mod V.

    `evaluation` holds the features of "inlier" and of each outlier set; after each epoch their FPR95 and AUROC go to
    metrics.jsonl. They choose nothing: the last epoch is kept. Raises ValueError for features that are not finite.
    """
    for name, rows in evaluation.items():
        check_finite(f"features: {name}", rows, "check the weights and their preprocessing")
    flow = flows.quantod(**flows.flow_settings(views[0].shape[1], flows.DEFAULTS | fit_settings(config)))
    score = batched(lambda params, x: -flows.log_likelihood(flow, params, x), batch_size=SCORE_ROWS, shared=1)
    start = time.perf_counter()
    with progress("stage 2, epochs") as report:
        latest: dict[str, float] = {}

        def note(step: int, values: dict[str, float]) -> None:
            latest.update(values, step=step)

        def evaluate(epoch: int, params: PyTree) -> None:
            rates = _rates({name: score(params, rows) for name, rows in evaluation.items()})
            record(folder, {"stage": "flow", **latest, **rates}, tensorboard=config.tensorboard)
            shown = {key: rates[key] for key in ("fpr95", "auroc") if key in rates}
            report(epoch, config.flow_epochs, loss=latest["loss"], **shown)

        trained = flows.fit(
            views,
            **fit_settings(config),
            report=note,
            after_epoch=evaluate,
            checkpoints=folder / "checkpoints" / "flow",
            resume=config.resume,
        )
    fitted = Fitted(trained.settings, trained.params)
    return TrainedFlow(fitted, _curve(config, folder), time.perf_counter() - start)


def fit_settings(config: Settings) -> dict[str, Any]:
    """Keyword arguments of quantjax.flows.fit for these settings."""
    return {
        "preset": config.preset,
        "kind": config.flow,
        "blocks": config.blocks,
        "layers": config.layers,
        "width": config.width,
        "clamp": config.clamp,
        "loss": config.loss,
        "q": config.q,
        "epochs": config.flow_epochs,
        "batch_size": config.batch_size,
        "shuffle": config.shuffle,
        "seed": config.seed,
    }


def _rates(scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """FPR95 and AUROC in percent, inlier positive, per outlier set and on average; {} without such sets."""
    if set(scores) == {INLIER}:
        return {}
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


def _curve(config: Settings, folder: Path) -> Curve | None:
    """FPR95 and AUROC per epoch from the log."""
    rows = flow_epochs(folder)
    if not rows:
        return None
    epochs = sorted(rows)
    name = f"quantile, q = {config.q}" if config.loss == "quantile" else config.loss
    return Curve(name, epochs, [rows[e]["fpr95"] for e in epochs], [rows[e]["auroc"] for e in epochs])
