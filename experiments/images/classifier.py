"""Stage 1: a trained classifier, from a weight file, from training (QuantOD, "Meta-parameters"), or from both.

Of a frozen transformer it is the linear probe on its class token that is given or trained (`probe`).
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hosts import is_first
from experiments.images import probe
from experiments.images.config import QuantOD, Settings, goes_on, is_probe
from experiments.images.sets import Sets
from experiments.images.stage_one import stage_one
from experiments.preprocessing import of_flags
from experiments.progress import OpenProgress
from quantjax import trees
from quantjax.atomic import replaced_file
from quantjax.classification import FINE_TUNING_RATE, OBJECTIVES, fit_classifier, training_seconds
from quantjax.convert.classifiers import preprocessing_of, to_variables
from quantjax.convert.compare import heads, some
from quantjax.convert.files import of_file, read_metadata, read_safetensors, write_safetensors
from quantjax.convert.hub import read_checkpoint as read_published
from quantjax.convert.probes import to_probe_variables
from quantjax.convert.transformers import assumption
from quantjax.extractors import BACKBONES, CIFAR, CLIP, ENERGY_OOD, IMAGENET, NONE
from quantjax.hosts import from_first
from quantjax.machine import cores
from quantjax.types import Preprocessing, PyTree

PREPROCESSINGS = {"energy_ood": ENERGY_OOD, "cifar": CIFAR, "imagenet": IMAGENET, "clip": CLIP, "none": NONE}
PREPROCESSING = "preprocessing"  # key of a weight file's metadata
FILE = "classifier.safetensors"  # in a run's folder
PATIENCE = 10.0  # minutes of stage 1 on a CPU that a default may ask for
SMALL = "wrn10_1"  # the network to propose instead
QUANTOD_WRAPPER = "cls_state_dict"  # the authors' checkpoints; their networks see pixels in [0, 1] as they are


class Trained(NamedTuple):
    """A classifier whose weights are final, or given weights that stage 1 still trains something of."""

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
    found = read_published(config.weights, config.weights_key)
    if found.note:
        print(found.note, flush=True)
    with of_file(config.weights):
        if is_probe(config.backbone):
            variables, finished = to_probe_variables(
                found.arrays, config.backbone, num_classes, config.network_size or config.image_size
            )
            _say_of_transformer(config.backbone, [] if finished else heads(found.arrays))
        else:
            variables = to_variables(found.arrays, config.backbone, num_classes)
            finished = not goes_on(config)
    recorded = _recorded_preprocessing(config.weights, found.key) or preprocessing_of(found.arrays, config.backbone)
    preprocessing = of_flags(config, PREPROCESSINGS.get(config.preprocessing or "", recorded))
    preprocessing = preprocessing._replace(side=config.network_size, short_side=config.short_side)
    print(f"images are standardised with {_in_words(preprocessing)}", flush=True)
    return Trained(build(config, num_classes), variables, preprocessing, time.perf_counter() - start, finished)


def _say_of_transformer(backbone: str, left: list[str]) -> None:
    """What the weights do not say, and the last layer of another classifier, in whose place a probe is trained."""
    if assumed := assumption(backbone):
        print(assumed, flush=True)
    if left:
        print(f"the head of --weights ({some(left)}) is extra and not used: stage 1 trains a probe", flush=True)


def _in_words(preprocessing: Preprocessing) -> str:
    mean, deviation = (" ".join(f"{value:.4g}" for value in values) for values in preprocessing[:2])
    seen = f", resized to {preprocessing.side} pixels for the network" if preprocessing.side else ""
    return f"mean {mean}, deviation {deviation}, {preprocessing.order}{seen}"


def _recorded_preprocessing(path: Path, key: str) -> Preprocessing | None:
    """What the file says about its preprocessing: ours record it, QuantOD's have none."""
    if key.split(".")[0] == QUANTOD_WRAPPER:
        return NONE
    stored = read_metadata(path).get(PREPROCESSING) if path.suffix.lower() == ".safetensors" else None
    if not stored:
        return None
    try:
        mean, std, *order = json.loads(stored)  # files of earlier versions have no order
        return Preprocessing(tuple(map(float, mean)), tuple(map(float, std)), *order)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} does not say its preprocessing ({error}): give --preprocessing, or a copy") from error


def preprocessing_to_text(preprocessing: Preprocessing) -> str:
    """As it stands in a weight file's metadata, under PREPROCESSING."""
    return json.dumps(preprocessing[:3])  # sizes are settings of the run


def check_time(flags: QuantOD, config: Settings, images: int) -> None:
    """On a CPU, raise ValueError with what finishes when the defaults, chosen for a GPU, would train for too long.

    `flags` are the settings as given: who names the network or the epochs has chosen, and is left alone.
    """
    if jax.default_backend() != "cpu" or flags.backbone or flags.epochs or config.inlier == "digits":
        return

    def minutes(name: str, epochs: int) -> float:
        network, size = BACKBONES[name].build(2), config.network_size or config.image_size
        rows = images * (1 + OBJECTIVES[config.objective].auxiliary)
        return training_seconds(network, size, rows, epochs, cores()) / 60.0

    expected = minutes(config.backbone, config.epochs)
    if expected <= PATIENCE:
        return
    one = minutes(SMALL, 1)
    epochs = min(config.epochs, max(1, int(PATIENCE / one)))
    raise ValueError(
        f"stage 1 would train {config.backbone} for {config.epochs} epochs on {images:,} images: about "
        f"{_duration(expected)} on this CPU. What finishes: --backbone {SMALL} --epochs {epochs} (about "
        f"{_duration(one * epochs)}), --weights FILE of a trained classifier, or features that another network gave, "
        f"through quantjax.detector.fit (docs/own-data.md). To train it all the same: --epochs {config.epochs}"
    )


def _duration(minutes: float) -> str:
    if minutes < 90.0:
        return f"{max(1, round(minutes))} minutes"
    return f"{minutes / 60.0:.0f} hours" if minutes < 48.0 * 60.0 else f"{minutes / 1440.0:.0f} days"


def train_or_reread(
    config: Settings,
    given: Trained | None,
    sets: Sets,
    fit_rows: slice,
    folder: Path,
    progress: OpenProgress,
    *,
    also: Path | None = None,
) -> Trained:
    """Train on the rows `fit_rows`, a probe on the transformer `given` or the classifier `given` further.

    A resumed run finds what it finished again. `also` is the folder of a run with the same stage 1, whose classifier is
    taken where there is one.
    """
    model, preprocessing = build(config, len(sets.class_names)), _preprocessing(config, given)
    file = folder / FILE
    if also is not None and (also / FILE).exists() and not file.exists() and is_first():
        with replaced_file(file) as temporary:
            shutil.copyfile(also / FILE, temporary)
    kept = from_first(lambda: trees.flatten(read_safetensors(file)) if file.exists() else None)
    if kept is not None:
        return Trained(model, trees.unflatten(kept), preprocessing, 0.0)
    start = time.perf_counter()
    images, labels = sets.train_images, sets.train_labels[fit_rows]
    if given and is_probe(config.backbone):
        variables = probe.train(config, model, given.variables, preprocessing, images, labels, folder, progress)
    else:
        rows, begin = (images[fit_rows], labels, sets.auxiliary), given.variables if given else None
        variables = train(config, model, preprocessing, *rows, begin, folder, progress)
    if is_first():
        write_safetensors(
            file, variables, {"backbone": config.backbone, PREPROCESSING: preprocessing_to_text(preprocessing)}
        )
    return Trained(model, variables, preprocessing, time.perf_counter() - start)


def _preprocessing(config: Settings, given: Trained | None) -> Preprocessing:
    if given:
        return given.preprocessing
    default = "none" if config.preset == "reference" else "energy_ood"
    preprocessing = of_flags(config, PREPROCESSINGS[config.preprocessing or default])
    return preprocessing._replace(side=config.network_size, short_side=config.short_side)


def train(
    config: Settings,
    model: Any,
    preprocessing: Preprocessing,
    images: np.ndarray,
    labels: np.ndarray,
    auxiliary: np.ndarray | None,
    start: PyTree | None,
    folder: Path,
    progress: OpenProgress,
) -> PyTree:
    """Train `model` on images uint8 [N, H, W, 3] as the settings say, from `start` on if given, with a log."""
    how: dict[str, Any] = {"objective": OBJECTIVES[config.objective], "auxiliary": auxiliary, "start": start}
    if start is not None:
        how["learning_rate"] = FINE_TUNING_RATE
    with stage_one(config, folder, progress) as options:
        return fit_classifier(
            model, images, labels, preprocessing=preprocessing, accumulate=config.accumulate, **how, **options
        )
