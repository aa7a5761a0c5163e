"""A detector as serialised StableHLO: runs with JAX alone, on any batch size and platform it was made for.

The folder holds exported.json (thresholds, class names, sizes), program.bin, whose weights are inside, and the scores
of held-out inliers where the detector keeps them. Decisions and p-values are made of the program's scores, outside it.
A program is code: load only what you or someone you trust exported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

import quantjax
from quantjax.atomic import replaced_folder
from quantjax.detector import artefact, held_out, rows
from quantjax.detector.decision import Predictor, images_of, make_predictor
from quantjax.detector.held_out import ClassThresholds, HeldOut
from quantjax.inference import batched
from quantjax.parallel import data_parallel
from quantjax.types import PyTree

CONTENT, PROGRAM = "exported.json", "program.bin"
PLATFORMS = ("cpu", "cuda", "tpu")


class Exported(NamedTuple):
    """A loaded program and what its numbers mean."""

    predictor: Predictor
    """Takes the rows that the detector took."""
    class_names: tuple[str, ...]
    """[K]"""
    image_size: int | None
    """Pixels, H = W; None for a detector of features."""
    threshold: float
    """Outlier unless score <= threshold."""
    inputs: Mapping[str, int]
    """Of a detector of features: what it takes -> width, {"features": D}, say; empty for images."""
    class_thresholds: ClassThresholds | None = None
    """[K], the threshold of each predicted class, None for one that falls back on `threshold`; None: one for all."""
    held_out: HeldOut | None = None
    """Inliers that the thresholds were set on; None where they are not kept."""


def save(
    run: Callable[[Any], Any],
    folder: str | Path,
    detector: Any,
    *,
    image_size: int | None = None,
    inputs: Mapping[str, int] | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Trace the detector's run(rows) -> what decision.judge returns, for any number of rows, and write it whole.

    Rows are images uint8 [B, H, W, 3] when image_size is given, else {name: float32 [B, width]} of `inputs`. Products
    have the precision that `run` gives them, full float32 where it leaves it open. Needs the flatbuffers package.
    Raises ValueError when `folder` exists and holds something else, or `run` cannot be a program.
    """
    compiled: Any = data_parallel(lambda rows, axis_name: run(rows), (0,), 0, devices=jax.local_devices()[:1])
    program = to_program(compiled, (any_number_of(_row(image_size, inputs)),), platforms=platforms)
    takes = {"image_size": image_size} if inputs is None else {"inputs": dict(inputs)}
    digests, files = artefact.held_out_files(held_out.to_arrays(detector.held_out))
    digests = {"program_sha256": hashlib.sha256(program).hexdigest(), **digests}
    content = {**about(detector, platforms), **held_out.to_content(detector), **takes, **digests}
    write(folder, content, {PROGRAM: program, **files})


def about(detector: Any, platforms: Sequence[str]) -> dict[str, Any]:
    """The part of exported.json that detectors of every type share."""
    return {
        "format": artefact.FORMATS[0],
        "quantjax": quantjax.__version__,
        "jax": jax.__version__,
        "platforms": list(platforms),
        "class_names": list(detector.class_names),
        "score": detector.score,
        "threshold": float(detector.threshold),
        "calibration": dict(detector.calibration),
    }


def write(folder: str | Path, content: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write exported.json and other files by their names; ValueError when `folder` holds something else."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with replaced_folder(folder, CONTENT) as temporary:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        (temporary / CONTENT).write_text(text, encoding="utf-8")


def _row(image_size: int | None, inputs: Mapping[str, int] | None) -> PyTree:
    if inputs is None:
        return jax.ShapeDtypeStruct((image_size, image_size, 3), jnp.uint8)
    return {name: jax.ShapeDtypeStruct((width,), jnp.float32) for name, width in inputs.items()}


def any_number_of(row: PyTree) -> PyTree:
    """The shapes of `row` with one leading axis of open length."""
    from jax import export

    (batch,) = export.symbolic_shape("batch")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape), leaf.dtype), row)


def to_program(
    compiled: Any, shapes: tuple[PyTree, ...], *, platforms: Sequence[str] = PLATFORMS, gradient: bool = False
) -> bytes:
    """Serialise a jitted function of arrays of these shapes, with its gradient where asked for.

    Raises ValueError when it cannot leave this process: it calls back into Python, say.
    """
    from jax import export

    try:
        with jax.default_matmul_precision("highest"):
            exported = export.export(compiled, platforms=tuple(platforms))(*shapes)
        return bytes(exported.serialize(vjp_order=1 if gradient else 0))
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the network cannot be written as a program for {', '.join(platforms)} ({reason:.160}). It must take any "
            "number of rows (x.shape[0], not len(x)), and one that calls back into Python (jax.pure_callback) works in "
            "this process alone: extract its features and fit on these, detector.fit(method, features=...)"
        ) from error


def read_program(source: Any, data: bytes) -> Any:
    """A serialised program as jax.export has it; ValueError that names its source when it is damaged."""
    from jax import export

    try:
        return export.deserialize(bytearray(data))
    except Exception as error:  # the reader of its buffers fails in its own ways, struct.error among them
        raise ValueError(
            f"{source} holds no program ({printable(error):.120}): export or save the detector again"
        ) from error


def guarded(run: Callable[..., Any], source: Any) -> Callable[..., Any]:
    """`run`, whose first call compiles a program that was read from a file: when that fails it is ValueError's file.

    Raises MemoryError as it is, also where XLA says it in its own words.
    """
    ran = False

    def guard(*arguments: Any, **options: Any) -> Any:
        nonlocal ran
        try:
            result = run(*arguments, **options)
        except Exception as error:
            if ran or isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise
            raise ValueError(
                f"{source} holds a program that does not run ({printable(error):.120}): export the detector again"
            ) from error
        ran = True
        return result

    return guard


def printable(error: Exception) -> str:
    """The first line of what an error says, without control codes."""
    return "".join(c for c in str(error).split("\n")[0] if c.isprintable()) or type(error).__name__


def load(folder: str | Path, *, batch_size: int = 256, devices: Sequence[Any] | None = None) -> Exported:
    """Read what save wrote, ready to run in padded batches.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged or from a newer format.
    """
    folder = Path(folder)
    content = artefact.read_json(folder / CONTENT)
    artefact.check_format(folder / CONTENT, content)
    data, kept = artefact.read_bytes(folder / PROGRAM), artefact.read_held_out(folder, content)
    if hashlib.sha256(data).hexdigest() != content.get("program_sha256"):
        raise ValueError(f"{folder / PROGRAM} is damaged or cut short ({len(data)} bytes): export the detector again")
    try:
        names, threshold = tuple(content["class_names"]), float(content["threshold"])
        inputs = {str(name): int(width) for name, width in content.get("inputs", {}).items()}
        size = None if inputs else int(content["image_size"])
        own, scores, unset = held_out.from_content(content), held_out.from_arrays(kept), cast(Predictor, None)
        loaded = Exported(unset, names, size, threshold, inputs, own, scores)
        held_out.check(loaded)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{folder} holds no valid exported detector ({error}): export it again") from error
    program = read_program(folder / PROGRAM, data)
    run = guarded(batched(program.call, batch_size=batch_size, devices=devices), folder / PROGRAM)
    take = rows.taking(inputs, {}) if size is None else images_of(size)
    return loaded._replace(predictor=make_predictor(run, take, loaded))
