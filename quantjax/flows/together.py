"""Fit several flows of one shape at once: other seeds, other quantile levels, one compiled program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import losses, train
from quantjax.checks import check_interval
from quantjax.flows.base import log_likelihood
from quantjax.flows.fit import (
    DEFAULTS,
    FittedFlow,
    TrainingCurve,
    check_views,
    epoch_order,
    flow_settings,
    preset_of,
    starting_rows,
)
from quantjax.flows.recipes import quantod
from quantjax.parallel import data_parallel
from quantjax.types import Array, PyTree

Report = Callable[[int, np.ndarray], None]  # (finished epochs, [S] loss of each flow in nats)


def fit_together(
    features: np.ndarray,
    *,
    seeds: Sequence[int],
    q: float | Sequence[float] = DEFAULTS["q"],
    report: Report | None = None,
    device: Any = None,
    **settings: Any,
) -> list[FittedFlow]:
    """What `fit(features, seed=seeds[s], q=q[s], **settings)` gives for each s, up to rounding, in one go on a device.

    features [N, D]; q is one level for all or one per seed; settings are those of DEFAULTS, the same for all flows.
    Small flows, and accelerators that one flow does not fill, gain; products that keep all cores busy do not.
    After every epoch comes report(finished epochs, losses [S]). Nothing is kept on disk on the way.
    Raises ValueError as `fit` does, and for levels and seeds that differ in number; FloatingPointError, which names the
    seed, when a training diverges.
    """
    given, levels, rows = _completed(settings), _levels(q, seeds), np.asarray(features, np.float32)
    check_views([rows])
    built = flow_settings(rows.shape[1], given)
    flow, preset, keys = quantod(**built), preset_of(given["preset"]), [jax.random.key(seed) for seed in seeds]
    epochs = preset.epochs if given["epochs"] is None else given["epochs"]
    shuffle = preset.shuffle if given["shuffle"] is None else given["shuffle"]
    orders = [epoch_order(shuffle, seed, len(rows), given["batch_size"]) for seed in seeds]
    optimizer = preset.optimizer(epochs * len(orders[0](0)))

    def start(key: Array, order: Callable[[int], np.ndarray]) -> train.TrainState:
        return train.init_state(
            flow.init(jax.random.fold_in(key, 2), jnp.asarray(starting_rows(rows, order(0)))), optimizer
        )

    def epoch(state: PyTree, data: PyTree, order: Array, key: Array, level: Array) -> tuple[PyTree, PyTree]:
        objective = losses.likelihood_objective(
            lambda params, x, masks: log_likelihood(flow, params, x, masks),
            flow.draw_masks,
            loss=given["loss"],
            q=level,
            draw_rows=given["batch_size"],
        )
        return train.make_epoch(train.make_step(objective, optimizer))(state, data, order, key)

    def epochs_of_all(states: PyTree, data: PyTree, order: Array, keys: Array, levels: Array, axis_name: None) -> Any:
        del axis_name
        return jax.vmap(epoch, (0, None, 0, 0, 0))(states, data, order, keys, levels)

    run = data_parallel(
        epochs_of_all, (None,) * 5, None, donate_argnums=(0,), devices=[device or jax.local_devices()[0]]
    )
    states = _stacked([start(key, order) for key, order in zip(keys, orders, strict=True)])
    shared = (rows, None), jnp.stack([jax.random.fold_in(key, 3) for key in keys]), jnp.asarray(levels, jnp.float32)
    noted = []
    for number in range(epochs):
        order = np.stack([order(number) for order in orders])
        states, infos = run(states, shared[0], order, *shared[1:])
        weights = (order >= 0).sum(axis=2)  # [S, steps]
        means = {name: np.average(np.asarray(value), axis=1, weights=weights) for name, value in infos.items()}
        _check_finite(means["loss"], seeds, number)
        noted.append(np.stack([means["loss"], means["mean_log_likelihood"]]))
        if report is not None:
            report(number + 1, means["loss"])
    return [_one(s, built, jax.device_get(states.params), np.stack(noted)) for s in range(len(seeds))]


def _completed(settings: dict[str, Any]) -> dict[str, Any]:
    known = [name for name in DEFAULTS if name not in ("seed", "q")]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"settings of all flows must be of {', '.join(known)}, got {', '.join(unknown)}")
    return {**DEFAULTS, **settings}


def _levels(q: float | Sequence[float], seeds: Sequence[int]) -> list[float]:
    levels = [q] * len(seeds) if isinstance(q, float | int) else list(q)
    if len(levels) != len(seeds):
        raise ValueError(f"q must be one level, or one for each of the {len(seeds)} seeds, got {len(levels)}")
    for level in levels:
        check_interval("q", level, 0.0, 1.0, closed="left")
    return levels


def _one(s: int, settings: dict[str, Any], params: PyTree, curves: np.ndarray) -> FittedFlow:
    """Flow s of parameters [S, ...] and curves [epochs, 2, S]."""
    own = jax.tree.map(lambda leaf: leaf[s], params)
    return FittedFlow(settings, own, TrainingCurve(np.arange(1, len(curves) + 1), curves[:, 0, s], curves[:, 1, s]))


def _stacked(states: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _check_finite(loss: np.ndarray, seeds: Sequence[int], epoch: int) -> None:
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        raise FloatingPointError(
            f"the loss of the flow of seed {seeds[bad[0]]} became {loss[bad[0]]} in epoch {epoch + 1}; lower the "
            "clamp, or look for extreme features"
        )
