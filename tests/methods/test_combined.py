"""Sums of standardised scores, and methods that read the head, through their public names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import detector, methods, scores
from quantjax.types import ClassifierOutput


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(4)
    labels = np.arange(240) % 3
    features = np.abs(rng.normal(size=(240, 6)) + 2.0 * np.eye(6)[labels]).astype(np.float32)
    weight, bias = rng.normal(size=(6, 3)).astype(np.float32), np.float32([0.5, 0.0, -0.5])
    head = scores.LinearHead(jnp.asarray(weight), jnp.asarray(bias))
    return methods.TrainingRows(features, labels, 3, features @ weight + bias, head)


def view(rows):
    return methods.View(ClassifierOutput(jnp.asarray(rows.logits), jnp.asarray(rows.features), {}))


def test_a_sum_is_that_of_standardised_parts(rows):
    parts = [methods.get("energy"), methods.get("mahalanobis_pp"), methods.get("gen")]
    total = methods.combine(*parts)
    assert total.name == "energy_mahalanobis_pp_gen"
    assert (total.reads, total.learns_from) == (("logits", "features"), ("logits", "features", "labels"))
    given = methods.complete_settings(total, {"energy.temperature": 2.0})
    fitted = total.fit(rows, given)
    want = np.zeros(len(rows.labels))
    for part in parts:
        own = {**part.defaults, **({"temperature": 2.0} if part.name == "energy" else {})}
        found = np.asarray(part.score(*part.fit(rows, own), view(rows)), np.float64)
        want += (found - found.mean()) / found.std()
    np.testing.assert_allclose(total.score(*fitted, view(rows)), want, atol=2e-4)
    assert fitted.settings["energy.temperature"] == 2.0
    with pytest.raises(ValueError, match="has no setting 'temperature'"):
        methods.complete_settings(total, {"temperature": 2.0})


def test_blocks_of_rows_change_nothing(rows, monkeypatch):
    total = methods.get("energy_mahalanobis_pp")
    whole = total.fit(rows, total.defaults)
    monkeypatch.setattr("quantjax.methods.base.ROWS_AT_ONCE", 100)
    parts = total.fit(rows, total.defaults)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole.params, parts.params)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (("energy",), "needs two methods or more of different names, got energy"),
        (("energy", "energy"), "of different names"),
        (("energy", "odin"), "method odin needs the network"),
        (("energy", "nobody"), "method must be one of"),
    ],
)
def test_what_cannot_be_combined_is_named(parts, named):
    with pytest.raises(ValueError, match=named):
        methods.combine(*parts)


def test_a_score_that_is_the_same_for_all_rows_has_no_scale(rows):
    same = rows._replace(logits=np.zeros_like(rows.logits))
    total = methods.get("energy_mahalanobis_pp")
    with pytest.raises(ValueError, match="scores of energy on the training rows must be finite and not all equal"):
        total.fit(same, total.defaults)


@pytest.mark.parametrize("name", ["vim", "react", "ash_s", "scale", "dice", "fdbd", "nci"])
def test_a_head_that_is_found_scores_as_the_one_that_is_given(rows, name):
    method = methods.get(name)
    given, found = (method.fit(r, method.defaults) for r in (rows, rows._replace(head=None)))
    np.testing.assert_allclose(method.score(*found, view(rows)), method.score(*given, view(rows)), rtol=1e-4, atol=1e-4)


def test_a_network_without_a_linear_head_is_refused(rows):
    with pytest.raises(ValueError, match="logits must be an affine function of the features"):
        detector.fit("vim", features=rows.features, logits=np.cos(rows.logits), labels=rows.labels)


def test_settings_of_the_covariance_reach_it_and_the_share_is_kept(rows):
    own = detector.fit("mahalanobis", features=rows.features, labels=rows.labels, settings={"shrinkage": "oas"})
    share = scores.oas_shrinkage(scores.tied_moments(rows.features, rows.labels, 3))
    assert own.settings == {"beta": 0.0, "shrinkage": share}
    plain = scores.fit_tied_gaussian(rows.features, rows.labels, 3, shrinkage=share)
    np.testing.assert_array_equal(own.params.whitening, plain.whitening)


def test_a_sum_with_a_flow_survives_the_disk(rows, tmp_path):
    """Its settings hold a list, which files allow for that one name."""
    total = methods.register(methods.combine("energy", "quantod", name="energy_flow"))
    small = {"blocks": 1, "layers": 0, "width": 8, "epochs": 1, "batch_size": 32}
    made = detector.fit(
        "energy_flow",
        features=rows.features,
        logits=rows.logits,
        settings={f"quantod.{k}": v for k, v in small.items()},
    )
    detector.save(made._replace(threshold=0.0), tmp_path / "d")
    loaded = detector.load(tmp_path / "d")
    given = {"features": rows.features[:5], "logits": rows.logits[:5]}
    np.testing.assert_allclose(
        detector.score(loaded, given), detector.score(made._replace(threshold=0.0), given), rtol=1e-5
    )
    methods.unregister(total.name)
