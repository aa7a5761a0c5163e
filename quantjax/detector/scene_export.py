"""A detector of unknown objects in scenes as serialised StableHLO: runs with JAX alone, on scenes of any size.

The folder holds exported.json (threshold, class names, window, stride, height) and two programs: windows.bin, the
networks with their weights on any number of windows of one fixed size, and finish.bin, averaged logits of any size to
score and class. Between them windows are cut and averaged as in `inference.sliding`. A program is code: load only what
you or someone you trust exported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from quantjax.detector import artefact
from quantjax.detector.exported import CONTENT, PLATFORMS, about, guarded, read_program, to_program, write
from quantjax.detector.scenes import SceneDetector, ScenePredictor, check, make_predictor, parts
from quantjax.inference import sliding
from quantjax.parallel import data_parallel
from quantjax.segmentation import UNKNOWN_CLASSES

KIND = "quantjax exported scenes"
PROGRAMS = ("windows", "finish")


class ExportedScenes(NamedTuple):
    """Loaded programs and what their numbers mean."""

    predictor: ScenePredictor
    """Takes one scene, uint8 [H, W, 3] of any size."""
    class_names: tuple[str, ...]
    """[K]"""
    window: tuple[int, int]
    """Height and width of what the networks see at once, pixels."""
    stride: tuple[int, int]
    """Pixels between windows."""
    threshold: float
    """Unknown unless score <= threshold."""
    image_height: int | None = None
    """Pixels to which every scene is resized first; None: as it is."""


def save(detector: SceneDetector, folder: str | Path, *, platforms: Sequence[str] = PLATFORMS) -> None:
    """Trace the detector for any number of its windows and for scenes of any size, and write it whole.

    Needs the flatbuffers package. Raises ValueError when the detector does not hold together (see check), or `folder`
    exists and holds something else.
    """
    check(detector)
    windows, finish, weights = parts(detector)
    channels = (len(detector.class_names), UNKNOWN_CLASSES)
    write_programs(
        detector, folder, partial(windows, weights), lambda *heads: finish(heads), channels, platforms=platforms
    )


def write_programs(
    detector: Any,
    folder: str | Path,
    windows: Callable[..., Any],
    finish: Callable[..., Any],
    channels: Sequence[int],
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """The programs of a detector of scenes: windows uint8 [B, h, w, 3] -> maps [B, h, w, C_i], and finish of these.

    channels are the C_i. Errors as of save.
    """
    height, width = detector.window
    averaged = [("height", "width", count) for count in channels]
    programs = {
        "windows": _program_of(windows, [("batch", height, width, 3)], jnp.uint8, platforms),
        "finish": _program_of(finish, averaged, jnp.float32, platforms),
    }
    content = {
        "kind": KIND,
        **about(detector, platforms),
        "window": list(detector.window),
        "stride": list(detector.stride),
        "image_height": detector.image_height,
        "sha256": {name: hashlib.sha256(program).hexdigest() for name, program in programs.items()},
    }
    write(folder, content, {f"{name}.bin": program for name, program in programs.items()})


def _program_of(run: Callable[..., Any], shapes: Sequence[tuple[Any, ...]], dtype: Any, platforms: Any) -> bytes:
    """`run` as a program of arrays of these shapes, in which a name stands for any length."""
    from jax import export

    scope = export.SymbolicScope()
    arrays = [
        jax.ShapeDtypeStruct(export.symbolic_shape(", ".join(map(str, shape)), scope=scope), dtype) for shape in shapes
    ]
    compiled = data_parallel(
        lambda *arrays, axis_name: run(*arrays), (0,) * len(shapes), 0, devices=jax.local_devices()[:1]
    )
    return to_program(compiled, tuple(arrays), platforms=platforms)


def load(folder: str | Path, *, batch_size: int = 8, devices: Sequence[Any] | None = None) -> ExportedScenes:
    """Read what save wrote; `batch_size` windows go through the networks at a time, see inference.sliding.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged or from a newer format.
    """
    folder = Path(folder)
    content = artefact.read_json(folder / CONTENT)
    if content.get("kind") != KIND:
        raise ValueError(f"{folder / CONTENT} is no {KIND!r}, got {content.get('kind')!r}")
    artefact.check_format(folder / CONTENT, content)
    windows, finish = (_program(folder, name, content) for name in PROGRAMS)
    try:
        names, score, threshold = tuple(content["class_names"]), content["score"], float(content["threshold"])
        window, stride = (_pair(content[key]) for key in ("window", "stride"))
        height = None if content.get("image_height") is None else int(content["image_height"])
        run = sliding(
            windows.call, lambda maps: finish.call(*maps), window=window, stride=stride, batch_size=batch_size,
            shared=0, devices=devices,
        )  # fmt: skip
        run = guarded(run, folder)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{folder} holds no valid exported detector ({error}): export it again") from error
    predictor = make_predictor(run, score, threshold, height)
    return ExportedScenes(predictor, names, window, stride, threshold, height)


def _pair(values: Sequence[Any]) -> tuple[int, int]:
    height, width = values
    return int(height), int(width)


def _program(folder: Path, name: str, content: Mapping[str, Any]) -> Any:
    file = folder / f"{name}.bin"
    data = artefact.read_bytes(file)
    digests = content.get("sha256")
    if not isinstance(digests, Mapping) or hashlib.sha256(data).hexdigest() != digests.get(name):
        raise ValueError(f"{file} is damaged or cut short ({len(data)} bytes): export the detector again")
    return read_program(file, data)
