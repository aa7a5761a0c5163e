"""Any function images -> (logits, features) as a detector's network: its shapes, and its form in a file.

In a file it is a program (jax.export) beside its arrays, so that it loads where its code is not installed. A program is
code: load only a detector that you or someone you trust saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.detector import exported
from quantjax.parallel import data_parallel
from quantjax.types import Array, ClassifierOutput, PyTree

PROGRAM, VARIABLES = "program", "variables"  # names in the file
STORED = ("b", "i", "u", "f")  # kinds of numbers that files hold; others (keys, bfloat16) stay inside the program


class Network(Protocol):
    """A classifier of images in evaluation mode."""

    def __call__(self, variables: PyTree, images: Array, /) -> Any:
        """Standardised images [B, H, W, 3] float32 -> (logits [B, K], features [B, D]), or a ClassifierOutput.

        Methods that read layers need its third part, too: maps [B, h, w, C] by name.
        """
        ...


class Sizes(NamedTuple):
    """What a network returns for one image."""

    classes: int
    """K"""
    dimension: int
    """D"""
    maps: tuple[str, ...]
    """Names of the maps."""


def output(network: Network, variables: PyTree, images: Array) -> ClassifierOutput:
    """What the network says, in float32; raises ValueError unless it is a pair of [B, K] and [B, D]."""
    result = network(variables, images)
    if not isinstance(result, tuple) or len(result) < 2:
        raise ValueError(f"a network must return (logits [B, K], features [B, D]), got {type(result).__name__}")
    logits, features, maps = result if len(result) == 3 else (*result[:2], {})
    for name, value in (("logits", logits), ("features", features)):
        if np.ndim(value) != 2 or value.shape[0] != images.shape[0]:
            raise ValueError(f"a network must return {name} [B, .] for images [B, ...], got {list(np.shape(value))}")
    return ClassifierOutput(logits.astype(jnp.float32), features.astype(jnp.float32), maps)


def sizes(network: Network, variables: PyTree, image_size: int) -> Sizes:
    """K and D, found without computing anything; raises ValueError as `output` does."""

    def trace(variables: PyTree, images: Array) -> ClassifierOutput:
        return output(network, variables, images)

    found = jax.eval_shape(trace, variables, _images(2, image_size))
    return Sizes(found.logits.shape[1], found.features.shape[1], tuple(found.intermediates))


def to_arrays(
    network: Network, variables: PyTree, image_size: int, *, gradient: bool, maps: bool = False
) -> dict[str, PyTree]:
    """The network's program and arrays, for the artefact; `gradient` where a score differentiates it.

    The program returns logits and features, and the maps, too, where a score reads them.

    Raises ValueError for a network that cannot be a program, and says what to do instead.
    """
    leaves, structure = jax.tree.flatten(variables)
    stored = {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(leaves) if _is_stored(leaf)}

    def run(arrays: Mapping[str, Array], images: Array, axis_name: str | None) -> tuple[Any, ...]:
        del axis_name
        whole = [arrays.get(f"{i:05d}", leaf) for i, leaf in enumerate(leaves)]
        return tuple(output(network, jax.tree.unflatten(structure, whole), images))[: 3 if maps else 2]

    compiled = data_parallel(run, (None, 0), 0, devices=jax.local_devices()[:1])
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), stored)
    images = exported.any_number_of(jax.ShapeDtypeStruct((image_size, image_size, 3), jnp.float32))
    program = _to_program(compiled, (shapes, images), gradient)
    return {PROGRAM: np.frombuffer(program, np.uint8), VARIABLES: stored}


def _to_program(compiled: Any, shapes: tuple[PyTree, ...], gradient: bool) -> bytes:
    """For every platform, or for the one at hand where the network is written for that alone."""
    from jax import export

    try:
        return exported.to_program(compiled, shapes, gradient=gradient)
    except ValueError:
        here = (export.default_export_platform(),)
        return exported.to_program(compiled, shapes, platforms=here, gradient=gradient)


def from_arrays(arrays: Mapping[str, np.ndarray], prefix: str) -> tuple[Network, PyTree]:
    """(network, variables) of the arrays of a file that to_arrays made, each under `prefix`/; ValueError otherwise."""
    names = f"{prefix}/{VARIABLES}/"
    variables = {name.removeprefix(names): array for name, array in arrays.items() if name.startswith(names)}
    if f"{prefix}/{PROGRAM}" not in arrays:
        raise ValueError(f"{prefix}/{PROGRAM} is missing")
    program = exported.read_program(f"{prefix}/{PROGRAM}", arrays[f"{prefix}/{PROGRAM}"].tobytes())
    return program.call, variables


def _is_stored(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", np.asarray(leaf).dtype if np.isscalar(leaf) else None)
    return isinstance(dtype, np.dtype) and dtype.kind in STORED


def _images(rows: int, size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, size, size, 3), jnp.float32)
