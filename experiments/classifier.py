"""Stage 1: a trained classifier, from a weight file or from cross-entropy training (QuantOD, "Meta-parameters").

Of a frozen transformer it is the linear probe on its class token that is given or trained (`probe`).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import probe
from experiments.config import Settings, is_probe
from experiments.features import Progress
from experiments.run_log import record
from experiments.sets import Sets
from quantjax import losses
from quantjax.convert.classifiers import to_variables
from quantjax.convert.files import read_metadata, read_safetensors, read_state_dict, write_safetensors
from quantjax.convert.hub import read_weights as read_published
from quantjax.convert.probes import to_probe_variables
from quantjax.data import augment
from quantjax.extractors import BACKBONES, CLIP, ENERGY_OOD, IMAGENET, NONE, standardise
from quantjax.parallel import local_rows
from quantjax.train.loop import fit, shuffled_order
from quantjax.train.step import init_state, make_step, objective
from quantjax.types import Batch, Preprocessing, PyTree

PREPROCESSINGS = {"energy_ood": ENERGY_OOD, "imagenet": IMAGENET, "clip": CLIP, "none": NONE}
PREPROCESSING = "preprocessing"  # key of a weight file's metadata
QUANTOD_WRAPPER = "cls_state_dict"  # the authors' checkpoints; their networks see pixels in [0, 1] as they are
# SGD with Nesterov momentum, cosine from 0.1 to 1e-6 (Taghikhah et al. 2024, after Liu et al. 2020)
LEARNING_RATE, FINAL_LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 1e-6, 0.9, 5e-4


class Trained(NamedTuple):
    """A classifier whose weights are final, or a frozen transformer whose probe is not trained yet."""

    model: Any
    variables: PyTree  # {"params", "batch_stats"}; a probe has params alone
    preprocessing: Preprocessing
    seconds: float
    finished: bool = True


def build(config: Settings, num_classes: int) -> Any:
    """The Linen module, untrained."""
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32
    return BACKBONES[config.backbone].build(num_classes, dtype=dtype)


def read_weights(config: Settings, num_classes: int) -> Trained | None:
    """What --weights holds or None; its preprocessing is the flag's, else the file's, else the publisher's."""
    if config.weights is None:
        return None
    start = time.perf_counter()
    if is_probe(config.backbone):
        arrays, preprocessing = read_published(config.weights), _recorded_preprocessing(config.weights)
        variables, finished = to_probe_variables(arrays, config.backbone, num_classes, config.image_size)
    else:
        arrays, preprocessing = _read_file(config.weights)
        variables, finished = to_variables(arrays, config.backbone, num_classes), True
    preprocessing = preprocessing or BACKBONES[config.backbone].preprocessing
    if config.preprocessing:
        preprocessing = PREPROCESSINGS[config.preprocessing]
    return Trained(build(config, num_classes), variables, preprocessing, time.perf_counter() - start, finished)


def _read_file(path: Path) -> tuple[dict[str, np.ndarray], Preprocessing | None]:
    """Arrays and, where the file says so, their preprocessing: ours record it, QuantOD's have none."""
    if path.suffix == ".safetensors":
        return read_state_dict(path), _recorded_preprocessing(path)
    try:
        return read_state_dict(path, QUANTOD_WRAPPER), NONE
    except ValueError:
        return read_state_dict(path), None


def _recorded_preprocessing(path: Path) -> Preprocessing | None:
    stored = read_metadata(path).get(PREPROCESSING) if path.suffix == ".safetensors" else None
    return Preprocessing(*map(tuple, json.loads(stored))) if stored else None


def train_or_reread(
    config: Settings, given: Trained | None, sets: Sets, fit_rows: slice, folder: Path, progress: Progress
) -> Trained:
    """Train on the rows `fit_rows`, a probe on the transformer `given`; a resumed run finds what it finished again."""
    model, preprocessing = build(config, len(sets.class_names)), _preprocessing(config, given)
    file = folder / "classifier.safetensors"
    if file.exists():
        return Trained(model, read_safetensors(file), preprocessing, 0.0)
    start = time.perf_counter()
    images, labels = sets.train_images, sets.train_labels[fit_rows]
    if given:
        variables = probe.train(config, model, given.variables, preprocessing, images, labels, folder, progress)
    else:
        variables = train(config, model, preprocessing, images[fit_rows], labels, folder, progress)
    write_safetensors(file, variables, {"backbone": config.backbone, PREPROCESSING: json.dumps(preprocessing)})
    return Trained(model, variables, preprocessing, time.perf_counter() - start)


def _preprocessing(config: Settings, given: Trained | None) -> Preprocessing:
    if given:
        return given.preprocessing
    return PREPROCESSINGS[config.preprocessing or {"paper": "energy_ood", "reference": "none"}[config.preset]]


def train(
    config: Settings,
    model: Any,
    preprocessing: Preprocessing,
    images: np.ndarray,
    labels: np.ndarray,
    folder: Path,
    progress: Progress,
) -> PyTree:
    """Train `model` on images uint8 [N, H, W, 3] that stay on the device; augmentation is part of the step."""
    steps = -(-len(images) // config.batch_size)
    optimizer = sgd(config.epochs * steps)
    key = jax.random.key(config.seed)
    variables = model.init(jax.random.fold_in(key, 0), jnp.zeros((1, *images.shape[1:]), jnp.float32))
    state = init_state(variables["params"], optimizer, variables["batch_stats"])
    with progress("stage 1, epochs") as report:

        def note(step: int, metrics: dict[str, float]) -> None:
            record(folder, {"stage": "classifier", "step": step, **metrics}, tensorboard=config.tensorboard)
            report(int(metrics["epoch"]), config.epochs, loss=metrics["loss"], accuracy=metrics["accuracy"])

        state = fit(
            make_step(objective(cross_entropy_loss(model, preprocessing)), optimizer),
            state,
            (images, labels),
            lambda epoch: shuffled_order(config.seed, epoch, len(images), config.batch_size),
            epochs=config.epochs,
            key=jax.random.fold_in(key, 1),
            gather=augmented_rows(config.batch_size),
            report=note,
            checkpoints=folder / "checkpoints" / "classifier",
            resume=config.resume,
        )
    return jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.model_state})


def sgd(steps: int) -> optax.GradientTransformation:
    """The optimiser of stage 1 for a run of `steps` steps; weight decay is added to the gradient, as torch does."""
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps, alpha=FINAL_LEARNING_RATE / LEARNING_RATE)
    return optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(schedule, momentum=MOMENTUM, nesterov=True))


def cross_entropy_loss(model: Any, preprocessing: Preprocessing) -> Any:
    """loss_fn of train.step.objective: cross-entropy per row, and whether the row is classified right."""

    def loss_fn(params: PyTree, model_state: PyTree, batch: Batch, key: Any, axis_name: str | None) -> Any:
        output, changed = model.apply(
            {"params": params, "batch_stats": model_state},
            standardise(batch.inputs, preprocessing),
            train=True,
            mask=batch.mask,
            axis_name=axis_name,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        assert batch.labels is not None
        right = (output.logits.argmax(axis=1) == batch.labels).astype(jnp.float32)
        return losses.cross_entropy(output.logits, batch.labels), changed["batch_stats"], {"accuracy": right}

    return loss_fn


def augmented_rows(batch_size: int) -> Any:
    """gather of train.loop.make_epoch: rows of (images, labels), flipped and cropped by draws for the global batch."""

    def gather(data: tuple[Any, Any], rows: Any, key: Any, axis_name: str | None = None) -> tuple[Any, Any]:
        images, labels = data
        # drawn for the batch itself: rows that only fill up the devices must not change the others' draws
        draws = local_rows(augment.draw(key, batch_size), axis_name, rows=len(rows))
        return augment.flip_and_crop(images[rows], draws), labels[rows]

    return gather
