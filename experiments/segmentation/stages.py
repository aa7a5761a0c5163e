"""The two stages as they are run: a stream of crops, checkpoints, and what is kept of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.features import Progress
from experiments.run_log import record
from experiments.segmentation import objectives, storage
from experiments.segmentation.config import Settings
from experiments.segmentation.objectives import IGNORED
from experiments.segmentation.sets import Sets
from quantjax import resize, segmentation
from quantjax.data.loader import training_batches
from quantjax.extractors import standardise
from quantjax.heads.gmm import GmmState, noise_share
from quantjax.inference import map_batches
from quantjax.parallel import first_device_on_cpu
from quantjax.scores import fit_standardisation
from quantjax.segmentation import Estimator, Segmentor
from quantjax.train import fit_stream, init_state, make_step
from quantjax.types import Array, PyTree

FINAL_RATE = 1e-7  # released code
REPORTS, CHECKPOINTS = 40, 8  # per stage
STANDARDISED_BATCHES = 32  # training batches over which preset paper takes mean and deviation of max_k F_k


class Fitted(NamedTuple):
    """What a stage leaves behind."""

    params: PyTree
    model_state: PyTree
    seconds: float
    input_bound: float  # share of the time that the devices waited for crops, 0..1


class Trained(NamedTuple):
    """Stage 2's result."""

    variables: PyTree  # of the estimator
    segmentor: PyTree  # the segmentor it was fitted beside: the very same, unless its batch statistics drifted
    fitted: Fitted


def train_or_reread_segmentor(
    config: Settings,
    network: Segmentor,
    variables: PyTree,
    about: dict[str, Any],
    sets: Sets,
    key: Array,
    folder: Path,
    progress: Progress,
) -> tuple[PyTree, Fitted | None]:
    """Stage 1 from `variables`; a run that is resumed finds its finished segmentor again."""
    file = folder / storage.SEGMENTOR
    if file.exists():
        return storage.load(file, final(config, variables), about), None
    params, model_state, frozen = segmentation.split_segmentor(
        variables, train_backbone=objectives.trains_backbone(config)
    )
    batches = crops(config, sets, None)
    fitted = fit(
        config, "segmentor", config.steps, objectives.segmentor_objective(config, network),
        (params, model_state, frozen), batches, key, folder, progress,
    )  # fmt: skip
    trained = final(config, segmentation.join_segmentor(fitted.params, fitted.model_state, frozen))
    if "standardisation" in trained:
        ahead = crops(config, sets, None)(config.steps)
        trained["standardisation"] = standardisation(config, network, trained, ahead)
    storage.save(file, trained, about)
    return trained, fitted


def train_estimator(
    config: Settings,
    network: Segmentor,
    estimator: Estimator,
    segmentor: PyTree,
    sets: Sets,
    keys: tuple[Array, Array],
    folder: Path,
    progress: Progress,
) -> Trained:
    """Stage 2, beside a segmentor that no gradient reaches; keys are those of initialisation and of the run."""
    blank = jnp.zeros((1, *config.crop, 3), jnp.float32)
    maps = jax.eval_shape(network.features, segmentor["backbone"], blank)
    tokens = jnp.zeros(segmentation.last_map(maps).shape, jnp.float32)
    variables = jax.jit(partial(segmentation.init_estimator, estimator))(keys[0], tokens)
    drifting = () if config.freeze_statistics else segmentor["decoder"]["batch_stats"]
    start = (
        {"projector": variables["projector"], "head": variables["head"]["params"]},
        {"head": variables["head"]["state"], "decoder": drifting},
        segmentor,
    )
    objective = objectives.estimator_objective(config, network, estimator, segmentor)
    fitted = fit(
        config, "estimator", config.estimator_steps, objective, start,
        crops(config, sets, sets.objects), keys[1], folder, progress,
    )  # fmt: skip
    head = {"params": fitted.params["head"], "state": fitted.model_state["head"]}
    beside = segmentor
    if not config.freeze_statistics:
        beside = segmentation.with_statistics(segmentor, fitted.model_state["decoder"])
    return Trained({"projector": fitted.params["projector"], "head": storage.without_memory(head)}, beside, fitted)


def crops(config: Settings, sets: Sets, objects: Any) -> Callable[[int], Iterator[Any]]:
    """Training crops of a stage: with objects pasted or, where objects is None, without."""
    return training_batches(
        sets.train,
        objects,
        crop=config.crop,
        batch_size=config.batch_size,
        seed=config.seed,
        probability=config.paste_probability,
        share=config.object_share,
        workers=config.workers,
    )


def final(config: Settings, variables: PyTree) -> PyTree:
    """A segmentor as it is kept: without the mixture's memory, with room for what preset paper stores beside it."""
    kept = variables | {"head": storage.without_memory(variables["head"])}
    if config.preset == "paper" and config.variant[0] == "g":
        kept["standardisation"] = {"mean": np.float32(0.0), "deviation": np.float32(1.0)}
    return kept


def standardisation(config: Settings, network: Segmentor, segmentor: PyTree, batches: Iterator[Any]) -> PyTree:
    """Mean and deviation of max_k F_k over labelled pixels of training crops."""

    def best(images: Array) -> Array:
        output = segmentation.segment(network, segmentor, standardise(images, network.preprocessing))
        return jnp.max(output.logits, axis=-1)

    drawn = [next(batches) for _ in range(STANDARDISED_BATCHES)]
    images, labels = (np.concatenate([batch[name] for batch in drawn]) for name in ("image", "label"))
    values = map_batches(best, images, batch_size=config.batch_size)
    labels = np.asarray(resize.nearest(jnp.asarray(labels), values.shape[1:3]))
    return fit_standardisation([values[labels != IGNORED]])._asdict()


def fit(
    config: Settings,
    name: str,
    steps: int,
    value_and_grad: Any,
    start: tuple[PyTree, PyTree, PyTree],
    batches: Callable[[int], Iterator[Any]],
    key: Array,
    folder: Path,
    progress: Progress,
    optimizer: optax.GradientTransformation | None = None,
) -> Fitted:
    """Run one stage from (params, model_state, frozen); progress goes to the terminal and to metrics.jsonl."""
    params, model_state, frozen = start
    optimizer = optimizer or adam(config, steps)
    feed = TimedFeed(batches)
    begun = time.perf_counter()
    with progress(f"{name}, steps") as report:

        def note(step: int, means: dict[str, float]) -> None:
            row = {"stage": name, "epoch": step, **means}  # a stream has steps for epochs
            record(folder, row, tensorboard=config.tensorboard)
            report(step, steps, **means)

        state = fit_stream(
            make_step(value_and_grad, optimizer),
            init_state(params, optimizer, model_state),
            feed,
            steps=steps,
            key=key,
            frozen=frozen,
            report=note,
            report_every=max(steps // REPORTS, 1),
            checkpoints=folder / "checkpoints" / name,
            checkpoint_every=max(steps // CHECKPOINTS, 1),
            resume=config.resume,
            devices=devices_for(config.batch_size),
        )
    seconds = time.perf_counter() - begun
    params, model_state = jax.tree.map(np.asarray, (state.params, state.model_state))
    return Fitted(params, model_state, seconds, feed.waited / max(seconds, 1e-9))


def adam(config: Settings, steps: int) -> optax.GradientTransformation:
    """Adam without weight decay; linear warm-up from 0, then linear decay (released code)."""
    warmup = min(config.warmup, steps // 10)
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, warmup),
            optax.linear_schedule(config.learning_rate, FINAL_RATE, max(steps - warmup, 1)),
        ],
        [warmup],
    )
    return optax.adam(schedule)


def devices_for(batch_size: int) -> list[Any] | None:
    """All accelerators, or one CPU device: matrix products take all cores, and steps of several devices cost more.

    Raises ValueError when the devices do not divide the batch.
    """
    devices = first_device_on_cpu()
    if devices is None and batch_size % jax.device_count():
        raise ValueError(f"--batch-size must be a multiple of the {jax.device_count()} devices, got {batch_size}")
    return devices


def initial_noise(fitted: Fitted | None) -> float | None:
    """Share of the mixture's memory that still holds its random start, None for a head without one."""
    state = fitted.model_state["head"] if fitted is not None else None
    return float(noise_share(state)) if isinstance(state, GmmState) else None


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
