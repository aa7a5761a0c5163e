"""The two stages as they are run: a stream of crops, checkpoints, and what is kept of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments.progress import OpenProgress
from experiments.run_log import record
from experiments.scenes import objectives, storage
from experiments.scenes.config import Settings
from experiments.scenes.sets import Sets
from quantjax import segmentation
from quantjax.data.loader import training_batches
from quantjax.heads.gmm import GmmState, noise_share
from quantjax.parallel import device_count, first_device_on_cpu
from quantjax.segmentation import Estimator, Segmentor, without_memory
from quantjax.types import Array, PyTree

SECOND = 2  # tells the draws of crops with objects from those of the first stage
REPORTS = 40  # rows of a stage in metrics.jsonl, at least


class Stage(NamedTuple):
    """What a stage cost."""

    seconds: float
    input_bound: float
    """Share of the time that the devices waited for crops, 0..1."""
    noise: float | None = None
    """Share of the mixture's memory that still holds its random start, None for a head without one."""


class Trained(NamedTuple):
    """Stage 2's result."""

    variables: PyTree
    """Of the estimator."""
    segmentor: PyTree
    """The segmentor it was fitted beside: the very same, unless its batch statistics drifted."""
    stage: Stage


def train_or_reread_segmentor(
    config: Settings,
    network: Segmentor,
    variables: PyTree,
    about: dict[str, Any],
    sets: Sets,
    key: Array,
    folder: Path,
    progress: OpenProgress,
) -> tuple[PyTree, Stage | None]:
    """Stage 1 from `variables`; a run that is resumed finds its finished segmentor again."""
    file = folder / storage.SEGMENTOR
    kept = storage.reread(file, final(config, variables), about)
    if kept is not None:
        return kept, None
    train = partial(
        segmentation.fit_segmentor, network, variables, key=key, optimizer=adam(config, config.steps),
        train_backbone=objectives.trains_backbone(config), **objectives.of_segmentor(config),
    )  # fmt: skip
    found, stage = watched(config, "segmentor", config.steps, train, crops(config, sets, None), folder, progress)
    trained = final(config, found)
    if "standardisation" in trained:
        ahead = crops(config, sets, None, shared=False)(config.steps)
        trained["standardisation"] = segmentation.fit_scale(network, trained, ahead)._asdict()
    storage.save(file, trained, about)
    return trained, stage._replace(noise=initial_noise(found["head"]))


def train_estimator(
    config: Settings,
    network: Segmentor,
    estimator: Estimator,
    segmentor: PyTree,
    sets: Sets,
    keys: tuple[Array, Array],
    folder: Path,
    progress: OpenProgress,
) -> Trained:
    """Stage 2, beside a segmentor that no gradient reaches; keys are those of initialisation and of the run."""
    train = partial(
        segmentation.fit_estimator, network, segmentor, estimator, key=keys[1],
        start=segmentation.start_estimator(network, segmentor, estimator, keys[0], config.crop),
        optimizer=adam(config, config.estimator_steps), **objectives.of_estimator(config, segmentor),
    )  # fmt: skip
    found, stage = watched(
        config, "estimator", config.estimator_steps, train, crops(config, sets, sets.objects), folder, progress
    )
    head = found.variables["head"]
    variables = found.variables | {"head": without_memory(head)}
    return Trained(variables, found.segmentor, stage._replace(noise=initial_noise(head)))


def crops(config: Settings, sets: Sets, objects: Any, *, shared: bool = True) -> Callable[[int], Iterator[Any]]:
    """Training crops of a stage: with objects pasted or, where objects is None, without; each has its own draws.

    shared: each of several processes reads its part of every batch, else all read the whole.
    """
    process = (jax.process_index(), jax.process_count()) if shared else (0, 1)
    return training_batches(
        sets.train,
        objects,
        crop=config.crop,
        batch_size=config.batch_size // process[1],
        process=process,
        seed=config.seed if objects is None else (config.seed, SECOND),
        probability=config.paste_probability,
        share=config.object_share,
        workers=config.workers,
    )


def final(config: Settings, variables: PyTree) -> PyTree:
    """A segmentor as it is kept: without the mixture's memory, with room for what preset paper stores beside it."""
    kept = variables | {"head": without_memory(variables["head"])}
    if config.preset == "paper" and config.variant[0] == "g":
        kept["standardisation"] = {"mean": np.float32(0.0), "deviation": np.float32(1.0)}
    return kept


def watched(
    config: Settings,
    name: str,
    steps: int,
    train: Callable[..., Any],
    batches: Callable[[int], Iterator[Any]],
    folder: Path,
    progress: OpenProgress,
) -> tuple[Any, Stage]:
    """The result of one stage of the library, and what it cost; progress goes to the terminal and to metrics.jsonl."""
    feed = TimedFeed(batches)
    begun = time.perf_counter()
    with progress(f"{name}, steps") as report:

        def note(step: int, means: dict[str, float]) -> None:
            row = {"stage": name, "epoch": step, **means}  # a stream has steps for epochs
            record(folder, row, tensorboard=config.tensorboard)
            report(step, steps, **means)

        found = train(
            batches=feed,
            steps=steps,
            report=note,
            report_every=max(steps // REPORTS, 1),
            checkpoints=folder / "checkpoints" / name,
            resume=config.resume,
            devices=devices_for(config.batch_size),
        )
    seconds = time.perf_counter() - begun
    return found, Stage(seconds, feed.waited / max(seconds, 1e-9))


def adam(config: Settings, steps: int) -> optax.GradientTransformation:
    """The released code's optimiser of a stage."""
    return segmentation.adam(steps, learning_rate=config.learning_rate, warmup=warmup(config, steps))


def warmup(config: Settings, steps: int) -> int:
    """Steps of warm-up; of preset short, and of a stage that has no more than --warmup, a tenth of the stage."""
    tenth = min(config.warmup, steps // 10)
    return tenth if config.preset == "short" or steps <= config.warmup else config.warmup


def devices_for(batch_size: int) -> list[Any] | None:
    """All accelerators, or one CPU device: matrix products take all cores, and steps of several devices cost more.

    Of several processes each has one such. Raises ValueError when the devices do not divide the batch.
    """
    devices = first_device_on_cpu()
    if batch_size % device_count(devices):
        raise ValueError(f"--batch-size must be a multiple of the {device_count(devices)} devices, got {batch_size}")
    return devices


def initial_noise(head: PyTree) -> float | None:
    """Share of the mixture's memory that still holds its random start, None for a head without one."""
    return float(noise_share(head["state"])) if isinstance(head["state"], GmmState) else None


class TimedFeed:
    """Batches that count the seconds their consumer waits for them, the first, which starts the workers, apart."""

    def __init__(self, batches: Callable[[int], Iterator[Any]]):
        self.batches, self.waited = batches, 0.0

    def __call__(self, first: int) -> Iterator[Any]:
        """The batches from step `first` on."""
        source = self.batches(first)
        yield next(source)
        while True:
            begun = time.perf_counter()
            batch = next(source)
            self.waited += time.perf_counter() - begun
            yield batch
