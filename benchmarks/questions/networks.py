"""The networks that questions run, with random weights of the real shapes drawn by NumPy: nothing compiles for them."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from benchmarks.questions.sizes import Sizes

ONES = ("scale", "scale1", "scale2", "var")


class Classifier(NamedTuple):
    """A classifier as it is trained, folded for inference, and what its images are standardised by."""

    model: Any
    variables: Any
    folded: Any
    weights: Any  # of `folded`
    preprocessing: Any


def classifier(
    sizes: Sizes, precision: str, state: dict[str, np.ndarray] | None = None, variables: Any = None
) -> Classifier:
    """The classifier in a precision, with these variables, those of a torch state dict, or random ones."""
    import jax

    from quantjax.convert.classifiers import to_variables
    from quantjax.extractors import BACKBONES, fold

    backbone = BACKBONES[sizes.classifier]
    model = backbone.build(sizes.classes, dtype=compute_dtype(precision))
    if state is not None:
        variables = to_variables(state, sizes.classifier, sizes.classes)
    elif variables is None:
        image = jax.ShapeDtypeStruct((1, sizes.image, sizes.image, 3), np.float32)
        variables = drawn(jax.eval_shape(model.init, jax.random.key(0), image))
    return Classifier(model, variables, *fold(model, variables), backbone.preprocessing)


def compute_dtype(precision: str) -> Any:
    """What a network computes in."""
    import jax.numpy as jnp

    return jnp.bfloat16 if precision == "bfloat16" else jnp.float32


def flow(sizes: Sizes, dimension: int, **options: Any) -> tuple[Any, Any]:
    """QuantOD's flow with fixed permutations, as FrEIA has it, and parameters."""
    import jax

    from quantjax.flows import quantod

    built = quantod(
        "glow", dimension=dimension, blocks=sizes.blocks, layers=sizes.layers, width=sizes.width,
        mixing="permutation", **options,
    )  # fmt: skip
    rows = jax.ShapeDtypeStruct((sizes.batch, dimension), np.float32)
    return built, drawn(jax.eval_shape(built.init, jax.random.key(0), rows))


def drawn(shapes: Any) -> Any:
    """Arrays for a tree of shapes: kernels as He et al. (2015) draw them, scales and variances 1, all else 0."""
    import jax

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.rpartition("/")[2] in ONES:
            return np.ones(leaf.shape, leaf.dtype)
        if not name.endswith("kernel"):
            return np.zeros(leaf.shape, leaf.dtype)
        random = np.random.default_rng(zlib.crc32(name.encode()))
        deviation = np.float32((2 / np.prod(leaf.shape[-4:-1] if leaf.ndim == 4 else leaf.shape[-2:-1])) ** 0.5)
        return deviation * random.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def images(rows: int, side: int, seed: int = 0) -> np.ndarray:
    """Random images uint8 [rows, side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (rows, side, side, 3), np.uint8)


def labelled_features(rows: int, dimension: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [rows, dimension] around one centre per class, and labels [rows]."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = random.standard_normal((classes, dimension), np.float32)
    return random.standard_normal((rows, dimension), np.float32) + centres[labels], labels
