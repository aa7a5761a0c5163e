"""FrEIA's SequenceINN state dicts, and QuantOD's files that wrap one, -> our coupling flows.

A block is three modules in a row, ActNorm, PermuteRandom, a coupling, so module 3k + 2 is the coupling of block k.
Linear layers of a network sit at 0, 3, 6, ... (Linear, Dropout, ReLU); torch keeps weights as [out, in].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np

from quantjax.checks import check_choice
from quantjax.convert.wrappings import unwrap
from quantjax.flows.base import Flow
from quantjax.flows.recipes import quantod, seeded_permutations
from quantjax.types import PyTree

# Network names, those that transform the first half before those that transform the second, [s, t] in this order.
NETWORKS = {
    "glow": (("subnet2",), ("subnet1",)),
    "gin": (("subnet2",), ("subnet1",)),
    "realnvp": (("subnet_s2", "subnet_t2"), ("subnet_s1", "subnet_t1")),
    "nice": (("F",), ("G",)),
}
OUTPUTS_PER_FEATURE = {"glow": 2, "gin": 2, "realnvp": 1, "nice": 1}
WRAPPER = "nfs_state_dict"  # the flow of QuantOD's files, beside their classifier
_NAME = re.compile(r"module_list\.(\d+)\.(.+)")
_WEIGHT = re.compile(r"module_list\.\d+\.(\w+)\.(\d+)\.weight")


def to_flow(
    state_dict: Mapping[str, Any], *, kind: str | None = None, clamp: float = 3.0, dropout: float = 0.3
) -> tuple[Flow, PyTree]:
    """Return (flow, params) that compute what FrEIA computes with these weights.

    state_dict: names -> arrays (numpy or torch), bare, under "nfs_state_dict", or wrapped as in `wrappings`.
    Kind, blocks, layers, width and D are read from names and shapes. Glow and GIN have the same names and shapes:
    such weights are read as Glow unless kind="gin" is given. clamp and dropout are not in the weights.
    Raises ValueError that lists missing, unexpected and wrong-shape names.
    """
    arrays = _arrays(state_dict)
    options = settings(arrays, kind=kind)
    flow = quantod(**options, clamp=clamp, dropout=dropout)
    return flow, _params(arrays, options)


def settings(state_dict: Mapping[str, Any], *, kind: str | None = None) -> dict[str, Any]:
    """Read the keywords of `flows.recipes.quantod` off a FrEIA state dict, and check every name and shape.

    The key "permutations" is there only when the stored ones differ from QuantOD's seeds.
    Raises ValueError as `to_flow`.
    """
    arrays = _arrays(state_dict)
    options = _infer(arrays, kind)
    expected = _expected_shapes(options)
    missing = sorted(set(expected) - set(arrays))
    unexpected = sorted(set(arrays) - set(expected))
    wrong = [
        f"{name} {list(arrays[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if missing or unexpected or wrong:
        read_as = ", ".join(f"{name} {value}" for name, value in options.items())
        lists = (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong))
        found = "; ".join(f"{title}: {_shorten(names)}" for title, names in lists if names)
        raise ValueError(f"state_dict does not fit the flow its names suggest ({read_as}): {found}")
    orders = np.stack([arrays[f"module_list.{3 * k + 1}.perm"] for k in range(options["blocks"])])
    if not np.array_equal(orders, seeded_permutations(options["dimension"], options["blocks"])):
        options["permutations"] = orders.astype(np.int32)
    return options


def _arrays(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = unwrap(state_dict, WRAPPER if WRAPPER in state_dict else None).arrays
    plain = {name: value.detach().cpu() if hasattr(value, "detach") else value for name, value in arrays.items()}
    return {name: np.asarray(value) for name, value in plain.items()}


def _infer(arrays: Mapping[str, np.ndarray], kind: str | None) -> dict[str, Any]:
    modules = [int(match[1]) for match in map(_NAME.match, arrays) if match]
    networks: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, array in arrays.items():
        if (match := _WEIGHT.match(name)) and array.ndim == 2:
            networks.setdefault(match[1], {})[int(match[2])] = array.shape
    scales = [array.size for name, array in arrays.items() if _NAME.match(name) and name.endswith(".scale")]
    fitting = [k for k, halves in NETWORKS.items() if {n for half in halves for n in half} & set(networks)]
    if not (modules and scales and fitting):
        raise ValueError(
            "state_dict is no FrEIA flow of ActNorm, permutation and coupling blocks: wanted names like "
            f"module_list.0.scale and module_list.2.subnet1.0.weight, got {_shorten(list(arrays)) or 'none'}"
        )
    if kind is not None:
        check_choice("kind", kind, NETWORKS)
    kind = fitting[0] if kind is None else kind
    shapes = networks[next(iter(networks))]
    return {
        "kind": kind,
        "dimension": max(set(scales), key=scales.count),
        "blocks": max(modules) // 3 + 1,
        "layers": max(max(shape) for shape in networks.values()) // 3 - 1,
        "width": shapes[min(shapes)][0],
        "mixing": "permutation",
    }


def _network_shapes(options: Mapping[str, Any], half: int) -> list[tuple[int, int]]:
    first = round(options["dimension"] / 2)
    active, passive = (first, options["dimension"] - first)[:: 1 if half == 0 else -1]
    outputs = active * OUTPUTS_PER_FEATURE[options["kind"]]
    sizes = [passive] + [options["width"]] * (options["layers"] + 1) + [outputs]
    return [(fan_out, fan_in) for fan_in, fan_out in pairwise(sizes)]


def _expected_shapes(options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    dimension = options["dimension"]
    expected: dict[str, tuple[int, ...]] = {}
    for k in range(options["blocks"]):
        expected |= {f"module_list.{3 * k}.{name}": (1, dimension) for name in ("scale", "bias")}
        expected |= {f"module_list.{3 * k + 1}.{name}": (dimension,) for name in ("perm", "perm_inv")}
        for half, names in enumerate(NETWORKS[options["kind"]]):
            for i, shape in enumerate(_network_shapes(options, half)):
                for name in names:
                    layer = f"module_list.{3 * k + 2}.{name}.{3 * i}"
                    expected |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    return expected


def _params(arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> PyTree:
    blocks = range(options["blocks"])

    def stacked(offset: int, name: str) -> np.ndarray:
        return np.stack([arrays[f"module_list.{3 * k + offset}.{name}"] for k in blocks])

    def linear(name: str) -> PyTree:
        return {
            "kernel": jnp.asarray(stacked(2, f"{name}.weight").swapaxes(1, 2)),
            "bias": jnp.asarray(stacked(2, f"{name}.bias")),
        }

    def networks(names: tuple[str, ...]) -> PyTree:
        depth = range(options["layers"] + 2)
        return {
            f"network_{j}": {f"linear_{i}": linear(f"{name}.{3 * i}") for i in depth} for j, name in enumerate(names)
        }

    first, second = map(networks, NETWORKS[options["kind"]])
    norm = {name: jnp.asarray(stacked(0, name)[:, 0]) for name in ("scale", "bias")}
    return {"actnorm": norm, "coupling": {"first": first, "second": second}}


def _shorten(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
