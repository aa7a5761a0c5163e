"""A detector as serialised StableHLO: runs with JAX alone, on any batch size and platform it was made for.

The folder holds exported.json (threshold, class names, sizes) and program.bin, whose weights are inside. A program is
code: load only what you or someone you trust exported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import quantjax
from quantjax.detector import artefact
from quantjax.detector.decision import Predictor, make_predictor
from quantjax.inference import batched
from quantjax.parallel import data_parallel
from quantjax.types import Array

FORMAT = 1
CONTENT, PROGRAM = "exported.json", "program.bin"
PLATFORMS = ("cpu", "cuda", "tpu")


class Exported(NamedTuple):
    """A loaded program and what its numbers mean."""

    predictor: Predictor
    class_names: tuple[str, ...]  # [K]
    image_size: int  # pixels, H = W
    threshold: float  # outlier iff score > threshold


def save(
    run: Callable[[Array], Any],
    folder: str | Path,
    *,
    class_names: Sequence[str],
    image_size: int,
    threshold: float,
    platforms: Sequence[str] = PLATFORMS,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Trace run(images uint8 [B, H, W, 3]) -> (score [B], label [B], confidence [B]) for any B and write it whole.

    Products have the precision that `run` gives them, full float32 where it leaves it open. Needs the flatbuffers
    package. Raises ValueError when `folder` exists and holds something else.
    """
    from jax import export

    compiled: Any = data_parallel(lambda images, axis_name: run(images), (0,), 0, devices=jax.local_devices()[:1])
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    with jax.default_matmul_precision("highest"):
        program = bytes(export.export(compiled, platforms=tuple(platforms))(images).serialize())
    content = {
        "format": FORMAT,
        "quantjax": quantjax.__version__,
        "jax": jax.__version__,
        "platforms": list(platforms),
        "class_names": list(class_names),
        "image_size": image_size,
        "threshold": float(threshold),
        "program_sha256": hashlib.sha256(program).hexdigest(),
        **(extra or {}),
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with artefact.ReplacedFolder(folder, CONTENT) as temporary:
        (temporary / PROGRAM).write_bytes(program)
        (temporary / CONTENT).write_text(text, encoding="utf-8")


def load(folder: str | Path, *, batch_size: int = 256, devices: Sequence[Any] | None = None) -> Exported:
    """Read what save wrote, ready to run in padded batches.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged or from a newer format.
    """
    from jax import export

    folder = Path(folder)
    content = artefact.read_json(folder / CONTENT)
    if content.get("format") != FORMAT:
        raise ValueError(f"{folder / CONTENT} has format {content.get('format')!r}, this version reads {FORMAT}")
    data = artefact.read_bytes(folder / PROGRAM)
    if hashlib.sha256(data).hexdigest() != content.get("program_sha256"):
        raise ValueError(f"{folder / PROGRAM} is damaged or cut short ({len(data)} bytes): export the detector again")
    try:
        names, size = tuple(content["class_names"]), int(content["image_size"])
        threshold = float(content["threshold"])
        program = export.deserialize(bytearray(data))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no valid exported detector ({error}): export it again") from error
    run = batched(program.call, batch_size=batch_size, devices=devices)
    return Exported(make_predictor(run, threshold, size), names, size, threshold)
