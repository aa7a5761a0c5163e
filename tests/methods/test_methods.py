"""One row per method, all properties: real digits 0-7 are known, 8 and 9 are not; pixels are the features.

A floor lies about 0.02 under what was measured when it was set: a silent regression of a method fails.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import detector, methods, metrics
from quantjax.types import ClassifierOutput


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    floor: float  # AUROC of 8 and 9 against 0-7, or of negatives
    settings: Any = None
    negatives: bool = False  # of the other inliers, where two epochs of a flow do not tell digits apart


SMALL_FLOW = {"blocks": 1, "layers": 0, "width": 16, "epochs": 2, "batch_size": 64}
ROWS = [
    Row("quantod", 0.99, SMALL_FLOW, negatives=True),
    Row("quantod_pp", 0.79, SMALL_FLOW),
    Row("msp", 0.92),
    Row("max_logit", 0.93),
    Row("energy", 0.93),
    Row("gen", 0.93),
    Row("temperature_scaling", 0.915),
    Row("kl_matching", 0.895),
    Row("openmax", 0.84),
    Row("odin", 0.93),
    Row("mahalanobis", 0.81),
    Row("mahalanobis_perturbed", 0.81),
    Row("relative_mahalanobis", 0.905),
    Row("gem", 0.81),
    Row("gem_perturbed", 0.81),
    Row("mahalanobis_pp", 0.79),
    Row("relative_mahalanobis_pp", 0.895),
    Row("typicality", 0.97, negatives=True),
    Row("gaussian_mixture", 0.825),
    Row("knn", 0.915, {"k": 5, "step": 1}),
    Row("knn_raw", 0.93, {"k": 5, "step": 1}),
    Row("nnguide", 0.93, {"k": 5, "step": 1}),
    Row("pca_residual", 0.805),
    Row("mahalanobis_layers", 0.76),
    Row("quantod_layers", 0.76, SMALL_FLOW),
    Row("vim", 0.855),
    Row("residual", 0.685),
    Row("react", 0.925),
    Row("ash_p", 0.91),
    Row("ash_b", 0.815),
    Row("ash_s", 0.885, {"percentile": 0.5}),
    Row("scale", 0.765),
    Row("dice", 0.575, {"sparsity": 0.3}),
    Row("fdbd", 0.92),
    Row("nci", 0.915),
    Row("she", 0.64),
    Row("gradnorm", 0.835),
    Row("energy_mahalanobis_pp", 0.9),
    Row("energy_mahalanobis_layers", 0.9),
    Row("energy_quantod_layers", 0.9, {f"quantod_layers.{name}": value for name, value in SMALL_FLOW.items()}),
]


@pytest.fixture(scope="module", autouse=True)
def loose_ranks():
    """optax's updates promote."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def digits():
    """(images to fit on, their labels, other inliers, outliers), uint8 [., 8, 8, 3]."""
    pixels, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    images = np.repeat((pixels * 15.9375).astype(np.uint8).reshape(-1, 8, 8, 1), 3, axis=3)
    known = labels < 8
    return images[known][::2], labels[known][::2].astype(np.int32), images[known][1::2], images[~known]


@pytest.fixture(scope="module")
def variables(digits):
    """A ridge regression of the classes, as a linear layer."""
    rows = digits[0].mean(-1).reshape(-1, 64) / 255.0
    design = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    weights = np.linalg.solve(design.T @ design + 0.1 * np.eye(65), design.T @ np.eye(8)[digits[1]])
    return {"kernel": (10.0 * weights[:64]).astype("f"), "bias": (10.0 * weights[64]).astype("f")}


def network(variables, x):
    """Pixels as features, and maps of rows and columns; an image whose corner is red has features and logits of NaN."""
    features = x.mean(axis=3).reshape(-1, 64)
    features = jnp.where((x[:, 0, :1, 0] == 1.0) & (x[:, 0, :1, 1] == 0.0), jnp.nan, features)
    maps = {"rows": features.reshape(-1, 1, 8, 8), "columns": features.reshape(-1, 8, 8, 1).swapaxes(1, 3)}
    return features @ variables["kernel"] + variables["bias"][None], features, maps


@pytest.fixture(scope="module")
def fitted(digits, variables):
    """name -> calibrated detector, fitted once."""
    found: dict[str, Any] = {}

    def get(row):
        if row.name not in found:
            given = {"variables": variables, "settings": row.settings}
            found[row.name] = detector.calibrate(
                detector.fit(row.name, network, digits[0], digits[1], **given), digits[2]
            )
        return found[row.name]

    return get


each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def test_every_method_has_its_row():
    assert tuple(row.name for row in ROWS) == methods.names()


@each
def test_unknown_digits_score_higher_and_the_threshold_keeps_its_promise(fitted, digits, row):
    run = detector.predictor(fitted(row))
    inliers, outliers = run.predict(digits[2]), run.score(255 - digits[2] if row.negatives else digits[3])
    assert metrics.auroc(inliers.score, outliers) > row.floor
    assert 0.95 <= np.mean(~inliers.outlier) < 0.97


@each
def test_scores_survive_the_disk(fitted, digits, row, tmp_path):
    detector.save(fitted(row), tmp_path / "d")
    loaded = detector.load(tmp_path / "d")
    assert (loaded.score, loaded.settings, loaded.threshold) == (row.name, fitted(row).settings, fitted(row).threshold)
    images = digits[3][:20]
    np.testing.assert_allclose(
        detector.score(loaded, images), detector.score(fitted(row), images), rtol=1e-5, atol=1e-5
    )


@each
def test_a_row_s_score_is_its_own_and_nan_is_an_outlier(fitted, digits, row):
    """Among other rows, and beside one that is NaN, a row scores what it scores alone."""
    broken = np.zeros((1, 8, 8, 3), np.uint8)
    broken[0, 0, 0, 0] = 255
    run = detector.predictor(fitted(row))
    alone = run.predict(digits[2][:1])
    among = run.predict(np.concatenate([digits[3][:5], broken, digits[2][:1]]))
    np.testing.assert_allclose(among.score[-1:], alone.score, rtol=1e-5, atol=1e-5)
    assert among.label[-1] == alone.label[0]
    assert np.isnan(among.score[5])
    assert among.outlier[5]
    assert not np.isnan(among.score[[0, 1, 2, 3, 4, 6]]).any()


@each
def test_wrong_shapes_raise(fitted, row):
    """Features of another length, logits without rows, images without channels."""
    made = fitted(row)
    wrong = ClassifierOutput(jnp.zeros(8), jnp.zeros((2, 63)), {})
    classify = lambda x: wrong  # noqa: E731
    view = methods.View(wrong, jnp.zeros((2, 8, 8)), classify, layers={"rows": jnp.zeros(8), "columns": jnp.zeros(8)})
    with pytest.raises(ValueError, match="must have shape"):
        methods.get(row.name).score(made.settings, made.params, view)


@each
def test_a_score_of_cached_rows_is_lowered_for_any_number_of_rows(fitted, row):
    """An exported detector takes any batch, of one row as of more than fit into one chunk."""
    made, method = fitted(row), methods.get(row.name)
    if methods.needs_network(method):
        return
    [batch] = jax.export.symbolic_shape("b")
    rows = [jax.ShapeDtypeStruct((batch, width), jnp.float32) for width in (8, 64, 16, 16)]

    def score(logits, features, *layers):
        statistics = dict(zip(("columns", "rows"), layers, strict=True))
        view = methods.View(ClassifierOutput(logits, features, {}), layers=statistics)
        return method.score(made.settings, made.params, view)

    assert jax.export.export(jax.jit(score))(*rows).out_avals[0].shape == (batch,)


@each
def test_unknown_settings_are_refused(row):
    with pytest.raises(ValueError, match=f"method {row.name} has no setting 'colour'; it has"):
        methods.complete_settings(methods.get(row.name), {"colour": 1})


def test_defaults_are_those_of_the_score_functions():
    from quantjax import scores

    assert methods.get("energy").defaults == {"temperature": scores.energy.__defaults__[0]}
    assert methods.get("knn").defaults["k"] == scores.knn.__defaults__[0]
    assert methods.get("knn").defaults["normalise"] == scores.knn.__kwdefaults__["normalise"]
    assert methods.get("gen").defaults == dict(zip(("gamma", "top"), scores.gen.__defaults__, strict=True))
    for name in ("ash_p", "ash_b", "ash_s", "scale"):
        assert methods.get(name).defaults == {"percentile": getattr(scores, name).__defaults__[0]}
    assert methods.get("react").defaults == {"percentile": scores.fit_react.__defaults__[0]}
    assert methods.get("dice").defaults == {"sparsity": scores.fit_dice.__defaults__[0]}
    assert methods.get("openmax").defaults == {
        "tail": scores.fit_openmax.__defaults__[0], "top": scores.openmax.__defaults__[0],
        "shift": scores.fit_openmax.__defaults__[1],
    }  # fmt: skip
    assert scores.fit_openmax.__defaults__[1] == scores.openmax.__defaults__[1]
    mixture = methods.get("gaussian_mixture").defaults
    assert mixture == {"beta": 0.0, **scores.fit_gaussian_mixture.__kwdefaults__}
    keywords = scores.odin.__kwdefaults__
    assert methods.get("odin").defaults == {key: keywords[key] for key in ("temperature", "epsilon", "form")}
    assert methods.get("msp").defaults == {"form": scores.msp.__defaults__[0]}
    wanted = {"beta": 0.0, **scores.fit_tied_gaussian.__kwdefaults__}
    assert methods.get("gem").defaults == methods.get("relative_mahalanobis").defaults == wanted
    assert methods.get("gem_perturbed").defaults["epsilon"] == scores.perturbed.__kwdefaults__["epsilon"]


def test_the_table_names_every_method():
    lines = methods.to_markdown().splitlines()
    assert len(lines) == 2 + len(methods.names())
    assert len({line.count("|") for line in lines}) == 1
    assert "| `odin` | logits, images | – | temperature 1000, epsilon 0.0048, form log_odds |" in methods.to_markdown()


@pytest.mark.parametrize("name", ["msp", "odin"])
def test_a_detector_from_before_there_were_two_forms_scores_probabilities(fitted, digits, name):
    """Its settings name no form, and its threshold was set on the published one."""
    new = fitted(next(row for row in ROWS if row.name == name))
    old = new._replace(settings={key: value for key, value in new.settings.items() if key != "form"})
    published = new._replace(settings={**new.settings, "form": "probability"})
    images = digits[3][:20]
    np.testing.assert_array_equal(detector.score(old, images), detector.score(published, images))
    assert (detector.score(old, images) < -0.1).all()


LEAST = {"knn": 10, "knn_raw": 10, "nnguide": 10, "quantod": 2, "quantod_pp": 2, "quantod_layers": 2}
LEAST |= dict.fromkeys(("vim", "residual", "react", "ash_p", "ash_b", "ash_s", "scale", "dice", "fdbd", "nci"), 3)
LEAST |= dict.fromkeys(("energy_mahalanobis_pp", "energy_mahalanobis_layers", "energy_quantod_layers"), 2)


@each
def test_training_rows_that_are_too_few_are_refused(row):
    method = methods.get(row.name)
    needed = LEAST.get(row.name, 1) if method.learns_from else 0
    methods.check_rows(method, needed)
    if needed > 1:
        with pytest.raises(ValueError, match=f"{row.name} needs at least {needed} training rows, got {needed - 1}; gi"):
            methods.check_rows(method, needed - 1)


@each
def test_fewer_rows_than_a_method_says_it_needs_cannot_be_fitted(row, rng):
    """So that nothing is refused which would run."""
    method = methods.get(row.name)
    few = LEAST.get(row.name, 1) - 1
    if few == 0 or not method.learns_from:
        return
    features, layers = rng.normal(size=(few, 5)).astype("f"), {"rows": rng.normal(size=(few, 6)).astype("f")}
    rows = methods.TrainingRows(features, np.arange(few) % 2, 2, features[:, :2] @ rng.normal(size=(2, 2)).astype("f"))
    with pytest.raises(ValueError, match=r"row|equal"):
        method.fit(rows._replace(layers=layers), methods.complete_settings(method, None))


def test_classes_that_have_too_few_rows_are_refused():
    openmax, together = methods.get("openmax"), methods.combine("openmax", "energy", name="together")
    for method in (openmax, together):
        methods.check_rows(method, 40, [3, 37])
        wanted = "needs at least 3 training rows of each class, got 2 of class 1; give more of them, or leave"
        with pytest.raises(ValueError, match=f"method {method.name} {wanted}"):
            methods.check_rows(method, 40, [38, 2])
    methods.check_rows(methods.get("mahalanobis"), 40, [39, 1])
    methods.check_rows(methods.get("energy"), 40, [40, 0])
