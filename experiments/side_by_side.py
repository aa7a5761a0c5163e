"""Finished runs in groups of equal settings, and what stands in a cell for several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.settings import PLACE

Run = Mapping[str, Any]  # a results.json


def groups(runs: Sequence[Run], ignored: Sequence[str], apart: str = "") -> list[tuple[str, list[Run]]]:
    """(label, runs) for runs whose settings agree; the label names those that differ among all `runs`, if any.

    Neither the seed, nor where a run happened, nor the settings in `ignored` count. The setting `apart` tells runs
    apart without a place in the label.
    """
    keys = sorted({key for run in runs for key in run["config"]} - {*PLACE, "seed", apart, *ignored})
    differing = [key for key in keys if len({str(run["config"].get(key)) for run in runs}) > 1]
    found: dict[tuple[Any, str], list[Run]] = {}
    for run in runs:
        label = ", ".join(f"{key} {run['config'].get(key)}" for key in differing)
        found.setdefault((run["config"].get(apart), label), []).append(run)
    return [(label, group) for (_, label), group in found.items()]


def over_seeds(runs: Sequence[Run], value: Callable[[Run], float]) -> list[float]:
    """value(run) of every seed, the mean of those that share one: the same seed again is no further seed."""
    found: dict[Any, list[float]] = {}
    for run in runs:
        found.setdefault(run["config"]["seed"], []).append(value(run))
    return [statistics.fmean(values) for values in found.values()]


def spread(values: Sequence[float]) -> str:
    """The mean, with ± standard deviation where there are several."""
    mean = statistics.fmean(values)
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"
