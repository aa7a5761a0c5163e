"""Epochs: which rows in which order, one compiled epoch over resident data, and the loop that can be killed.

Nothing random is drawn on the host while training: the order of epoch e is a function of seed and e, all other draws
are functions of the run's key and the step. So a run resumed from a checkpoint repeats what it would have done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import hosts, parallel
from quantjax.train import checkpoint, pace
from quantjax.train.step import Step, TrainState, check_finite, finiteness
from quantjax.types import Array, Batch, PyTree

Gather = Callable[..., tuple[Array, Array | None]]  # (data, rows [B] int32, key, axis_name=None) -> (inputs, labels)
Report = Callable[[int, dict[str, float]], None]  # (optimiser steps taken, metrics of the epoch)


def file_order(rows: int, batch: int) -> np.ndarray:
    """Return rows 0..N-1 in order as batches [S, B] int32, the last one filled up with -1."""
    return _in_batches(np.arange(rows), batch)


def shuffled_order(seed: int, epoch: int, rows: int, batch: int) -> np.ndarray:
    """Return rows 0..N-1 in a random order as batches [S, B] int32, the last one filled up with -1.

    The order depends on seed and epoch only.
    """
    return _in_batches(np.random.default_rng([seed, epoch]).permutation(rows), batch)


def _in_batches(order: np.ndarray, batch: int) -> np.ndarray:
    if batch < 1 or not len(order):
        raise ValueError(f"an epoch needs at least one row and batches of at least one, got {len(order)} and {batch}")
    return parallel.pad_axis(order.astype(np.int32), 0, batch, -1).reshape(-1, batch)


def take_rows(data: PyTree, rows: Array, key: Array, axis_name: str | None = None) -> tuple[Array, Array | None]:
    """Gather rows [B] of data = (inputs [N, ...], labels [N] or None), without augmentation."""
    del key, axis_name
    inputs, labels = data
    return inputs[rows], None if labels is None else labels[rows]


def make_epoch(step: Step, gather: Gather = take_rows) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Return epoch(state, data, order, key, axis_name=None) -> (state, infos), one lax.scan over order [S, B].

    data stays where it is; gather(data, rows [B], key, axis_name) picks a batch out of it and may augment it, from
    draws for the global batch. Rows of order that are -1 are padding: row 0 is read and masked. infos are stacked [S].
    With axis_name set, order is the device's share, [S, B / devices].
    """

    def epoch(state: TrainState, data: PyTree, order: Array, key: Array, axis_name: str | None = None):
        step_key, gather_key = jax.random.split(key)

        def body(state: TrainState, rows: Array):
            draw_key = jax.random.fold_in(gather_key, state.step)
            inputs, labels = gather(data, jnp.maximum(rows, 0), draw_key, axis_name)
            return step(state, Batch(inputs, labels, rows >= 0), step_key, axis_name)

        if order.shape[0] == 1:  # no while loop, see parallel.runs_loops_well
            state, info = body(state, order[0])
            return state, jax.tree.map(lambda value: value[None], info)
        return jax.lax.scan(body, state, order)

    return epoch


def fit(
    step: Step,
    state: TrainState,
    data: PyTree | Callable[[int], PyTree],
    order: Callable[[int], np.ndarray],
    *,
    epochs: int,
    key: Array,
    gather: Gather = take_rows,
    report: Report | None = None,
    after_epoch: Callable[[int, TrainState], None] | None = None,
    checkpoints: str | Path | None = None,
    checkpoint_seconds: float | None = None,
    keep: int = 2,
    resume: bool = False,
    devices: Sequence[Any] | None = None,
    whole_epochs: bool | None = None,
) -> TrainState:
    """Train for `epochs` epochs on `devices` (default: all local ones) and return the last state.

    data is what `gather` reads, or a function of the epoch (0, 1, ...) that returns it; it is put on the devices.
    order(epoch) is [S, B], equal S in every epoch. key is the typed key of the run. After each epoch, when its numbers
    have arrived: report(steps, {"epoch": finished epochs, "loss": mean over rows, ...}), after_epoch(finished epochs,
    state), whose state lives only until the next epoch, then the checkpoint: after the last epoch, and after others
    when `checkpoint_seconds` (default: pace.CHECKPOINT_SECONDS) have passed since the one before. A kill loses the
    epochs since.

    With resume=True the newest checkpoint in the folder `checkpoints`, if there is one, is where the run goes on, with
    the numbers that an uninterrupted run gives. whole_epochs: one call of the compiled function per epoch, or per
    step; None chooses what is fast on the device. The two agree up to rounding.

    Raises FloatingPointError, before anything is saved, when a loss or a parameter is no longer finite; ValueError
    when the folder holds checkpoints and resume is False, or when they are damaged or of another model or key.
    """
    state, first = checkpoint.starting_point(state, key, checkpoints, resume)
    if first >= epochs:
        return state
    whole = parallel.runs_loops_well(devices) if whole_epochs is None else whole_epochs
    call = parallel.data_parallel(
        make_epoch(step, gather), (None, None, 1, None), None, donate_argnums=(0,), devices=devices
    )
    finite = parallel.data_parallel(finiteness, (None,), None, devices=devices)
    state = parallel.replicate(state, devices, copy=True)
    placed_key = parallel.replicate(key, devices)
    save_now = pace.every(pace.CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds)
    saved = first
    resident = None if callable(data) else parallel.replicate(data, devices)
    for epoch in range(first, epochs):
        now = parallel.replicate(data(epoch), devices) if callable(data) else resident
        rows = parallel.pad_axis(order(epoch), 1, parallel.device_count(devices), -1)
        state, infos = _run_epoch(call, state, now, rows, placed_key, whole, devices)
        safe = f"{saved} finished epochs are safe in {checkpoints}" if checkpoints is not None and saved else ""
        check_finite(state, jax.device_get(finite(state)), infos["loss"], f"in epoch {epoch + 1}", safe)
        if report is not None:
            weights = (rows >= 0).sum(axis=1)
            means = {name: float(np.average(value, axis=0, weights=weights)) for name, value in infos.items()}
            report(int(jax.device_get(state.step)), {"epoch": epoch + 1, **means})
        if after_epoch is not None:
            after_epoch(epoch + 1, state)
        if checkpoints is not None and (hosts.agreed(save_now()) or epoch + 1 == epochs):
            checkpoint.save(checkpoints, state, epoch + 1, key, keep=keep)
            saved = epoch + 1
    return state


def _run_epoch(call, state, data, rows, key, whole, devices) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Run all steps of `rows` and fetch their numbers, once."""
    share = parallel.process_share(rows, 1)
    infos = []
    for part in [share] if whole else np.split(share, len(share)):
        state, info = call(state, data, parallel.upload(part, devices), key)
        infos.append(info)
    return state, jax.tree.map(lambda *values: np.concatenate(values), *jax.device_get(infos))
