"""The outlier scores a detector can carry, by name: how each reads a classifier, and the shape of what it fitted.

Every score is higher for more outlying images. A method's settings are the keyword arguments of its function, plus
`epsilon`: with epsilon > 0 the score is taken after an input perturbation of that size (Lee et al., NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from quantjax import scores
from quantjax.flows.base import log_likelihood
from quantjax.flows.recipes import quantod
from quantjax.types import Array, ClassifierOutput, PyTree

Settings = Mapping[str, Any]
Classify = Callable[[Array], ClassifierOutput]
ANY = -1  # a length that a template leaves open


class View(NamedTuple):
    """What a score may look at; a score without perturbation reads `output` alone."""

    output: ClassifierOutput  # classify(images)
    images: Array | None = None  # [B, H, W, C] standardised
    classify: Classify | None = None  # standardised images -> ClassifierOutput, evaluation mode
    std: tuple[float, ...] = (1.0,)  # of the standardisation


class Method(NamedTuple):
    """A score as pure functions."""

    score: Callable[[Settings, PyTree, View], Array]  # (settings, fitted parameters, view) -> [B]
    template: Callable[[Settings, int, int], PyTree]  # (settings, D, K) -> shapes of the fitted parameters


def evaluate(name: str, settings: Settings, params: PyTree, view: View) -> Array:
    """Score [B] of method `name` with its settings and fitted parameters; higher = more outlying."""
    return METHODS[name].score(settings, params, view)


def needs_images(name: str, settings: Settings) -> bool:
    """Whether the score needs a gradient with respect to the images, not only the classifier's output."""
    return name == "odin" or settings.get("epsilon", 0.0) > 0.0


def _of_output(function: Callable[..., Array]) -> Callable[[Settings, PyTree, View], Array]:
    """A score from function(params, output, **settings), perturbed when the settings say so."""

    def score(settings: Settings, params: PyTree, view: View) -> Array:
        options = {key: value for key, value in settings.items() if key != "epsilon"}
        if not needs_images("", settings):
            return function(params, view.output, **options)
        classify, images = _image_access(view)
        moved = partial(_after, classify, lambda output: function(params, output, **options))
        return scores.perturbed(moved, images, epsilon=settings["epsilon"], std=view.std)

    return score


def _after(classify: Classify, function: Callable[[ClassifierOutput], Array], images: Array) -> Array:
    return function(classify(images))


def _odin(settings: Settings, params: PyTree, view: View) -> Array:
    classify, images = _image_access(view)
    return scores.odin(lambda x: classify(x).logits, images, std=view.std, **settings)


def _image_access(view: View) -> tuple[Classify, Array]:
    if view.classify is None or view.images is None:
        raise ValueError("a perturbed score needs the images and the classifier in its view, got the output alone")
    return view.classify, view.images


def _quantod(params: PyTree, output: ClassifierOutput, **settings: Any) -> Array:
    """-log p of the features under the flow, in nats (Taghikhah et al., AAAI 2024, eq. 3)."""
    return -log_likelihood(quantod(**settings), params, output.features)


def _flow_template(settings: Settings, dimension: int, classes: int) -> PyTree:
    if settings.get("dimension") != dimension:
        raise ValueError(f"the flow must have the backbone's dimension {dimension}, got {settings.get('dimension')}")
    flow = quantod(**{key: value for key, value in settings.items() if key != "epsilon"})
    rows = jax.ShapeDtypeStruct((2, dimension), jnp.float32)
    return jax.eval_shape(flow.init, jax.random.key(0), rows)


def _gaussian_template(settings: Settings, dimension: int, classes: int) -> PyTree:
    def shape(*sizes: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype)

    counts = shape(classes, dtype=jnp.int32)
    return scores.TiedGaussian(
        shape(dimension), shape(dimension, dimension), shape(classes, dimension), counts, shape()
    )


def _pair_template(settings: Settings, dimension: int, classes: int) -> PyTree:
    return tuple(_gaussian_template(settings, dimension, count) for count in (classes, 1))


def _bank_template(settings: Settings, dimension: int, classes: int) -> PyTree:
    bank: Any = jax.ShapeDtypeStruct((ANY, dimension), jnp.float32)
    return scores.Neighbours(bank)


def _nothing(settings: Settings, dimension: int, classes: int) -> PyTree:
    return ()


METHODS: dict[str, Method] = {
    "quantod": Method(_of_output(_quantod), _flow_template),
    "msp": Method(_of_output(lambda params, output: scores.msp(output.logits)), _nothing),
    "max_logit": Method(_of_output(lambda params, output: scores.max_logit(output.logits)), _nothing),
    "energy": Method(_of_output(lambda params, output, **kw: scores.energy(output.logits, **kw)), _nothing),
    "odin": Method(_odin, _nothing),
    "mahalanobis": Method(
        _of_output(lambda params, output: scores.mahalanobis(params, output.features)), _gaussian_template
    ),
    "relative_mahalanobis": Method(
        _of_output(lambda pair, output: scores.relative_mahalanobis(pair[0], pair[1], output.features)), _pair_template
    ),
    "gem": Method(_of_output(lambda params, output: scores.gem(params, output.features)), _gaussian_template),
    "knn": Method(_of_output(lambda params, output, **kw: scores.knn(params, output.features, **kw)), _bank_template),
}
