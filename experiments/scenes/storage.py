"""Segmentor and estimator on disk: their arrays, and what they are of."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.hosts import is_first
from experiments.preprocessing import of_flags
from experiments.scenes.config import Settings
from quantjax import trees
from quantjax.convert.files import read_metadata, read_safetensors, write_safetensors
from quantjax.detector.scene_content import with_shift
from quantjax.extractors import FEATURE_BACKBONES
from quantjax.extractors.preprocess import stated
from quantjax.hosts import from_first
from quantjax.types import Preprocessing, PyTree

SEGMENTOR, ESTIMATOR = "segmentor.safetensors", "estimator.safetensors"
ABOUT = "about"  # key of the files' metadata
PREPROCESSING = "preprocessing"  # key of what they are about; files of earlier versions do not say it
# settings that a stored segmentor must share with the run that takes it over
SHARED = ("inlier", "backbone", "channels", "components", "preset")


def read_pretrained(config: Settings) -> tuple[PyTree | None, dict[str, Any]]:
    """(variables of the backbone or None, attributes that its file decides); raises as convert.read_backbone."""
    if config.backbone_weights is None:
        return None, chosen_overrides(config)
    from quantjax.convert.transformers import assumption, read_backbone

    say = partial(print, flush=True)
    variables, overrides = read_backbone(config.backbone_weights, config.backbone, config.weights_key, say)
    overrides |= chosen_overrides(config)
    if assumed := assumption(config.backbone, overrides):
        say(assumed)
    return variables, overrides


def content_from_hub(config: Settings) -> dict[str, str]:
    """What stands in a run's identity for weights of the hub, where a name may get other content; {} for others.

    Raises as `convert.hub.download`.
    """
    from quantjax.convert.hub import HUB, download
    from quantjax.data.content import file_digest

    weights = config.backbone_weights or ""
    if not weights.startswith(HUB):
        return {}
    return {"backbone_weights_content": file_digest(download(weights.removeprefix(HUB)))}


def chosen_overrides(config: Settings) -> dict[str, Any]:
    """The attributes of the backbone that flags decide, whatever its file says."""
    return {} if config.swin_shift is None else {"shift": config.swin_shift}


def read_preprocessing(config: Settings) -> Preprocessing:
    """What the flags say of the backbone's images; else what --segmentor was trained with, else the backbone's own."""
    stored = {} if config.segmentor is None else read_about(config.segmentor).get(PREPROCESSING, {})
    own = FEATURE_BACKBONES[config.backbone].preprocessing
    known = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    return of_flags(config, Preprocessing(**(own._asdict() | known)))


def about_segmentor(
    config: Settings, class_names: tuple[str, ...], overrides: dict[str, Any], preprocessing: Preprocessing
) -> dict[str, Any]:
    """What a stored segmentor is of."""
    shared, overrides = {name: getattr(config, name) for name in SHARED}, with_shift(config.backbone, overrides)
    about = {**shared, "head": config.variant[0], "class_names": list(class_names), "overrides": overrides}
    about[PREPROCESSING] = stated(preprocessing)
    return dict(json.loads(json.dumps(about)))  # as it comes back from the file


def save(file: Path, variables: PyTree, about: dict[str, Any]) -> None:
    """Write variables, which appear whole or not at all; of several processes process 0 does."""
    if is_first():
        write_safetensors(file, variables, {ABOUT: json.dumps(about)})


def read_overrides(file: Path) -> dict[str, Any]:
    """The attributes of a stored segmentor's backbone that its published weights decided."""
    stored = read_about(file).get("overrides", {})
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


def read_about(file: Path) -> dict[str, Any]:
    """What a stored network is of; raises ValueError when the file was not written by `save`."""
    stored = read_metadata(file).get(ABOUT)
    if stored is None:
        raise ValueError(f"{file} says not what it is of: give the segmentor.safetensors of a finished run")
    try:
        about = dict(json.loads(stored))
        if "overrides" in about:
            about["overrides"] = with_shift(about["backbone"], about["overrides"], "always")
        Preprocessing(**about.get(PREPROCESSING, {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} is damaged, what it says of itself cannot be read ({reason}): take a copy") from error
    return about


def load(file: Path, template: PyTree, about: dict[str, Any] | None = None) -> PyTree:
    """Read what `save` wrote into the structure of `template`, variables of the network that is meant.

    Raises ValueError when the file is damaged, of other settings than `about`, or its arrays do not fit.
    """
    stored = {PREPROCESSING: (about or {}).get(PREPROCESSING), **read_about(file)}
    for key, wanted in (about or {}).items():
        if stored.get(key) != wanted:
            raise ValueError(
                f"{file} is of another segmentor: {key} is {stored.get(key)!r} there, this run has {wanted!r}; "
                "give the file of a run with the same settings, or leave out --segmentor to train one"
            )
    try:
        arrays = trees.restore(trees.flatten(read_safetensors(file)), template)
    except ValueError as error:
        raise ValueError(f"{file} does not fit the network: {error}") from error
    return jax.tree.map(jnp.asarray, arrays)


def load_backbone(file: Path, backbone: str) -> tuple[PyTree, dict[str, Any]]:
    """(variables, overrides) of the backbone in a stored segmentor; raises ValueError as `load`."""
    about = read_about(file)
    if about.get("backbone") != backbone:
        given = about.get("backbone")
        raise ValueError(f"{file} is of backbone {given!r}, this run has {backbone!r}; give --backbone {given}")
    overrides = read_overrides(file)
    known = FEATURE_BACKBONES[backbone]
    blank = jax.ShapeDtypeStruct((1, 4 * known.stride, 4 * known.stride, 3), jnp.float32)
    template = jax.eval_shape(known.build(**overrides).init, jax.random.key(0), blank)
    stored = {
        name: part for name, part in trees.flatten(read_safetensors(file)).items() if name.startswith("backbone/")
    }
    try:
        return trees.restore(stored, {"backbone": template})["backbone"], overrides
    except ValueError as error:
        raise ValueError(f"{file} does not fit the network: {error}") from error


def reread(file: Path, template: PyTree, about: dict[str, Any]) -> PyTree | None:
    """`load` of a file of the run's own, None where it is not there yet; process 0 reads it for all."""
    kept = from_first(lambda: trees.flatten(load(file, template, about)) if file.exists() else None)
    return None if kept is None else jax.tree.map(jnp.asarray, trees.restore(kept, template))
