"""The two objectives by hand arithmetic, on networks whose output is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.scores import Standardisation
from quantjax.segmentation import FrozenSegmentor, Scales, estimator_objective, make_estimator
from quantjax.segmentation.objectives import join_segmentor, split_segmentor

INLIERS, OUTLIERS, IGNORED = 20, 9, 3  # of 32 pixels
F = (0.3, -0.2, 0.1)
U = (0.4, 1.1)


def known(variables, images):
    """Constant maps and logits, whatever the image."""
    batch = images.shape[0]
    return jnp.ones((batch, 2, 4, 5)), jnp.broadcast_to(variables["logits"].reshape(1, 1, 1, 3), (batch, 2, 4, 3))


def crops():
    label = np.repeat([0, 2, 254, 255], [INLIERS - 5, 5, OUTLIERS, IGNORED]).astype(np.uint8)
    return {"image": np.full((1, 4, 8, 3), 100, np.uint8), "label": label.reshape(1, 4, 8)}


@pytest.fixture(scope="module")
def estimator():
    """One layer of zeros and a head that says U everywhere."""
    network = make_estimator((6,))
    params = {
        "projector": {"params": {"linear0": {"kernel": jnp.zeros((5, 6)), "bias": jnp.zeros(6)}}},
        "head": {"linear": {"kernel": jnp.zeros((6, 2)), "bias": jnp.asarray(U)}},
    }
    return network, params


def run(estimator, **options):
    network, params = estimator
    objective = estimator_objective(FrozenSegmentor(known), network, **options)
    state, frozen = {"head": (), "decoder": ()}, {"logits": jnp.asarray(F)}
    (loss, _, terms), grads = jax.jit(objective)(params, state, (frozen, crops()), jax.random.key(0))
    return float(loss), terms, grads


def softplus(x):
    return np.log1p(np.exp(x))


@pytest.mark.parametrize("class_weight", [0.0, 0.5])
def test_stage_two_is_the_binary_cross_entropy_of_the_ratio(estimator, class_weight):
    loss, terms, grads = run(estimator, class_weight=class_weight)
    ratio = U[1] - U[0] - max(F)
    labelled = INLIERS + OUTLIERS
    wanted = (OUTLIERS * softplus(-ratio) + INLIERS * softplus(ratio)) / labelled
    assert float(terms["ratio"]) == pytest.approx(wanted, rel=1e-5)
    assert float(terms["outliers"]) == pytest.approx(OUTLIERS / labelled)
    if class_weight:
        whole = np.log(np.exp(U[0]) + np.exp(U[1]))
        entropy = (INLIERS * (whole - U[0]) + OUTLIERS * (whole - U[1])) / labelled
        wanted += class_weight * entropy
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert np.abs(grads["head"]["linear"]["bias"]).min() > 0


def test_scales_bring_the_maximum_and_both_values_to_the_ratio(estimator):
    scale = Standardisation(jnp.float32(0.05), jnp.float32(0.5))
    _, terms, _ = run(estimator, scales=Scales(scale, scale))
    ratio = (U[1] - U[0]) / 0.5 - (max(F) - 0.05) / 0.5
    wanted = (OUTLIERS * softplus(-ratio) + INLIERS * softplus(ratio)) / (INLIERS + OUTLIERS)
    assert float(terms["ratio"]) == pytest.approx(wanted, rel=1e-5)


def test_only_a_segmentor_has_statistics_that_drift(estimator):
    with pytest.raises(ValueError, match="freeze_statistics must be True beside a FrozenSegmentor"):
        run(estimator, freeze_statistics=False)


def test_parts_of_a_segmentor_are_put_together_again():
    variables = {
        "backbone": {"a": 1},
        "decoder": {"params": {"b": 2}, "batch_stats": {"c": 3}},
        "head": {"params": {"d": 4}, "state": ()},
    }
    for train_backbone in (False, True):
        params, state, frozen = split_segmentor(variables, train_backbone=train_backbone)
        assert ("backbone" in params, "backbone" in frozen) == (train_backbone, not train_backbone)
        assert join_segmentor(params, state, frozen) == variables
