import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import scores

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_logit_scores_are_minus_the_papers_formulas(golden):
    want = golden("scores")
    logits = jnp.asarray(want["logits"], jnp.float32)
    np.testing.assert_allclose(scores.msp(logits, form="probability"), -want["msp"], rtol=1e-5)
    np.testing.assert_allclose(scores.max_logit(logits), -want["max_logit"], rtol=1e-6)
    np.testing.assert_allclose(scores.energy(logits), -want["energy"], rtol=1e-5)
    np.testing.assert_allclose(scores.energy(logits, 2.0), -want["energy_t2"], rtol=1e-5)


@pytest.mark.parametrize("score", [scores.msp, scores.max_logit, scores.energy, scores.entropy, scores.rba])
def test_confident_rows_score_lower(score):
    sure, unsure = score(jnp.asarray([[9.0, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    assert sure < unsure


def test_huge_logits_stay_finite_and_exact():
    logits = jnp.asarray([[1e4, 0.0], [-1e4, -1e4]])
    np.testing.assert_allclose(scores.energy(logits), [-1e4, 1e4 - np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(scores.msp(logits), [-1e4, 0.0])


def test_bfloat16_logits_are_scored_in_float32():
    logits = jnp.asarray([[1.0, 2.0]], jnp.bfloat16)
    for score in (scores.msp, scores.max_logit, scores.energy, scores.entropy, scores.rba):
        assert score(logits).dtype == jnp.float32


@pytest.mark.parametrize("score", [scores.msp, scores.max_logit, scores.energy, scores.entropy, scores.rba])
def test_wrong_rank_is_named(score):
    with pytest.raises(ValueError, match="logits must have shape"):
        score(jnp.zeros(3))


def test_energy_needs_a_positive_temperature():
    with pytest.raises(ValueError, match="temperature must lie in"):
        scores.energy(jnp.zeros((1, 2)), 0.0)
