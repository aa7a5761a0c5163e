"""The hot functions of the library, each with what makes its arguments: profiles and lowering look at these.

`HOT` builds nothing before it is asked; `shapes` are those of the arguments, for which no large array is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.questions import banks, flow, networks, scored, stage1
from benchmarks.questions.sizes import Sizes
from benchmarks.scenes import networks as scenes
from quantjax import scores
from quantjax.flows import log_likelihood
from quantjax.heads import gmm
from quantjax.train import init_state, shuffled_order


class Hot(NamedTuple):
    """One hot function, not compiled yet."""

    function: Callable[..., Any]
    arguments: Callable[[], tuple[Any, ...]]  # what it is called with: random numbers
    amount: int  # that one call does
    unit: str  # of what, in the plural
    precision: str  # bfloat16, tensorfloat32 or float32, see ceilings.matmul_precision
    donated: tuple[int, ...] = ()  # arguments whose memory the results may take
    sketch: Callable[[], tuple[Any, ...]] | None = None  # arguments to take shapes of, where making them is dear


def shapes(hot: Hot) -> tuple[Any, ...]:
    """The arguments as jax.ShapeDtypeStruct."""
    return jax.eval_shape(hot.sketch or hot.arguments)


def wrn_scores(sizes: Sizes) -> Hot:
    """Logits, features and every score that needs no gradient, in one pass."""
    given = networks.classifier(sizes, "bfloat16")
    built, weights = scored.fitted(given, sizes)
    pixels = partial(networks.images, sizes.image_batch, sizes.image)
    function = partial(scored.score_all, given, built)
    return Hot(function, lambda: (weights, pixels()), sizes.image_batch, "images", "bfloat16")


def wrn_perturbed(sizes: Sizes) -> Hot:
    """ODIN, and Mahalanobis after its perturbation: two passes forward and one back each."""
    given = networks.classifier(sizes, "bfloat16")
    weights = scored.fitted(given, sizes)[1]
    pixels = partial(networks.images, sizes.perturbed_batch, sizes.image)
    function = partial(scored.score_moved, given)
    return Hot(function, lambda: (weights, pixels()), sizes.perturbed_batch, "images", "bfloat16")


def stage1_epoch(sizes: Sizes) -> Hot:
    """An epoch of the classifier, augmentation in the step, one scan."""
    function, *arguments = stage1.epoch_of(sizes, "bfloat16", sizes.generators[0])
    return Hot(function, lambda: tuple(arguments), sizes.train_images, "images", "bfloat16", donated=(0,))


def flow_scores(sizes: Sizes, dimension: int) -> Hot:
    """Log-likelihoods of features."""
    built, params = networks.flow(sizes, dimension)
    function = partial(log_likelihood, built)
    return Hot(
        function, lambda: (params, flow.features(sizes.flow_rows, dimension)), sizes.flow_rows, "rows", "float32"
    )


def flow_step(sizes: Sizes, form: flow.Form) -> Hot:
    """A training step, as an epoch of one batch."""
    dimension, rows = sizes.dimensions[0], sizes.batch
    built, params = networks.flow(sizes, dimension)

    def arguments() -> tuple[Any, ...]:
        data = (flow.features(rows, dimension), None)
        return init_state(params, flow.optimizer()), data, shuffled_order(0, 0, rows, rows), jax.random.key(0)

    return Hot(flow.epoch_of(built, form, sizes.q), arguments, rows, "rows", "float32", donated=(0,))


def window_logits(sizes: Sizes, dtype: str, batch: int) -> Hot:
    """Logits of a mixture head and of the linear estimator, for a batch of standardised windows."""
    network, estimator = scenes.build(sizes, dtype)
    images = partial(jax.random.normal, jax.random.key(0), (batch, *sizes.window, 3))
    precision = "bfloat16" if dtype == "bfloat16" else "tensorfloat32"
    return Hot(
        partial(scenes.logits, network, estimator),
        lambda: (scenes.weights(network, estimator), images()),
        batch, "windows", precision,
        sketch=lambda: (_ones(scenes.weight_shapes(network, estimator)), images()),
    )  # fmt: skip


def float32_batch(sizes: Sizes) -> int:
    """Windows of a batch in float32, of which there is one."""
    return sizes.window_batches[len(sizes.window_batches) // 2]


def stage2_step(sizes: Sizes, batch: int) -> Hot:
    """A training step of the unknown estimation module beside a frozen segmentor."""
    network, estimator = scenes.build(sizes, "bfloat16")
    arguments = partial(scenes.estimator_arguments, sizes, batch)
    return Hot(
        scenes.estimator_step(network, estimator),
        lambda: arguments(*scenes.weights(network, estimator)),
        batch, "crops", "bfloat16", donated=(0,),
        sketch=lambda: arguments(*_ones(scenes.weight_shapes(network, estimator))),
    )  # fmt: skip


def gmm_step(sizes: Sizes) -> Hot:
    """Densities of a mixture head, the gradient of its contrast loss, and one step of Sinkhorn EM."""
    settings = gmm.GmmSettings(sizes.scene_classes, sizes.channels, sizes.components)

    def step(state: Any, params: Any, features: Any, labels: Any) -> tuple[Any, Any]:
        def loss(params: Any, features: Any) -> tuple[Any, Any]:
            output = gmm.forward(settings, params, state, features)
            new_state, targets = gmm.update(settings, state, output, labels)
            return gmm.contrast(output, targets).mean(), new_state

        grads, new_state = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, features)
        return new_state, grads

    def arguments() -> tuple[Any, ...]:
        params, state = gmm.init(jax.random.key(0), settings)
        labels = jnp.arange(sizes.gmm_rows, dtype=jnp.int32).reshape(1, 1, -1) % sizes.scene_classes
        return state, params, jax.random.normal(jax.random.key(1), (*labels.shape, sizes.channels)), labels

    return Hot(step, arguments, sizes.gmm_rows, "pixels", "float32", donated=(0,))


def neighbours(sizes: Sizes, bank: tuple[int, int, int]) -> Hot:
    """Exact distances to the 10th neighbour, the bank read in blocks."""
    rows, dimension, queries = bank
    _, search, _ = banks.searches(sizes, rows).values()

    def arguments() -> tuple[Any, ...]:
        return banks.unit_rows(0, rows, dimension), banks.unit_rows(1, queries, dimension)

    return Hot(search, arguments, queries, "queries", "float32")


def mahalanobis(sizes: Sizes) -> Hot:
    """Distances to the nearest class mean."""
    features, labels = networks.labelled_features(sizes.gaussian_rows, sizes.dimensions[0], sizes.classes)
    gaussian = scores.fit_tied_gaussian(features, labels, sizes.classes)
    return Hot(scores.mahalanobis, lambda: (gaussian, features), len(features), "rows", "float32")


def _ones(shapes: Any) -> Any:
    """Arrays that are traced, not made."""
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)


HOT: dict[str, Callable[[Sizes], Hot]] = {
    "wrn_scores": wrn_scores,
    "stage1_epoch": stage1_epoch,
    "flow_step_quantile": lambda sizes: flow_step(sizes, flow.TWO_ROW),
    "flow_scores": lambda sizes: flow_scores(sizes, sizes.dimensions[0]),
    "knn": lambda sizes: neighbours(sizes, sizes.small_bank),
    "windows_bfloat16": lambda sizes: window_logits(sizes, "bfloat16", max(sizes.window_batches)),
    "stage2_step": lambda sizes: stage2_step(sizes, sizes.crop_batches[0]),
    "wrn_perturbed": wrn_perturbed,
    "flow_step_mean": lambda sizes: flow_step(sizes, flow.MEAN),
    "flow_scores_wide": lambda sizes: flow_scores(sizes, sizes.dimensions[-1]),
    "windows_float32": lambda sizes: window_logits(sizes, "float32", float32_batch(sizes)),
    "gmm_step": gmm_step,
    "knn_large": lambda sizes: neighbours(sizes, sizes.large_bank),
    "mahalanobis": mahalanobis,
}
