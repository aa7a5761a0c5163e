"""The likelihood ratio and dense logit scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import scores
from quantjax.scores import ratio

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_ratio_is_outlier_minus_inlier_minus_best_class():
    unknown, logits = jnp.asarray([[[2.0, 5.0]]]), jnp.asarray([[[1.0, 4.0, -2.0]]])
    np.testing.assert_allclose(scores.inlier(logits), [[-4.0]])
    np.testing.assert_allclose(scores.unknown(unknown), [[5.0]])
    np.testing.assert_allclose(scores.likelihood_ratio(unknown, logits), [[5.0 - 2.0 - 4.0]])


def test_standardised_ratio_by_hand():
    """max F = 280 at mean 260 and deviation 10 is 2; (330 - 300) / 20 = 1.5: 1.5 - 2 = -0.5."""
    unknown, logits = jnp.asarray([[300.0, 330.0]]), jnp.asarray([[280.0, 250.0]])
    of_inliers, of_unknown = (
        scores.Standardisation(jnp.asarray(mean), jnp.asarray(std)) for mean, std in ((260.0, 10.0), (310.0, 20.0))
    )
    np.testing.assert_allclose(scores.likelihood_ratio(unknown, logits, of_inliers, of_unknown), [-0.5], rtol=1e-6)
    np.testing.assert_allclose(scores.inlier(logits, of_inliers), [-2.0], rtol=1e-6)
    np.testing.assert_allclose(scores.unknown(unknown, of_unknown), [1.0], rtol=1e-6)


def test_standardisation_merges_parts_as_numpy_does_at_once(rng):
    values = 250 + 12 * rng.normal(size=1000)
    fitted = scores.fit_standardisation(part for part in np.split(values, [3, 3, 410]))
    np.testing.assert_allclose(fitted.mean, values.mean(), rtol=1e-6)
    np.testing.assert_allclose(fitted.deviation, values.std(), rtol=1e-6)
    np.testing.assert_allclose(np.std(ratio.standardise(jnp.asarray(values, jnp.float32), fitted)), 1.0, rtol=1e-4)


@pytest.mark.parametrize("parts", [[], [np.ones(5)], [np.array([1.0, np.nan])]])
def test_values_that_have_no_scale_are_refused(parts):
    with pytest.raises(ValueError, match="values must be finite and not all equal"):
        scores.fit_standardisation(parts)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"unknown must have shape \[..., 2\]"):
        scores.likelihood_ratio(jnp.zeros((4, 3)), jnp.zeros((4, 5)))
    with pytest.raises(ValueError, match="must agree in all axes but the last"):
        scores.likelihood_ratio(jnp.zeros((4, 2)), jnp.zeros((5, 5)))
    with pytest.raises(ValueError, match=r"values must have shape \[..., 2\]"):
        scores.unknown(jnp.zeros(()))


def test_entropy_and_rba_equal_torch(golden):
    want = golden("pixel_losses")
    logits = jnp.asarray(want["logits"][..., :4])
    np.testing.assert_allclose(scores.entropy(logits), want["entropy"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.rba(logits), want["rba_score"], rtol=1e-5, atol=1e-6)


def test_maps_of_pixels_score_as_rows_do(rng):
    logits = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32)
    run = jax.jit(lambda x: [f(x) for f in (scores.msp, scores.max_logit, scores.energy, scores.entropy, scores.rba)])
    for maps, rows in zip(run(logits), run(logits.reshape(-1, 5)), strict=True):
        assert maps.shape == (2, 3, 4)
        np.testing.assert_allclose(maps.ravel(), rows, rtol=1e-6, atol=1e-7)


def test_entropy_runs_from_zero_to_one():
    got = scores.entropy(jnp.asarray([[80.0, 0.0, 0.0], [3.0, 3.0, 3.0]]))
    np.testing.assert_allclose(got, [0.0, 1.0], atol=1e-6)
    with pytest.raises(ValueError, match="at least two classes"):
        scores.entropy(jnp.zeros((3, 1)))
