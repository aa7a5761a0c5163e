"""Fit a normalizing flow to features: QuantOD's second stage (Taghikhah et al., AAAI 2024, eq. 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from quantjax import losses, train
from quantjax.checks import check_choice, check_finite, check_interval, check_shape
from quantjax.flows.base import log_likelihood
from quantjax.flows.recipes import quantod
from quantjax.parallel import first_device_on_cpu
from quantjax.types import PyTree

LEARNING_RATE, WEIGHT_DECAY = 9e-5, 1e-6  # Taghikhah et al. 2024, "Meta-parameters"
START_ROWS = 2**16  # most rows that ActNorm's start looks at
CLIP_NORM = 1.0  # preset reference, with Adam's betas of 0.8 and epsilon of 1e-4


class Preset(NamedTuple):
    """In what the paper's text, its released program and this library's own choice differ."""

    mixing: str
    """Between coupling blocks, see recipes.quantod."""
    epochs: int
    """Passes over the training rows."""
    shuffle: bool
    """Whether every epoch has an order of its own, or reads the rows as they come."""
    optimizer: Callable[[int], optax.GradientTransformation]
    """Steps of the training -> Adam as each of them has it."""
    start: str = "normalised"
    """Of the parameters, see recipes.quantod."""


def _paper_adam(steps: int) -> optax.GradientTransformation:
    del steps
    return optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.adam(LEARNING_RATE))


def _reference_adam(steps: int) -> optax.GradientTransformation:
    del steps
    decay, clip = optax.add_decayed_weights(WEIGHT_DECAY), optax.clip_by_global_norm(CLIP_NORM)
    return optax.chain(clip, decay, optax.adam(LEARNING_RATE, b1=0.8, b2=0.8, eps=1e-4))


def _falling_adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(1e-3, steps, 0.02), b2=0.99)


PRESETS: dict[str, Preset] = {
    "paper": Preset("linear", 50, True, _paper_adam),
    "reference": Preset("permutation", 25, False, _reference_adam),
    "best": Preset("permutation", 6, True, _falling_adam, start="identity"),
}
# Table 3 and "Meta-parameters"; None: the preset's
DEFAULTS: dict[str, Any] = {
    "preset": "paper",
    "kind": "glow",
    "blocks": 8,
    "layers": 2,
    "width": 512,
    "clamp": 3.0,
    "dropout": 0.3,
    "loss": "quantile",
    "q": 0.05,
    "epochs": None,
    "batch_size": 128,
    "shuffle": None,
    "seed": 0,
}
# what goes with preset best: docs/methods.md says what was tried
BEST: dict[str, Any] = DEFAULTS | {
    "preset": "best",
    "layers": 1,
    "width": 256,
    "clamp": 2.0,
    "dropout": 0.0,
    "batch_size": 256,
}


class TrainingCurve(NamedTuple):
    """How the training went, one entry per epoch of this call; a resumed run's begins where it went on."""

    epochs: np.ndarray
    """[E] int, finished epochs."""
    loss: np.ndarray
    """[E] nats, mean over the steps of the objective that was minimised, dropout on."""
    mean_log_likelihood: np.ndarray
    """[E] nats, mean over the training rows, dropout on."""


class FittedFlow(NamedTuple):
    """A trained flow."""

    settings: dict[str, Any]
    """Keyword arguments of `quantod` that build it, plain JSON values."""
    params: PyTree
    """NumPy arrays."""
    curve: TrainingCurve
    """Of the training."""


def fit(
    features: np.ndarray | Sequence[np.ndarray],
    *,
    centres: np.ndarray | None = None,
    preset: str = DEFAULTS["preset"],
    kind: str = DEFAULTS["kind"],
    blocks: int = DEFAULTS["blocks"],
    layers: int = DEFAULTS["layers"],
    width: int = DEFAULTS["width"],
    clamp: float = DEFAULTS["clamp"],
    dropout: float = DEFAULTS["dropout"],
    loss: str = DEFAULTS["loss"],
    q: float = DEFAULTS["q"],
    epochs: int | None = None,
    batch_size: int = DEFAULTS["batch_size"],
    shuffle: bool | None = None,
    seed: int = DEFAULTS["seed"],
    report: train.Report | None = None,
    after_epoch: Callable[[int, PyTree], None] | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    devices: Sequence[Any] | None = None,
) -> FittedFlow:
    """Fit QuantOD's flow to inlier features [N, D], or to V views of them in turn: epoch e sees view e mod V.

    preset, "paper", "reference" or "best" (with the rest of BEST), decides optimiser, mixing and start, and epochs and
    shuffle where they are None. centres [M, D], class means say, make the latent a mixture of M normals that begin
    there: on features whose classes have unit covariance preset "best" then begins as their Gaussians. kind, blocks,
    layers, width, clamp and dropout as recipes.quantod; loss (quantile, mean or min) and q as
    losses.likelihood_objective; batch_size counts the rows of one step over all devices. After every epoch come
    report(steps taken, {"epoch", "loss", "mean_log_likelihood"}), in nats, and after_epoch(finished epochs, params).
    checkpoints, resume as train.fit; devices None is all of them, on a CPU one, whose products use every core.
    The last epoch is kept. ActNorm starts from the first batch, or from more rows where that shows a feature asleep.

    Raises ValueError for features or centres that are not finite, of another shape, or fewer than two rows, and for
    settings out of their range; FloatingPointError when the training diverges.
    """
    chosen = preset_of(preset)
    views = [np.asarray(view, np.float32) for view in ([features] if hasattr(features, "ndim") else features)]
    check_views(views)
    check_interval("batch_size", batch_size, 2, float("inf"))
    epochs = chosen.epochs if epochs is None else epochs
    check_interval("epochs", epochs, 1, float("inf"))
    built = dict(preset=preset, kind=kind, blocks=blocks, layers=layers, width=width, clamp=clamp, dropout=dropout)
    settings = flow_settings(views[0].shape[1], built, None if centres is None else len(centres))
    flow, key = quantod(**settings), jax.random.key(seed)
    order = epoch_order(chosen.shuffle if shuffle is None else shuffle, seed, len(views[0]), batch_size)
    optimizer = chosen.optimizer(epochs * len(order(0)))
    params = flow.init(jax.random.fold_in(key, 2), jnp.asarray(starting_rows(views[0], order(0))))
    if centres is not None:
        check_shape("centres", centres, f"[M, {views[0].shape[1]}]")
        check_finite("centres", centres)
        params = params | {"centres": flow.forward(params, jnp.asarray(centres, jnp.float32))[0]}
    objective = losses.likelihood_objective(
        lambda params, x, masks: log_likelihood(flow, params, x, masks),
        flow.draw_masks,
        loss=loss,
        q=q,
        draw_rows=batch_size,
    )
    noted: list[tuple[float, ...]] = []

    def note(step: int, metrics: dict[str, float]) -> None:
        noted.append((metrics["epoch"], metrics["loss"], metrics["mean_log_likelihood"]))
        if report is not None:
            report(step, metrics)

    state = train.fit(
        train.make_step(objective, optimizer),
        train.init_state(params, optimizer),
        (views[0], None) if len(views) == 1 else lambda epoch: (views[epoch % len(views)], None),
        order,
        epochs=epochs,
        key=jax.random.fold_in(key, 3),
        report=note,
        after_epoch=None if after_epoch is None else lambda epoch, state: after_epoch(epoch, state.params),
        checkpoints=checkpoints,
        resume=resume,
        whole_epochs=True,
        devices=first_device_on_cpu() if devices is None else devices,  # one Adam is cheaper than one per core
    )
    numbers, loss_values, likelihoods = np.asarray(noted, np.float64).reshape(-1, 3).T
    curve = TrainingCurve(numbers.astype(int), loss_values, likelihoods)
    return FittedFlow(settings, jax.tree.map(np.asarray, state.params), curve)


def flow_settings(dimension: int, settings: Mapping[str, Any], components: int | None = None) -> dict[str, Any]:
    """Keyword arguments of `quantod` for those of `fit`, all of DEFAULTS; what says how to train is left out."""
    own = {name: settings[name] for name in ("blocks", "layers", "width", "dropout", "clamp")}
    preset = preset_of(settings["preset"])
    later: dict[str, Any] = (
        {"start": preset.start} if preset.start != "normalised" else {}
    )  # of no flow before there was a choice
    later |= {} if components is None else {"components": components}
    return {"kind": settings["kind"], "dimension": dimension, **own, "mixing": preset.mixing, **later}


def preset_of(name: str) -> Preset:
    """The preset of that name; raises ValueError for another."""
    check_choice("preset", name, PRESETS)
    return PRESETS[name]


def check_views(views: Sequence[np.ndarray]) -> None:
    """Raise ValueError unless views are finite arrays [N, D] of one shape with at least two rows."""
    if not views:
        raise ValueError("features must be an array [N, D] or at least one view of such rows, got none")
    for number, view in enumerate(views):
        name = "features" if len(views) == 1 else f"features of view {number}"
        check_shape(name, view, "[N, D]")
        if view.shape != views[0].shape:
            raise ValueError(f"{name} must have the shape of view 0, {list(views[0].shape)}, got {list(view.shape)}")
        if len(view) < 2:
            raise ValueError(f"{name} must have at least two rows, got {len(view)}")
        check_finite(name, view, "check the weights and their preprocessing")


def starting_rows(features: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows from whose statistics ActNorm starts: the first batch of order [S, B], or more of the first epoch.

    A feature that hardly varies in the first batch, though it does in the training rows, would be blown up by every
    block: the rows are doubled until each deviates by half of what it does in all of them, or START_ROWS are read.
    """
    wanted = 0.5 * np.array([column.std(dtype=np.float64) for column in features.T])  # never a float64 copy of all
    rows, count = order[order >= 0], int(np.sum(order[0] >= 0))
    while count < min(len(rows), START_ROWS) and (_deviations(features[rows[:count]]) < wanted).any():
        count *= 2
    return features[rows[:count]]


def _deviations(rows: np.ndarray) -> np.ndarray:
    return rows.std(axis=0, dtype=np.float64)


def epoch_order(shuffle: bool, seed: int, rows: int, batch_size: int) -> Callable[[int], np.ndarray]:
    """order(epoch) -> [S, B] of train.fit."""
    if shuffle:
        return lambda epoch: train.shuffled_order(seed, epoch, rows, batch_size)
    return lambda epoch: train.file_order(rows, batch_size)
