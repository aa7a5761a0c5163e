"""Objectives of stage 1: their losses by hand and by NumPy, and training with them, on a network of one convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from quantjax import classification
from quantjax.classification import OBJECTIVES, Seen, fit_classifier, virtual_outliers
from quantjax.classification.objectives import network_of, start_of
from quantjax.extractors.convolution import ConvNorm, Head
from quantjax.extractors.normalization import Mode
from quantjax.train import pace
from quantjax.types import ClassifierOutput


class OneConvolution(nn.Module):
    """Batch norm and a classifier, as all networks of stage 1 have them."""

    @nn.compact
    def __call__(self, images, train=False, mask=None, axis_name=None):
        return ClassifierOutput(*Head(2, name="head")(nn.relu(ConvNorm(4)(images, Mode(train, mask, axis_name)))), {})


MODEL = OneConvolution()
HEAD = {"head": {"linear": {"kernel": jnp.array([[1.0, -1.0], [0.5, 2.0], [0.0, 1.0]]), "bias": jnp.array([0.1, 0.2])}}}
EXPOSED = OBJECTIVES["outlier_exposure"]
SMALL = {  # margins that both sides of so small a network cross
    "logit_norm": OBJECTIVES["logit_norm"],
    "outlier_exposure": EXPOSED,
    "energy_margin": classification.energy_margin(inlier_margin=-2.0, outlier_margin=0.0),
    "vos": classification.vos(start=0.5, queue=6, samples=100),
}


def seen(logits, labels, **parts):
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    empty = {"learned": (), "state": (), "features": jnp.zeros((*logits.shape[:2], 3)), "key": jax.random.key(3)}
    mask = jnp.ones(len(labels), bool)
    return Seen(
        **{**empty, "logits": logits, "labels": labels, "mask": mask, "network": HEAD, "axis_name": None, **parts}
    )


def test_terms_of_auxiliary_outliers_by_hand():
    """An inlier (2, 0) of class 0, cross-entropy log(1 + e^-2); outliers (0, 0) and (0, log 3).

    To the uniform distribution: log 2 and log 4 - log(3) / 2. Energies: -log(e^2 + 1), -log 2 and -log 4.
    """
    given = seen([[[2.0, 0.0], [0.0, 0.0], [0.0, np.log(3.0)]]], [0])
    own = np.log1p(np.exp(-2.0))
    value, state = OBJECTIVES["outlier_exposure"].loss(given)
    assert state == ()
    np.testing.assert_allclose(value, [own + 0.5 * (np.log(2) + np.log(4) - np.log(3) / 2) / 2], rtol=1e-6)
    value, _ = OBJECTIVES["energy_margin"].loss(given)
    inlier = (-np.log(np.exp(2) + 1) + 23.0) ** 2
    np.testing.assert_allclose(value, [own + 0.1 * inlier], rtol=1e-6)  # outliers lie above -5
    value, _ = classification.energy_margin(2.0, -1.0, -1.0).loss(given)
    np.testing.assert_allclose(value, [own + 2.0 * (0.0 + (-1.0 + np.log(4)) ** 2) / 2], rtol=1e-5)  # -log 4 < -1


def test_vos_by_numpy(rng):
    """Two steps, the first before its start: queues, Gaussian, outliers and logistic loss go row by row here."""
    how = classification.vos(weight=0.3, start=0.25, queue=3, samples=40)
    learned, state = how.begin(HEAD, 16)  # begins after four rows
    assert (int(state["waiting"]), state["queues"].features.shape) == (4, (2, 3, 3))
    learned = {"weights": jnp.array([0.5, 2.0]), "slope": jnp.array(1.5), "offset": jnp.array(-0.4)}
    lists = [[], []]
    for step in range(2):
        features = rng.normal(size=(5, 1, 3)).astype("f")
        logits, labels = 3.0 * rng.normal(size=(5, 1, 2)).astype("f"), np.int32([0, 1, 1, 0, 1])
        mask, key = np.array([True, True, True, True, False]), jax.random.key(step)
        parts = {"learned": learned, "state": state, "features": jnp.asarray(features), "key": key}
        value, state = jax.jit(lambda **given: how.loss(seen(**given)))(
            logits=logits, labels=labels, mask=jnp.asarray(mask), **parts
        )
        for row, label, there in zip(features[:, 0], labels, mask, strict=True):
            lists[label] = [*lists[label], row][-3:] if there else lists[label]
        want = np.log(np.exp(logits[:, 0]).sum(1)) - logits[np.arange(5), 0, labels]
        if step:
            want = want + 0.3 * separation(lists, logits[:, 0], key)
        np.testing.assert_allclose(value, want, rtol=1e-4)
        assert int(state["waiting"]) == 0


def separation(lists, logits, key):
    """VOS's logistic loss of each row."""
    draws = virtual_outliers.draw(jax.random.fold_in(key, 1), 2, 3)
    means = [np.mean(rows, 0) for rows in lists]
    deviations = np.concatenate([np.array(rows) - mean for rows, mean in zip(lists, means, strict=True)])
    factor = np.linalg.cholesky(deviations.T @ deviations / len(deviations) + 1e-4 * np.eye(3))
    outliers = []
    for k, z in enumerate(np.asarray(draws.direction, float)):
        length = np.sqrt(float(virtual_outliers.largest_chi_square(draws.quantile[k], 3, 40)))
        outliers.append(means[k] + factor @ z * length / np.linalg.norm(z))
    linear = HEAD["head"]["linear"]
    theirs = np.stack(outliers) @ np.asarray(linear["kernel"]) + np.asarray(linear["bias"])
    odds = [-1.5 * np.log(np.exp(f) @ [0.5, 2.0]) - 0.4 for f in (logits, theirs)]
    return np.log1p(np.exp(odds[0])) + np.log1p(np.exp(-odds[1])).mean()


@pytest.fixture(scope="module")
def sets():
    """Images bright above or below the middle, which half it is, and grey ones."""
    rng = np.random.default_rng(0)
    labels = np.arange(24, dtype=np.int32) % 2
    images = rng.integers(0, 60, (24, 6, 6, 3))
    images[labels == 0, :, :, 0] += 150
    images[labels == 1, :, :, 1] += 150
    return images.astype(np.uint8), labels, rng.integers(90, 160, (5, 6, 6, 3)).astype(np.uint8)


def train(sets, how, **options):
    images, labels, auxiliary = sets
    auxiliary = auxiliary if how.auxiliary else None
    options = {"epochs": 4, "batch_size": 10, **options}
    return fit_classifier(MODEL, images, labels, objective=how, auxiliary=auxiliary, **options)


@pytest.mark.parametrize("name", SMALL)
def test_a_run_that_was_stopped_ends_with_the_same_bits(sets, name, tmp_path, monkeypatch):
    """The last batch of an epoch has 4 rows of 10; VOS begins in the middle of the run, after the stop."""
    monkeypatch.setattr(pace, "CHECKPOINT_SECONDS", 0.0)
    curve = []
    whole = train(sets, SMALL[name], report=lambda step, row: curve.append(row["loss"]))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(whole))
    assert set(whole["params"]) == {"ConvNorm_0", "head"}  # what an objective learns is no part of the network

    def stop(step, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(sets, SMALL[name], report=stop, checkpoints=tmp_path)
    resumed = train(sets, SMALL[name], checkpoints=tmp_path, resume=True)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert np.isfinite(curve).all()
    if name != "vos":  # whose loss gets a term in the middle
        assert curve[-1] < curve[0]
    else:
        plain = train(sets, classification.CROSS_ENTROPY)
        assert not np.allclose(plain["params"]["head"]["linear"]["kernel"], whole["params"]["head"]["linear"]["kernel"])


def test_parts_of_a_batch_and_a_start(sets):
    how = SMALL["energy_margin"]
    first = train(sets, how, accumulate=2)
    again = train(sets, how, epochs=1, start=first, learning_rate=1e-6)
    before, after = (tree["params"]["head"]["linear"]["kernel"] for tree in (first, again))
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert not np.array_equal(after, before)


def test_what_is_the_network_s_and_what_the_objective_s():
    variables = {"params": HEAD, "batch_stats": {"norm": jnp.zeros(2)}}
    params, state = start_of(classification.CROSS_ENTROPY, variables, 100)
    assert (params.keys(), state.keys()) == (HEAD.keys(), {"norm"})
    params, state = start_of(OBJECTIVES["vos"], variables, 10**10)
    assert (network_of(params), network_of(state).keys()) == (HEAD, {"norm"})
    assert state["objective"]["waiting"] == 2**31 - 1
    assert state["objective"]["queues"].features.shape == (2, 1000, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": EXPOSED}, "auxiliary must be given"),
        ({"auxiliary": np.zeros((2, 6, 6, 3), "u1")}, "auxiliary must be left out"),
        ({"objective": EXPOSED, "auxiliary": np.zeros((2, 5, 6, 3), "u1")}, r"auxiliary .* \[M, 6, 6, 3\]"),
        ({"objective": EXPOSED, "auxiliary": np.zeros((0, 6, 6, 3), "u1")}, "number of auxiliary outliers"),
        ({"start": {"params": {}, "batch_stats": {}}}, "start must be variables of this network: .* is missing"),
        ({"objective": classification.vos(head=("fc",))}, "head must lead to a linear layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(sets, options, message):
    with pytest.raises(ValueError, match=message):
        fit_classifier(MODEL, sets[0], sets[1], epochs=1, batch_size=10, **options)


@pytest.mark.parametrize("wrong", [{"start": 1.0}, {"queue": 0}, {"samples": 0}])
def test_numbers_of_vos(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must lie in"):
        classification.vos(**wrong)
