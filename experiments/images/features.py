"""What a frozen classifier says about each image: extracted once, cached under a fingerprint, shared by every score."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.hosts import is_first
from experiments.progress import OpenProgress
from quantjax import data
from quantjax.atomic import replaced_file, write_text
from quantjax.data import augment
from quantjax.extractors import LinearProbe, fold, probe, standardise
from quantjax.extractors import extract as extract_features
from quantjax.extractors.preprocess import stated
from quantjax.hosts import from_first
from quantjax.inference import batched
from quantjax.report import write_json
from quantjax.types import ClassifierOutput, Preprocessing, PyTree

VIEW_SEED = 0
LAYERS = "layers/"  # before the names of maps in the cache


class Extracted(NamedTuple):
    """Logits and features of N images, and the seconds their one backbone pass took."""

    logits: np.ndarray  # [N, K] float32
    features: np.ndarray  # [N, D] float32
    seconds: float
    layers: dict[str, np.ndarray] | None = None  # {name of a map: [N, 2 C]}, where a method of the run reads them


def rows_of(extracted: Extracted, rows: slice) -> Extracted:
    """Some of the rows; the seconds stay those of the whole pass."""
    layers = extracted.layers and {name: values[rows] for name, values in extracted.layers.items()}
    return Extracted(extracted.logits[rows], extracted.features[rows], extracted.seconds, layers)


class Extractor(NamedTuple):
    """A folded classifier that is ready to run."""

    variables: PyTree
    classify: Callable[[PyTree, Any], ClassifierOutput]  # (variables, standardised images) -> output
    preprocessing: Preprocessing
    run: Callable[..., Any]  # (variables, images uint8) -> (logits, features), and the layers' statistics
    run_view: Callable[..., Any]  # (variables, (images uint8, augment.Draws)) -> features
    fingerprint: str
    compile_seconds: float
    widths: dict[str, int]  # of "logits", "features" and each "layers/NAME"
    head: PyTree | None  # of a linear probe: applied behind the cache, which so serves every probe; None for others


def build(
    model: Any,
    variables: PyTree,
    preprocessing: Preprocessing,
    image_size: int,
    batch_size: int,
    precision: str,
    *,
    layers: bool = False,
) -> Extractor:
    """Fold the classifier, compile it for batches of `batch_size`, and take its fingerprint."""
    folded, variables = fold(model, variables)
    body, head = probe.split(variables) if isinstance(model, LinearProbe) else (variables, None)

    def classify(weights: PyTree, inputs: Any) -> Any:
        return folded.apply(weights, inputs)

    def run(weights: PyTree, images: Any) -> tuple[Any, ...]:
        return extract_features(folded, weights, standardise(images, preprocessing), layers=layers)

    def run_view(weights: PyTree, view: tuple[Any, augment.Draws]) -> Any:
        return run(weights, augment.flip_and_crop(*view))[1]

    plain = batched(run, batch_size=batch_size, shared=1)
    start = time.perf_counter()
    first = plain(variables, np.zeros((1, image_size, image_size, 3), np.uint8))
    compile_seconds = time.perf_counter() - start
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(body)]
    # the same arrays computed in another precision, or on hardware that rounds otherwise, are other features
    about = [str(folded), precision, jax.default_backend()]
    identity = data.fingerprint(np.asarray(about), *stated(preprocessing).values(), *leaves)
    views = batched(run_view, batch_size=batch_size, shared=1)
    widths = {name: values.shape[1] for name, values in _by_name(first).items()}
    return Extractor(variables, classify, preprocessing, plain, views, identity, compile_seconds, widths, head)


def extract(extractor: Extractor, name: str, images: np.ndarray, cache: Path, progress: OpenProgress) -> Extracted:
    """Logits and features of images uint8 [N, H, W, 3], from the cache when it holds exactly these."""
    folder = cache / f"features-{data.fingerprint(np.asarray(extractor.fingerprint), images)}"
    file = folder / "plain.npz"
    kept = from_first(lambda: _read(file, len(images), extractor.widths))
    if kept is None:
        start = time.perf_counter()
        with progress(f"extract {name}") as report:
            kept = _by_name(extractor.run(extractor.variables, images, report=report))
        kept["seconds"] = np.asarray(time.perf_counter() - start)
        if is_first():
            _write(file, kept)
    layers = {key.removeprefix(LAYERS): kept[key] for key in extractor.widths if key.startswith(LAYERS)}
    result = Extracted(kept["logits"], kept["features"], float(kept["seconds"]), layers or None)
    return _under_head(extractor, result)


def _by_name(found: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """What a run of the extractor gives, by the names it has in the cache."""
    logits, features, *layers = found
    statistics = layers[0] if layers else {}
    return {"logits": logits, "features": features, **{LAYERS + name: rows for name, rows in statistics.items()}}


def _under_head(extractor: Extractor, stored: Extracted) -> Extracted:
    """Logits of a linear probe are those of its own head, not of the one under which the cache was filled."""
    if extractor.head is None:
        return stored
    return stored._replace(logits=np.asarray(probe.logits(extractor.head, stored.features)))


def extract_views(
    extractor: Extractor, images: np.ndarray, views: int, cache: Path, progress: OpenProgress
) -> list[np.ndarray]:
    """Features [N, D] of `views` flip-and-crop views of the images, each cached as soon as it is there, on the disk.

    View v is drawn from (VIEW_SEED, v): more views extend fewer, and runs of all seeds share them.
    """
    folder = cache / f"views-{data.fingerprint(np.asarray([extractor.fingerprint, str(VIEW_SEED)]), images)}"
    shape = (len(images), extractor.widths["features"])
    result = []
    for v in range(views):
        file = folder / f"view_{v:03d}.npy"
        kept = from_first(partial(_read_view, file, shape))
        if kept is None:
            draws = jax.device_get(
                augment.draw(jax.random.fold_in(jax.random.key(VIEW_SEED, impl="threefry2x32"), v), len(images))
            )
            with progress(f"extract view {v + 1} of {views}") as report:
                kept = {"features": extractor.run_view(extractor.variables, (images, draws), report=report)}
            if is_first():
                kept = _write_view(file, kept["features"])
        result.append(kept["features"])
    if views and is_first():
        write_json(folder / "about.json", {"extractor": extractor.fingerprint, "seed": VIEW_SEED, "rows": len(images)})
    return result


def _write_view(file: Path, features: np.ndarray) -> dict[str, np.ndarray]:
    """Keep an array and, beside it, a digest; what is returned reads from the disk."""
    with replaced_file(file) as temporary, temporary.open("wb") as handle:
        np.save(handle, features)
    write_text(file.with_suffix(".digest"), data.fingerprint(features))
    return {"features": np.load(file, mmap_mode="r")}


def _read_view(file: Path, shape: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """What `_write_view` wrote, or None: absent, damaged, or not float32 of that shape."""
    try:
        kept, digest = np.load(file, mmap_mode="r", allow_pickle=False), file.with_suffix(".digest").read_text()
    except (OSError, ValueError, EOFError):
        return None
    fits = (kept.shape, kept.dtype.name) == (shape, "float32") and digest == data.fingerprint(kept)
    return {"features": kept} if fits else None


def _write(file: Path, values: Mapping[str, Any]) -> None:
    """Arrays and numbers with a digest of them."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    with replaced_file(file) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays, digest=np.asarray(data.fingerprint(*arrays.values())))  # type: ignore[arg-type]


def _read(file: Path, rows: int, widths: Mapping[str, int]) -> dict[str, np.ndarray] | None:
    """What `_write` wrote, or None: absent, damaged, or not float32 [rows, width] under each name of `widths`."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    if str(arrays.pop("digest", "")) != data.fingerprint(*arrays.values()):
        return None
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    fits = all(found.get(name) == ((rows, width), "float32") for name, width in widths.items())
    return arrays if fits else None
