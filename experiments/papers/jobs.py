"""The runs that a table or figure is made of: settings, carrying out what is missing, values read off the results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.images.config import PUBLISHED, QuantOD, is_probe, label_and_path
from experiments.papers.plan import AVERAGE, RUN, Line, Place, Plan, Value

# the smallest runs: bundled images, and settings that take seconds
SMALLEST: dict[str, Any] = {
    "inlier": "digits",
    "outliers": ("digits_8_9", "gratings"),
    "backbone": "wrn10_1",
    "image_size": 8,
    "epochs": 1,
    "flow_epochs": 2,
    "views": 0,
    "width": 16,
    "blocks": 2,
    "batch_size": 128,
}
SMALLER = {"wrn40_2": "wrn10_1", "resnet18": "resnet20"}  # networks in place of those of lines


class Job(NamedTuple):
    """One run of the command."""

    config: QuantOD
    lines: tuple[Line, ...]
    """That read their numbers off it."""


class Done(NamedTuple):
    """What came of a run."""

    results: Mapping[str, Any] | None
    """results.json; None where the run failed."""
    curve: Mapping[int, Mapping[str, Any]] = {}
    """The flow's rates after each epoch."""
    reasons: Mapping[str, str] = {}
    """Why there is nothing, of outlier sets that are missing, or of RUN as a whole."""
    failed: bool = False
    """Whether the reason is another than that files are missing."""


def jobs(plan: Plan, given: QuantOD, seeds: Sequence[int], *, smoke: bool = False) -> list[Job]:
    """Every run that the lines of the plan need, each once; `given` are the flags that all share."""
    found: dict[Any, Job] = {}
    for line in plan.lines:
        flags = _smaller(line.flags) if smoke else line.flags
        for seed in seeds:
            config = _with_weights(dataclasses.replace(given, **flags, seed=seed, resume=True), given.weights)
            if seed != seeds[0] and not _varies(config, line.method, given.weights):
                continue
            key = (config, line.method == PUBLISHED)  # apart, so that tables and figures share the run of a flow
            before = found.get(key, Job(config, ()))
            found[key] = before._replace(lines=(*before.lines, line))
    return [_with_methods(job) for job in found.values()]


def _smaller(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Of a line in a small run: on the bundled inliers, of a small network of another kind where it is about that."""
    network = {"backbone": SMALLER[flags["backbone"]]} if "backbone" in flags else {}
    return {name: value for name, value in flags.items() if name != "inlier"} | network


def _with_methods(job: Job) -> Job:
    names = tuple(dict.fromkeys(line.method for line in job.lines))
    return job._replace(config=dataclasses.replace(job.config, scores=names))


def _with_weights(config: QuantOD, pattern: Path | None) -> QuantOD:
    """{seed}, {inlier} and {backbone} in the name of --weights are those of the run."""
    if pattern is None:
        return config
    inlier = Path(label_and_path(config.inlier)[0]).name
    named = str(pattern).format(seed=config.seed, inlier=inlier, backbone=config.backbone)
    return dataclasses.replace(config, weights=Path(named).expanduser())


def _varies(config: QuantOD, method: str, pattern: Path | None) -> bool:
    """Whether a seed decides anything of the line's numbers; the draws of protocol paper do not count."""
    from quantjax import methods

    trained_here = pattern is None or is_probe(config.backbone) or "{seed}" in str(pattern)
    return trained_here or any(name.split(".")[-1] == "seed" for name in methods.get(method).defaults)


def carry_out(config: QuantOD, classifiers: dict[str, Path]) -> Done:
    """Run it, or find it finished; sets that are not there are left out, with the reason.

    `classifiers` holds folders of runs by the settings of their stage 1, and is added to: the next run of these
    settings takes the classifier from there.
    """
    from experiments import quantod
    from experiments.images.sets import absent
    from experiments.run_folder import FINISHED, release
    from experiments.run_log import flow_epochs

    reasons = absent(config)
    present = tuple(name for name in config.outliers or () if label_and_path(name)[0] not in reasons)
    if config.weights is not None and not config.weights.is_file():
        return Done(None, reasons={**reasons, RUN: f"no weights {config.weights}"})
    if not present:
        return Done(None, reasons={**reasons, RUN: "none of the outlier sets is there"})
    config = dataclasses.replace(config, outliers=present)
    alike = _stage_one(config)
    try:
        folder = quantod.carry_out(config, classifier=classifiers.get(alike)).folder
    except FileNotFoundError as error:
        return Done(None, reasons={**reasons, RUN: str(error)})
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        return Done(None, reasons={**reasons, RUN: str(error)}, failed=True)
    finally:
        release()
    classifiers.setdefault(alike, folder)
    return Done(json.loads((folder / FINISHED).read_text(encoding="utf-8")), flow_epochs(folder), reasons)


def _stage_one(config: QuantOD) -> str:
    """What two runs whose classifiers are alike have in common."""
    from experiments.images.config import AFTER_STAGE_ONE
    from experiments.settings import computed

    return json.dumps(computed(config, AFTER_STAGE_ONE), sort_keys=True)


def values(plan: Plan, done: Sequence[tuple[Job, Done]]) -> Iterator[Value]:
    """Every number of the plan, line by line."""
    for line in plan.lines:
        own = [(job, one) for job, one in done if line in job.lines]
        sets = list(dict.fromkeys(label_and_path(name)[0] for job, _ in own for name in job.config.outliers or ()))
        for place in _places(plan, sets, [one for _, one in own]):
            read = [_read(place, line.method, sets, one) for _, one in own]
            found = tuple(value for value in read if isinstance(value, float))
            reason = next((value for value in read if isinstance(value, str)), "")
            yield Value(line.label, place, found, line.published.get(place), "" if found else reason)


def _places(plan: Plan, sets: Sequence[str], own: Sequence[Done]) -> Iterator[Place]:
    columns = (*(sets if plan.by_set else ()), AVERAGE)
    epochs = sorted({epoch for one in own for epoch in one.curve}) if plan.drawing == "epochs" else []
    for measures in plan.cells:
        for measure in measures:
            if measure == "accuracy":
                yield Place(RUN, measure)
                continue
            for column in columns:
                yield Place(column, measure)
                yield from (Place(column, measure, epoch) for epoch in epochs)


def _read(place: Place, method: str, sets: Sequence[str], done: Done) -> float | str:
    """The number there, or why there is none."""
    wanted = {AVERAGE: (*sets, RUN), RUN: (RUN,)}.get(place.column, (place.column, RUN))
    for name in wanted:
        if name in done.reasons:
            return done.reasons[name]
    assert done.results is not None
    if place.epoch is not None:
        found = done.curve.get(place.epoch)
        return float(found[place.measure]) if found else f"epoch {place.epoch} was not reached"
    if place.column == RUN:
        return float(done.results[place.measure])
    rows = [row for row in done.results["rows"] if row["method"] == method]
    chosen = [float(row[place.measure]) for row in rows if place.column in (AVERAGE, row["outlier"])]
    return sum(chosen) / len(chosen)
