"""Trees of arrays under the names that they have in files: "/"-joined paths, such as "params/stem/conv/kernel"."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from quantjax.types import ANY, PyTree


def flatten(tree: PyTree) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}, in JAX's order; fields and positions of tuples are names as keys of dicts are.

    Raises ValueError when a name contains a slash.
    """
    flat = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        names = [jax.tree_util.keystr((key,), simple=True) for key in path]
        for name in names:
            if "/" in name:
                raise ValueError(f"names of a tree must not contain '/', got {name!r}")
        flat["/".join(names)] = leaf
    return flat


def digest(flat: Mapping[str, Any]) -> str:
    """64 hexadecimal digits of the sha256 over the bytes of all arrays, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(flat):
        found.update(np.asarray(flat[name]).tobytes())
    return found.hexdigest()


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} -> {"a": {"b": x}}: nested dicts, whatever they were."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def restore(flat: Mapping[str, np.ndarray], template: PyTree) -> PyTree:
    """The arrays in the structure of `template`; ValueError lists missing, unexpected and wrongly shaped ones."""
    wanted = flatten(template)
    _compare(flat, wanted)
    return jax.tree.unflatten(jax.tree.structure(template), [flat[name] for name in wanted])


def check(tree: PyTree, template: PyTree) -> None:
    """Raise ValueError unless `tree` has the names, shapes and dtypes of `template`; -1 there leaves a length open."""
    _compare(flatten(tree), flatten(template))


def _compare(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is unexpected" for name in given if name not in wanted]
    for name in wanted.keys() & given.keys():
        shape, dtype = tuple(np.shape(given[name])), getattr(given[name], "dtype", None)
        length_fits = [w in (ANY, g) for w, g in zip(wanted[name].shape, shape, strict=False)]
        if len(shape) != len(wanted[name].shape) or not all(length_fits) or dtype != wanted[name].dtype:
            problems.append(f"{name} must be {wanted[name].dtype} {list(wanted[name].shape)}, is {dtype} {list(shape)}")
    if problems:
        rest = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError("; ".join(sorted(problems)[:5]) + rest)
