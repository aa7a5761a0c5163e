"""Log-densities under diagonal Gaussians: two matrix products against the sum of squared differences."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.scenes.sizes import SIZES, load, ratios
from benchmarks.timing import alternate
from quantjax.heads.density import layer_norm, normed_log_density, unit


def naive_log_density(x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    """`normed_log_density` as one would write it: every difference squared, [N, G, D] of them."""
    embedding = unit(layer_norm(x, scale, bias))
    squares = (embedding[:, None, :] - mean[None]) ** 2 / variance[None]
    constant = jnp.log(variance).sum(1) + mean.shape[1] * math.log(2 * math.pi)
    return -0.5 * (squares.sum(2) + constant[None])


PROGRAMS = {"quantjax": normed_log_density, "naive": naive_log_density}


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row; the naive program runs on fewer rows where its temporary memory would be more than options.memory."""
    size = SIZES[options.size]
    rows, groups, width = size.density_rows, size.num_classes * size.components, size.channels
    args = _arguments(rows, groups, width)
    row: dict[str, Any] = {"question": "density", "rows": rows, "dimension": width, "components": groups}
    row["naive_array_mb"] = round(4 * rows * groups * width / 1e6, 1)
    programs = {}
    for name in PROGRAMS:
        start = time.perf_counter()
        programs[name] = _compile(name, args)
        row[f"{name}_compile_seconds"] = round(time.perf_counter() - start, 2)
        row[f"{name}_temporary_mb"] = round(programs[name].memory_analysis().temp_size_in_bytes / 1e6, 1)
    few = row["naive_rows"] = min(rows, int(rows * options.memory / max(1.0, 1e6 * row["naive_temporary_mb"])))
    given = {"quantjax": jax.device_put(args), "naive": jax.device_put([args[0][:few], *args[1:]])}
    if few < rows:
        programs["naive"] = _compile("naive", given["naive"])
    calls = {name: partial(_run, program, given[name]) for name, program in programs.items()}
    row |= _differences(calls["quantjax"](), calls["naive"]())
    medians = alternate(calls, options.repeats)
    wall, processor = medians["naive"]
    medians["naive"] = (wall * rows / few, processor * rows / few)
    row |= {f"{name}_ms": round(wall, 2) for name, (wall, _) in medians.items()} | ratios(medians, "naive")
    row["ratio_memory"] = round(row["naive_temporary_mb"] / max(row["quantjax_temporary_mb"], 0.1), 2)
    yield row | load()


def _arguments(rows: int, groups: int, width: int) -> list[np.ndarray]:
    """x, scale, bias, mean, variance."""
    draw = np.random.default_rng(0)
    shapes = ((rows, width), (width,), (width,), (groups, width), (groups, width))
    x, scale, bias, mean, variance = (draw.normal(size=shape).astype(np.float32) for shape in shapes)
    return [x, scale, bias, mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32(0.01) + np.abs(variance)]


def _compile(name: str, args: list[Any]) -> Any:
    """Log-densities, and gradients of a loss of them by features, scale and bias, as one program."""

    def loss(*args: Any) -> tuple[Any, Any]:
        log_density = PROGRAMS[name](*args)
        return jax.nn.logsumexp(log_density, axis=1).sum(), log_density

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)).lower(*args).compile()


def _run(program: Callable[..., Any], args: list[Any]) -> Any:
    return jax.block_until_ready(program(*args))


def _differences(mine: Any, naive: Any) -> dict[str, float]:
    """Of log-densities and of the gradient by the features, in the rows of both, against the largest entry."""
    pairs = {"density": (mine[0][1], naive[0][1]), "gradient": (mine[1][0], naive[1][0])}
    differences = {}
    for name, (found, wanted) in pairs.items():
        found, wanted = np.asarray(found)[: len(wanted)], np.asarray(wanted)
        differences[f"relative_difference_{name}"] = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not max(differences.values()) < 1e-3:
        raise SystemExit(f"the programs differ, so there is nothing to time: {differences}")
    return differences
