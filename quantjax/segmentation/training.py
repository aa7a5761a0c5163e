"""Both stages as calls: crops in, trained variables out.

Crops come from a function first step -> iterator of {"image": uint8 [B, H, W, 3], "label": uint8 [B, H, W]}, such as
data.loader.training_batches makes; labels are 0..K-1, 254 on pasted objects, 255 ignored. `options` of all functions
here are those of train.fit_stream: report, report_every, checkpoints, resume, devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from quantjax import resize
from quantjax.extractors import standardise
from quantjax.inference import map_batches
from quantjax.parallel import data_parallel
from quantjax.rows import IGNORED
from quantjax.scores import Standardisation, fit_standardisation
from quantjax.segmentation.network import (
    Estimator,
    FrozenSegmentor,
    Segmentor,
    frozen,
    init_estimator,
    last_map,
)
from quantjax.segmentation.objectives import (
    CONTRAST_WEIGHT,
    HUE,
    UNSCALED,
    Scales,
    estimator_objective,
    join_estimator,
    join_segmentor,
    segmentor_objective,
    split_segmentor,
    with_statistics,
)
from quantjax.train import ValueAndGrad, fit_stream, init_state, make_step
from quantjax.train.stream import Batches
from quantjax.types import Array, PyTree

LEARNING_RATE, FINAL_RATE, WARMUP = 5e-4, 1e-7, 1500  # released code


class FittedEstimator(NamedTuple):
    """Stage 2's result."""

    variables: PyTree
    """Of the estimator."""
    segmentor: PyTree
    """Variables of the network beside it: the very same, unless its batch statistics drifted."""


def fit_segmentor(
    network: Segmentor,
    variables: PyTree,
    batches: Batches,
    *,
    steps: int,
    key: Array,
    optimizer: optax.GradientTransformation | None = None,
    train_backbone: bool = False,
    contrast_weight: float = CONTRAST_WEIGHT,
    hue: float = HUE,
    **options: Any,
) -> PyTree:
    """Stage 1 from `variables` (see init_segmentor): decoder, head and, if it shall train, the backbone; NumPy arrays.

    key is that of the colour jitter, optimizer by default `adam`. Pasted objects are ignored.
    """
    params, model_state, fixed = split_segmentor(variables, train_backbone=train_backbone)
    objective = segmentor_objective(network, contrast_weight=contrast_weight, hue=hue)
    start = params, model_state, fixed
    trained = run_stage(objective, start, batches, optimizer, steps=steps, key=key, **options)
    return join_segmentor(*trained, fixed)


def fit_estimator(
    network: Segmentor | FrozenSegmentor,
    variables: PyTree,
    estimator: Estimator,
    batches: Batches,
    *,
    steps: int,
    key: Array,
    start: PyTree | None = None,
    optimizer: optax.GradientTransformation | None = None,
    class_weight: float = 0.0,
    contrast_weight: float = CONTRAST_WEIGHT,
    hue: float = HUE,
    freeze_statistics: bool = True,
    scales: Scales = UNSCALED,
    **options: Any,
) -> FittedEstimator:
    """Stage 2: fit the estimator beside a network whose `variables` stay as they are; see estimator_objective.

    start are the estimator's first variables, by default drawn from `key` for the first batch's images. Variables come
    back as NumPy arrays.
    """
    if start is None:
        size = next(batches(0))["image"].shape[1:3]
        start = start_estimator(network, variables, estimator, jax.random.fold_in(key, steps), size)
    objective = estimator_objective(
        network, estimator, class_weight=class_weight, contrast_weight=contrast_weight, hue=hue,
        freeze_statistics=freeze_statistics, scales=scales,
    )  # fmt: skip
    params = {"projector": start["projector"], "head": start["head"]["params"]}
    drifting = () if freeze_statistics else variables["decoder"]["batch_stats"]
    begin = params, {"head": start["head"]["state"], "decoder": drifting}, variables
    trained, state = run_stage(objective, begin, batches, optimizer, steps=steps, key=key, **options)
    beside = variables if freeze_statistics else with_statistics(variables, state["decoder"])
    return FittedEstimator(join_estimator(trained, state), beside)


def start_estimator(
    network: Segmentor | FrozenSegmentor, variables: PyTree, estimator: Estimator, key: Array, size: tuple[int, int]
) -> PyTree:
    """First variables of an estimator beside a network that sees images of `size` (height, width), pixels."""
    blank = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    maps, _ = jax.eval_shape(frozen(network).apply, variables, blank)
    tokens = jnp.zeros(last_map(maps).shape, jnp.float32)
    begin = data_parallel(
        lambda key, tokens, axis_name: init_estimator(estimator, key, tokens),
        (None, None), None, devices=jax.local_devices()[:1],
    )  # fmt: skip
    return begin(key, tokens)


def adam(
    steps: int, *, learning_rate: float = LEARNING_RATE, warmup: int | None = None
) -> optax.GradientTransformation:
    """Adam without weight decay; linear warm-up from 0, then linear decay to 1e-7 at `steps` (released code).

    warmup is 1,500 steps by default, and a tenth of a stage that has no more than those.
    """
    if warmup is None:
        warmup = WARMUP if steps > WARMUP else steps // 10
    rising = optax.linear_schedule(0.0, learning_rate, warmup)
    falling = optax.linear_schedule(learning_rate, FINAL_RATE, max(steps - warmup, 1))
    return optax.adam(optax.join_schedules([rising, falling], [warmup]))


def run_stage(
    objective: ValueAndGrad,
    start: tuple[PyTree, PyTree, PyTree],
    batches: Batches,
    optimizer: optax.GradientTransformation | None,
    *,
    steps: int,
    key: Array,
    **options: Any,
) -> tuple[PyTree, PyTree]:
    """(params, model_state) as NumPy arrays after `steps` steps from `start`, (params, model_state, frozen)."""
    params, model_state, fixed = start
    optimizer = adam(steps) if optimizer is None else optimizer
    begin = init_state(params, optimizer, model_state)
    step = make_step(objective, optimizer)
    state = fit_stream(step, begin, batches, steps=steps, key=key, frozen=fixed, **options)
    return jax.device_get((state.params, state.model_state))


def fit_scale(network: Segmentor, variables: PyTree, batches: Iterator[PyTree], *, count: int = 32) -> Standardisation:
    """Mean and deviation of max_k F_k over the labelled pixels of `count` batches of crops, in nats."""

    def best(images: Array) -> Array:
        _, logits = frozen(network).apply(variables, standardise(images, network.preprocessing))
        return jnp.max(logits, axis=-1)

    drawn = list(islice(batches, count))
    images, labels = (np.concatenate([batch[name] for batch in drawn]) for name in ("image", "label"))
    values = map_batches(best, images, batch_size=len(drawn[0]["image"]))
    labels = np.asarray(resize.nearest(jnp.asarray(labels), values.shape[1:3]))
    return fit_standardisation([values[labels != IGNORED]])
