"""Our methods on the arrays that OpenOOD's postprocessors and pytorch-ood's detectors scored: golden/openood.npz."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from quantjax import methods, metrics, scores
from quantjax.types import ClassifierOutput

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
POINTS = 0.05  # of AUROC, in percent
SETS = ("test", "near_a", "near_b", "far_a")
GUIDING = 160  # rows that OpenOOD's NNGuide takes: whole batches of 40 until they are more than a quarter of 600
# OpenOOD's name, ours, the settings that make them equal, what OpenOOD fits it on
THEIRS = [
    ("msp", "msp", {"form": "probability"}, ""),
    ("mls", "max_logit", {}, ""),
    ("ebo", "energy", {}, ""),
    ("gen", "gen", {"top": 100}, ""),
    ("temp_scaling", "temperature_scaling", {"form": "probability"}, "val"),
    ("klm", "kl_matching", {}, "val"),
    ("openmax", "openmax", {"top": 3, "shift": 1.0}, "train"),
    ("mds", "mahalanobis", {}, "train"),
    ("rmds", "relative_mahalanobis", {}, "train"),
    ("knn", "knn", {"k": 50, "step": 1}, "train"),
    ("nnguide", "nnguide", {"k": 20, "step": 1}, "guide"),
    ("vim", "vim", {"principal": 10}, "train"),
    ("residual", "residual", {"principal": 10}, "val"),
    ("react", "react", {"percentile": 0.9}, "val"),
    ("ash", "ash_b", {"percentile": 0.9}, "train"),
    ("scale", "scale", {"percentile": 0.85}, "train"),
    ("dice", "dice", {"sparsity": 0.9}, "train"),
    ("she", "she", {}, "train"),
    ("gradnorm", "gradnorm", {}, ""),
    ("fdbd", "fdbd", {}, "train"),
    ("nci", "nci", {"alpha": 0.0001}, "train"),
]

DEFAULTS = {"nnguide": {"k": 100, "step": 1}, "vim": {"principal": 256}, "residual": {"principal": 512}}  # of more rows


@pytest.mark.parametrize(("theirs", "ours", "settings", "part"), THEIRS)
def test_the_page_has_these_names_and_settings(theirs, ours, settings, part):
    shown = ", ".join(f"{key} {value:g}" if key != "form" else f"{key} {value}" for key, value in
                      DEFAULTS.get(theirs, settings).items()) or "–"  # fmt: skip
    assert f"| `{theirs}` | `{ours}` | {shown} | " in DOCS.read_text()


@pytest.fixture(scope="module")
def arrays():
    with np.load(Path(__file__).parents[1] / "golden" / "openood.npz") as stored:
        return dict(stored)


def training_rows(arrays, part):
    name, rows = ("train", slice(GUIDING)) if part == "guide" else (part or "train", slice(None))
    features = arrays[f"features/{name}"][rows]
    head = scores.LinearHead(jnp.asarray(arrays["weight"]), jnp.asarray(arrays["bias"]))
    logits = np.asarray(scores.head_logits(head, features))
    return methods.TrainingRows(features, arrays[f"labels/{name}"][rows].astype(np.int32), 6, logits, head)


def scored(arrays, name, settings, part):
    """Our scores of all sets, one after the other [560]."""
    method = methods.get(name)
    fitted = method.fit(training_rows(arrays, part), methods.complete_settings(method, settings))
    features = np.concatenate([arrays[f"features/{one}"] for one in SETS])
    logits = scores.head_logits(training_rows(arrays, "").head, features)
    view = methods.View(ClassifierOutput(logits, jnp.asarray(features), {}))
    return np.asarray(method.score(fitted.settings, fitted.params, view), np.float64)


def split(arrays, values):
    ends = np.cumsum([len(arrays[f"features/{one}"]) for one in SETS])[:-1]
    return dict(zip(SETS, np.split(values, ends), strict=True))


def percent(found, other):
    """AUROC, AUPR of inliers, AUPR of outliers, FPR95 of outliers (thinned, whole), in percent."""
    sides = found["test"], found[other]
    rates = [
        metrics.auroc(*sides),
        metrics.aupr_trapezoid(*sides, positive="inlier"),
        metrics.aupr_trapezoid(*sides, positive="outlier"),
        *(metrics.fpr_at_tpr(*sides, positive="outlier", thinned=thinned) for thinned in (True, False)),
    ]
    return 100.0 * np.asarray(rates)


@pytest.mark.parametrize(("theirs", "ours", "settings", "part"), THEIRS)
def test_auroc_is_openoods(arrays, theirs, ours, settings, part):
    got = scored(arrays, ours, settings, part)
    if theirs == "temp_scaling":  # theirs stops before the optimum: see below
        got = at_their_temperature(arrays)
    want = arrays[f"openood/{theirs}"]
    assert spearmanr(got, want)[0] > 0.99999
    for row, one in enumerate(("near_a", "near_b", None, "far_a")):
        if one is not None:
            assert abs(percent(split(arrays, got), one)[0] - arrays[f"rates/{theirs}"][row, 1]) < POINTS


def at_their_temperature(arrays):
    method = methods.get("temperature_scaling")
    logits = scores.head_logits(
        training_rows(arrays, "").head, np.concatenate([arrays[f"features/{one}"] for one in SETS])
    )
    settings = {"form": "probability", "temperature": float(arrays["temperature"][0])}
    return np.asarray(method.score(settings, (), methods.View(ClassifierOutput(logits, None, {}))), np.float64)


def test_our_temperature_is_nearer_to_the_optimum(arrays):
    """OpenOOD takes 50 steps of L-BFGS at a rate of 0.01 from 1.5; the optimum's likelihood is higher."""
    rows = training_rows(arrays, "val")
    ours, theirs = scores.fit_temperature(rows.logits, rows.labels), float(arrays["temperature"][0])

    def nll(temperature):
        scaled = rows.logits.astype(np.float64) / temperature
        return np.mean(np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(scaled)), rows.labels])

    assert nll(ours) < nll(theirs)
    assert abs(ours - theirs) > 0.01


@pytest.mark.parametrize("theirs", [row[0] for row in THEIRS])
def test_rates_of_one_score_are_openoods(arrays, theirs):
    found = split(arrays, arrays[f"openood/{theirs}"])
    for row, one in enumerate(("near_a", "near_b", None, "far_a")):
        if one is not None:
            auroc, aupr_in, aupr_out, fpr95, _ = percent(found, one)
            np.testing.assert_allclose([fpr95, auroc, aupr_in, aupr_out], arrays[f"rates/{theirs}"][row, :4], atol=1e-9)


# pytorch-ood's detectors are called as our methods are
PYTORCH_OOD = {
    "msp": {"form": "probability"},
    "max_logit": {},
    "energy": {},
    "gen": {"top": 100},
    "kl_matching": {},
    "openmax": {"top": 3},
    "mahalanobis": {},
    "relative_mahalanobis": {},
    "vim": {"principal": 10},
    "knn": {"k": 10, "step": 1},
    "react": {"percentile": 0.9},
    "ash_b": {"percentile": 0.65},
    "dice": {"sparsity": 0.9},
    "she": {},
}


@pytest.mark.parametrize("name", PYTORCH_OOD)
def test_auroc_and_rates_are_pytorch_oods(arrays, name):
    ours, theirs = (
        split(arrays, scored(arrays, name, PYTORCH_OOD[name], "train")),
        split(arrays, arrays[f"pytorch_ood/{name}"]),
    )
    for row, one in enumerate(SETS[1:]):
        auroc, aupr_in, aupr_out, _, fpr95 = percent(theirs, one)
        want = arrays[f"pytorch_ood_rates/{name}"][row]
        np.testing.assert_allclose([auroc, aupr_in, aupr_out, fpr95], want, atol=1e-4)
        assert abs(percent(ours, one)[0] - want[0]) < POINTS
