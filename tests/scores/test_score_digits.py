"""Scores keep their digits in float32 where the inputs do: each against NumPy's float64 on the same float32 inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import gaussian, scores

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def float32(array):
    return np.asarray(array, np.float32)


def far_rows(rng, offset, spread, shape):
    return float32(offset + spread * rng.normal(size=shape))


# --- distances and densities ---


@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (1e3, 1e-2), (1e6, 1.0), (1.0, 1e-5)])
def test_distances_and_densities_of_rows_far_from_the_origin(rng, offset, spread):
    x, centres = far_rows(rng, offset, spread, (6, 5)), far_rows(rng, offset, spread, (11, 5))
    difference = x[:, None].astype(np.float64) - centres[None]
    want = (difference**2).sum(axis=2)
    np.testing.assert_allclose(gaussian.squared_distances(jnp.asarray(x), jnp.asarray(centres)), want, rtol=2e-6)
    variance = float32(spread**2 * (0.5 + rng.random((11, 5))))
    quadratic = (difference**2 / variance[None]).sum(axis=2)
    constant = np.log(variance.astype(np.float64)).sum(axis=1) + 5 * np.log(2 * np.pi)
    got = gaussian.diagonal_log_density(jnp.asarray(x), jnp.asarray(centres), jnp.asarray(variance))
    np.testing.assert_allclose(got, -0.5 * (quadratic + constant), rtol=2e-6, atol=1e-5)


def test_a_gradient_of_distances_is_that_of_the_differences(rng):
    x, centres = far_rows(rng, 1e3, 1.0, (4, 3)), far_rows(rng, 1e3, 1.0, (10, 3))
    got = jax.grad(lambda x: jnp.sum(gaussian.squared_distances(x, jnp.asarray(centres))))(jnp.asarray(x))
    np.testing.assert_allclose(got, 2 * (x[:, None].astype(np.float64) - centres[None]).sum(axis=1), rtol=1e-5)


def mahalanobis_in_float64(features, labels, queries, regularisation=1e-6):
    features, queries = features.astype(np.float64), queries.astype(np.float64)
    means = np.stack([features[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    covariance = np.cov((features - means[labels]).T, bias=True)
    covariance += regularisation * np.diag(np.diag(covariance))
    difference = queries[:, None] - means[None]
    return 0.5 * np.einsum("bkd,de,bke->bk", difference, np.linalg.inv(covariance), difference)


@pytest.mark.parametrize("units", [[1.0] * 4, [1.0, 1e6, 1.0, 1e-6], [1e-9] * 4, [1e9] * 4])
def test_mahalanobis_does_not_know_the_units_of_a_feature(rng, units):
    """Two classes 2,000 deviations apart, 500 from the origin; a regularisation of its own units would drown 1e-9."""
    labels = np.arange(60) % 2
    features = float32((500 + rng.normal(size=(60, 4)) + 2000 * labels[:, None]) * np.array(units))
    queries = float32((500 + 3 * rng.normal(size=(8, 4)) + 2000 * (np.arange(8) % 2)[:, None]) * np.array(units))
    want = mahalanobis_in_float64(features, labels, queries)
    fitted = scores.fit_tied_gaussian(features, labels, 2)
    np.testing.assert_allclose(scores.mahalanobis(fitted, jnp.asarray(queries)), want.min(axis=1), rtol=2e-3)


@pytest.mark.parametrize("far", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("direction", ["between classes", "where they agree"])
def test_a_difference_of_distances_rounds_by_the_larger_one(rng, far, direction):
    """The first 4 of 12 features tell the classes apart; along the others both distances grow alike."""
    labels = np.arange(400) % 4
    centres = 8.0 * np.eye(4, 12)
    features = float32(centres[labels] + rng.normal(size=(400, 12)))
    step = rng.normal(size=(30, 12)) * (np.arange(12) < 4 if direction == "between classes" else np.arange(12) >= 4)
    queries = float32(centres[np.arange(30) % 4] + far * step)
    classes = mahalanobis_in_float64(features, labels, queries).min(axis=1)
    background = mahalanobis_in_float64(features, np.zeros_like(labels), queries)[:, 0]
    fitted = scores.fit_tied_gaussian(features, labels, 4), scores.fit_background(features)
    got = np.asarray(scores.relative_mahalanobis(*fitted, jnp.asarray(queries)), np.float64)
    error = np.abs(got - (classes - background))
    assert (error < 1e-6 * np.maximum(classes, background) + 1e-5).all()


def knn_in_float64(bank, queries, k):
    unit = [a.astype(np.float64) / np.linalg.norm(a.astype(np.float64), axis=1, keepdims=True) for a in (queries, bank)]
    squares = ((unit[0][:, None] - unit[1][None]) ** 2).sum(axis=2)
    return np.sort(0.5 * squares, axis=1)[:, k - 1]


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_cosine_distances_of_rows_that_lie_close_together(rng, spread):
    """At a spread of 1e-4 distances are 1e-8, which 1 - cosine rounds to multiples of 6e-8, some of them negative."""
    bank = float32(1.0 + spread * rng.normal(size=(50, 16)))
    queries = float32(1.0 + spread * rng.normal(size=(7, 16)))
    got = scores.knn(scores.fit_neighbours(bank), jnp.asarray(queries), 3, block=16)
    np.testing.assert_allclose(got, knn_in_float64(bank, queries, 3), rtol=3e-3)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e15])
def test_a_bank_queried_with_its_own_rows(rng, scale):
    bank = float32(scale * rng.normal(size=(120, 8)))
    neighbours = scores.fit_neighbours(bank)
    np.testing.assert_array_equal(scores.knn(neighbours, jnp.asarray(bank), 1), 0.0)
    second = np.asarray(scores.knn(neighbours, jnp.asarray(bank), 2))
    np.testing.assert_allclose(second, knn_in_float64(bank / np.float32(scale), bank / np.float32(scale), 2), rtol=1e-4)
    opposite = scores.knn(neighbours, jnp.asarray(-bank), 120)
    np.testing.assert_allclose(opposite, 2.0, rtol=1e-6)
    assert float(np.max(opposite)) <= 2.0


# --- logits ---


def log_odds_in_float64(logits):
    """log of (1 - p) / p of the predicted class over its value at a guess, K - 1."""
    logits = np.sort(logits.astype(np.float64), axis=-1)
    return np.log(np.exp(logits[..., :-1] - logits[..., -1:]).mean(axis=-1))


@pytest.mark.parametrize("margin", [1e-4, 1.0, 15.0, 28.0, 90.0])
def test_msp_keeps_the_order_of_confident_rows(rng, margin):
    """In float32 every softmax probability beyond a margin of 17 is 1."""
    logits = float32(rng.normal(size=(200, 10)) * 0.01 * margin)
    logits[:, 3] += np.float32(margin)
    got = np.asarray(scores.msp(jnp.asarray(logits)))
    want = log_odds_in_float64(logits)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.argsort(got, kind="stable")[::40], np.argsort(want, kind="stable")[::40])


def test_msp_at_margins_of_28_ranks_as_exact_arithmetic_does(rng):
    """AUROC of rows at a margin of 28 + noise against those at 27 + noise, in probabilities and in exact order."""
    from quantjax import metrics

    inliers, outliers = (float32(np.stack([margin + rng.normal(size=300), np.zeros(300)], 1)) for margin in (28, 26))
    exact = metrics.auroc(log_odds_in_float64(inliers), log_odds_in_float64(outliers))
    found = {
        form: metrics.auroc(*(np.asarray(scores.msp(jnp.asarray(x), form=form)) for x in (inliers, outliers)))
        for form in ("log_odds", "probability")
    }
    assert exact > 0.9
    assert found["log_odds"] == pytest.approx(exact, abs=1e-9)
    assert found["probability"] < 0.6  # the published form: all of them are 1


def test_the_published_form_is_the_largest_probability():
    logits = jnp.asarray([[np.log(3.0), 0.0], [0.0, 0.0]], jnp.float32)
    np.testing.assert_allclose(scores.msp(logits, form="probability"), [-0.75, -0.5], rtol=1e-6)
    np.testing.assert_allclose(scores.msp(logits), [np.log(1 / 3), 0.0], rtol=1e-6)
    with pytest.raises(ValueError, match="form must be one of log_odds, probability"):
        scores.msp(logits, form="odds")
    with pytest.raises(ValueError, match="at least two classes"):
        scores.msp(jnp.zeros((3, 1)))


def test_odin_keeps_the_digits_that_a_temperature_of_1000_leaves(rng):
    """Logits that differ by 0.01 give probabilities that differ by 1e-6 of themselves."""
    logits = float32(0.01 * rng.normal(size=(50, 10)))
    images = jnp.asarray(logits.reshape(50, 1, 1, 10))
    got = scores.odin(lambda x: x[:, 0, 0], images, epsilon=0.0)
    want = log_odds_in_float64(logits.astype(np.float64) / 1000)
    np.testing.assert_allclose(got, want, rtol=1e-5)


# --- rows that no score can judge ---

BANK = np.random.default_rng(3).normal(size=(40, 4)) + 2.0
FITTED = {"labels": np.arange(40) % 2}


def judges():
    gaussian_, background = scores.fit_tied_gaussian(BANK, FITTED["labels"], 2), scores.fit_background(BANK)
    neighbours = scores.fit_neighbours(BANK)
    return {
        "mahalanobis": lambda x: scores.mahalanobis(gaussian_, x),
        "relative_mahalanobis": lambda x: scores.relative_mahalanobis(gaussian_, background, x),
        "gem": lambda x: scores.gem(gaussian_, x),
        "knn": lambda x: scores.knn(neighbours, x, 2),
        "msp": scores.msp,
        "msp_probability": lambda x: scores.msp(x, form="probability"),
        "max_logit": scores.max_logit,
        "energy": scores.energy,
        "entropy": scores.entropy,
        "rba": scores.rba,
        "inlier": scores.inlier,
        "likelihood_ratio": lambda x: scores.likelihood_ratio(x[:, :2], x),
        "unknown": lambda x: scores.unknown(x[:, :2]),
    }


@pytest.mark.parametrize("name", judges())
@pytest.mark.parametrize("bad", ["nan", "-nan", "0/0", "inf", "-inf", "1e19", "-3e38"])
def test_a_row_that_is_not_finite_or_overflows_scores_nan(name, bad):
    """Whatever the sign bit of its NaN, and whatever the square of 1e19 becomes on the way."""
    score, rows = judges()[name], float32(BANK[:3])
    zero = jnp.zeros(1, jnp.float32)
    value = {"-nan": -np.float32(np.nan), "0/0": np.asarray(zero / zero)[0]}.get(bad)
    rows[1, 1] = np.float32(bad) if value is None else value
    got = np.asarray(jax.jit(score)(jnp.asarray(rows)))
    np.testing.assert_array_equal(np.isnan(got), [False, True, False])


@pytest.mark.parametrize("name", judges())
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8", "uint8", "int64"])
def test_any_real_dtype_scores_as_float32_does(name, dtype):
    """NumPy arrays as they come, and JAX arrays where JAX has the type."""
    rows = (
        np.rint(2 * BANK[:6]).astype(jnp.dtype(dtype))
        if dtype != "uint8"
        else np.rint(2 * np.abs(BANK[:6])).astype(dtype)
    )
    want = judges()[name](jnp.asarray(rows.astype(np.float32)))
    for given in (rows, jnp.asarray(rows)):
        got = judges()[name](given)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_any_real_dtype_fits_as_float32_does(dtype):
    rows = np.rint(2 * BANK).astype(jnp.dtype(dtype))
    plain, queries = rows.astype(np.float32), jnp.asarray(BANK[:6], jnp.float32)
    for given in (rows, jnp.asarray(rows)):
        got = scores.mahalanobis(scores.fit_tied_gaussian(given, FITTED["labels"], 2), queries)
        want = scores.mahalanobis(scores.fit_tied_gaussian(plain, FITTED["labels"], 2), queries)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        got, want = (scores.knn(scores.fit_neighbours(r), queries, 3) for r in (given, plain))
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8", "int32"])
def test_images_of_any_dtype_take_the_step_of_float32(dtype):
    """A deviation of 0.25 would be 0 among integers, a step of 0.001 nothing in half precision."""
    images = np.arange(12).reshape(2, 2, 1, 3).astype(jnp.dtype(dtype))
    score = lambda x: jnp.sum(x * x, axis=(1, 2, 3)) - 3.0 * x[:, 0, 0, 0]  # noqa: E731
    got = scores.perturb(score, jnp.asarray(images), 0.001, (0.25, 0.5, 1.0))
    want = scores.perturb(score, jnp.asarray(images.astype(np.float32)), 0.001, (0.25, 0.5, 1.0))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)
