"""What a classifier's images are scored by: every method of the library, in two programs."""

from __future__ import annotations

from typing import Any

from benchmarks.questions.networks import Classifier, flow, labelled_features
from benchmarks.questions.sizes import Sizes

KNN_STEP, NEIGHBOURS = 5, 10  # every fifth training feature makes the bank; its tenth neighbour is the score


def fitted(given: Classifier, sizes: Sizes) -> tuple[Any, dict[str, Any]]:
    """A flow, and all that scoring reads beside images, fitted to random features."""
    from quantjax.extractors import BACKBONES

    dimension = BACKBONES[sizes.classifier].feature_dimension
    features, labels = labelled_features(max(sizes.train_images, 2 * dimension), dimension, sizes.classes)
    built, params = flow(sizes, dimension)
    return built, {"network": given.weights, "flow": params, **fit(features, labels, sizes.classes)}


def fit(features: Any, labels: Any, classes: int) -> dict[str, Any]:
    """What the scores of features are fitted to."""
    from quantjax import scores

    return {
        "gaussian": scores.fit_tied_gaussian(features, labels, classes),
        "background": scores.fit_background(features),
        "bank": scores.fit_neighbours(features[::KNN_STEP]),
    }


def network(given: Classifier, weights: Any, pixels: Any) -> tuple[Any, Any]:
    """Logits and features of images uint8."""
    from quantjax.extractors import extract, standardise

    return extract(given.folded, weights["network"], standardise(pixels, given.preprocessing))


def score_outputs(weights: Any, logits: Any, features: Any) -> dict[str, Any]:
    """Every score that needs neither a gradient nor a flow."""
    from quantjax import scores

    gaussian, background = weights["gaussian"], weights["background"]
    return {
        "msp": scores.msp(logits),
        "max_logit": scores.max_logit(logits),
        "energy": scores.energy(logits),
        "mahalanobis": scores.mahalanobis(gaussian, features),
        "relative_mahalanobis": scores.relative_mahalanobis(gaussian, background, features),
        "gem": scores.gem(gaussian, features),
        "knn": scores.knn(weights["bank"], features, min(NEIGHBOURS, len(weights["bank"].bank))),
    }


def score_all(given: Classifier, built: Any, weights: Any, pixels: Any) -> dict[str, Any]:
    """Logits, features and every score that needs no gradient, of images uint8."""
    from quantjax.flows import log_likelihood

    logits, features = network(given, weights, pixels)
    quantod = -log_likelihood(built, weights["flow"], features)
    return {
        "logits": logits,
        "features": features,
        "quantod": quantod,
        **score_outputs(weights, logits, features),
    }


def score_moved(given: Classifier, weights: Any, pixels: Any, gem: bool = False) -> dict[str, Any]:
    """ODIN, and the Mahalanobis distance (and GEM) after one step of the input, of images uint8."""
    from quantjax import scores
    from quantjax.extractors import standardise

    inputs, std = standardise(pixels, given.preprocessing), given.preprocessing.std

    def output(x: Any) -> Any:
        return given.folded.apply(weights["network"], x)

    moved = {"mahalanobis_perturbed": scores.mahalanobis} | ({"gem_perturbed": scores.gem} if gem else {})
    found = {"odin": scores.odin(lambda x: output(x).logits, inputs, std=std)}
    for name, score in moved.items():
        found[name] = scores.perturbed(
            lambda x, score=score: score(weights["gaussian"], output(x).features), inputs, std=std
        )
    return found
