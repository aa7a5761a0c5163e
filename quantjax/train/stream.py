"""Training on batches that arrive one by one, for data too large, or too varied, to stay on the device.

Batches are a function of the step, so a run resumed from a checkpoint sees those it would have seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from quantjax import hosts, parallel
from quantjax.checks import check_interval
from quantjax.train import checkpoint, pace
from quantjax.train.loop import Report
from quantjax.train.step import Step, TrainState, check_finite, finiteness
from quantjax.types import Array, PyTree

HOSTS_AGREE = 16  # steps between two questions to process 0 what its clock says: each waits for all hosts
IN_FLIGHT = 4  # steps that the host may be ahead of the devices, so that the clock measures what is done

Batches = Callable[[int], Iterator[PyTree]]  # first step (0, 1, ...) -> this process's batches from there on


def fit_stream(
    step: Step,
    state: TrainState,
    batches: Batches,
    *,
    steps: int,
    key: Array,
    frozen: PyTree = (),
    report: Report | None = None,
    report_every: int = 50,
    checkpoints: str | Path | None = None,
    checkpoint_seconds: float | None = None,
    keep: int = 2,
    resume: bool = False,
    devices: Sequence[Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainState:
    """Take `steps` optimiser steps on `devices` (default: all local ones) and return the last state.

    batches(first) yields pytrees of host arrays [B, ...], which the number of devices must divide; step(state, (frozen,
    batch), key, axis_name) receives a device's share and the same `frozen` arrays every time, weights that do not
    train, say. The next batch is fetched and sent while the devices still compute. Every `report_every` steps, every
    ten seconds of `clock`, and at the end: report(steps taken, means over the steps since the last report). Every
    `checkpoint_seconds` (default: pace.CHECKPOINT_SECONDS) and at the end a checkpoint, named by the steps taken, goes
    to the folder `checkpoints`; with resume=True its newest one is where the run goes on, with the numbers that an
    uninterrupted run gives.

    Raises FloatingPointError when a loss or a parameter is no longer finite, nothing of which is saved; ValueError as
    `checkpoint.starting_point`, and when the batches end too early.
    """
    check_interval("report_every", report_every, 1, float("inf"))
    state, first = checkpoint.starting_point(state, key, checkpoints, resume)
    if first >= steps:
        return state

    def one(state: TrainState, frozen: PyTree, batch: PyTree, key: Array, axis_name: str | None = None):
        return step(state, (frozen, batch), key, axis_name)

    call = parallel.data_parallel(one, (None, None, 0, None), None, donate_argnums=(0,), devices=devices)
    finite = parallel.data_parallel(finiteness, (None,), None, devices=devices)
    state = parallel.replicate(state, devices, copy=True)
    frozen, key_there = parallel.replicate(frozen, devices), parallel.replicate(key, devices)
    infos: list[dict[str, Array]] = []
    saved = first
    save_now = pace.every(pace.CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds, clock)
    report_now = pace.every(pace.REPORT_SECONDS, clock)
    feed = batches(first)
    for done, batch in zip(range(first + 1, steps + 1), feed, strict=False):
        state, info = call(state, frozen, parallel.upload(batch, devices), key_there)
        infos.append(info)
        if len(infos) > IN_FLIGHT:
            jax.block_until_ready(infos[-1 - IN_FLIGHT])
        asked = jax.process_count() == 1 or done % HOSTS_AGREE == 0
        at_checkpoint = checkpoints is not None and (done == steps or (asked and hosts.agreed(save_now())))
        at_report = done % report_every == 0 or done == steps or (asked and hosts.agreed(report_now()))
        if at_checkpoint or at_report:
            values = jax.tree.map(lambda *leaves: np.asarray(leaves), *jax.device_get(infos))
            safe = f"{saved} steps are safe in {checkpoints}" if checkpoints is not None and saved else ""
            where = f"in steps {done - len(infos) + 1} to {done}"
            check_finite(state, jax.device_get(finite(state)), values["loss"], where, safe)
            if report is not None:
                report(done, {name: float(np.mean(value)) for name, value in values.items()})
            infos = []
        if at_checkpoint:
            checkpoint.save(checkpoints, state, done, key, keep=keep)  # type: ignore[arg-type]
            saved = done
    taken = int(jax.device_get(state.step))
    if taken < steps:
        raise ValueError(f"batches ended after {taken} of {steps} steps; they must go on for ever")
    return state
