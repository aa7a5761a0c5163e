"""The mixture head against loops in torch, and what only the state, the gradients and XLA's own accounts can show."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.gaussian import diagonal_log_density
from quantjax.heads import density, gmm
from quantjax.heads.gmm import GmmSettings, GmmState

SETTINGS = GmmSettings(4, dimension=6, components=3, memory=16, per_component=4, momentum=0.9, update_every=3)
STEPS = 7

forward, update = jax.jit(gmm.forward, static_argnums=0), jax.jit(gmm.update, static_argnums=0)


def abstract(settings):
    """Parameters and state as shapes only."""
    return jax.eval_shape(lambda key: gmm.init(key, settings), jax.random.key(0))


def random_state(rng, settings):
    """A state as `init` makes it, without compiling that."""
    groups, slots, dimension = abstract(settings)[1].bank.shape
    mean, bank = (rng.normal(size=(groups, n, dimension)).astype(np.float32) for n in (1, slots))
    bank, mean = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (bank, mean))
    mean = jnp.asarray(mean).reshape(settings.num_classes, -1, dimension)
    zeros = jnp.zeros(groups, jnp.int32)
    return GmmState(mean, jnp.ones_like(mean), jnp.asarray(bank), zeros, zeros, jnp.zeros((), jnp.int32))


def start_of(want):
    params = {
        "feature_norm": {"scale": jnp.asarray(want["feature_scale"]), "bias": jnp.asarray(want["feature_bias"])},
        "class_norm": {"scale": jnp.asarray(want["class_scale"]), "bias": jnp.asarray(want["class_bias"])},
    }
    mean, zeros = jnp.asarray(want["mean"]), jnp.zeros(12, jnp.int32)
    return params, GmmState(
        mean, jnp.ones_like(mean), jnp.asarray(want["bank"]), zeros, zeros, jnp.zeros((), jnp.int32)
    )


def cross_entropy(logits, labels):
    chosen = jnp.take_along_axis(logits, jnp.minimum(labels, 3)[..., None].astype(jnp.int32), axis=-1)[..., 0]
    return jnp.where(labels == 255, 0.0, jax.nn.logsumexp(logits, axis=-1) - chosen)


def train(params, state, features, labels):
    """One step with the loss of stage 1; gradients of everything that is handed in."""

    def loss(params, floats, features):
        output = gmm.forward(SETTINGS, params, state._replace(**floats), features)
        after, targets = gmm.update(SETTINGS, state._replace(**floats), output, labels)
        both = cross_entropy(output.logits, labels) + 0.01 * gmm.contrast(output, targets)
        return jnp.sum(both) / jnp.sum(labels != 255), (after, targets, output)

    floats = {"mean": state.mean, "deviation": state.deviation, "bank": state.bank}
    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, floats, features)


@pytest.fixture(scope="module")
def run():
    """All steps of the recorded program: (golden, params, states before and after, results)."""
    with np.load(Path(__file__).parents[1] / "golden" / "heads.npz") as file:
        want = dict(file)
    params, state = start_of(want)
    step, states, results = jax.jit(train), [state], []
    for i in range(STEPS):
        result = step(params, states[-1], jnp.asarray(want["features"][i]), jnp.asarray(want["labels"][i]))
        results.append(result)
        states.append(result[0][1][0])
    return want, params, states, results


def test_log_density_and_contrast_equal_torch(run):
    want, _, _, results = run
    (_, (_, targets, output)), _ = results[0]
    np.testing.assert_allclose(output.log_density.reshape(-1, 4, 3), want["log_density"], rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(gmm.contrast(output, targets).ravel(), want["contrast"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(output.embedding, axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("i", range(STEPS))
def test_every_step_of_expectation_maximisation_equals_torch(run, i):
    want, _, states, results = run
    (_, (_, targets, output)), (_, _, for_features) = results[i]
    np.testing.assert_array_equal(targets, want[f"step{i}/targets"])
    np.testing.assert_allclose(output.logits, want[f"step{i}/logits"], rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(states[i + 1].pointer, want[f"step{i}/pointer"])
    np.testing.assert_allclose(states[i + 1].mean, want[f"step{i}/mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(states[i + 1].deviation, want[f"step{i}/deviation"], rtol=1e-4, atol=1e-5)
    gradient = want[f"step{i}/gradient"]
    np.testing.assert_allclose(for_features, gradient, atol=2e-3 * np.abs(gradient).max())


def test_bank_after_all_steps_equals_torch(run):
    want, _, states, _ = run
    np.testing.assert_allclose(states[-1].bank, want["bank_after"], rtol=1e-4, atol=1e-5)
    assert states[-1].count == STEPS
    # 16 slots: a component that saw n rows keeps 16 - n of its start
    kept = np.mean(np.maximum(16 - np.asarray(states[-1].written), 0)) / 16
    np.testing.assert_allclose(gmm.noise_share(states[-1]), kept, rtol=1e-6)
    still = np.isclose(states[-1].bank, want["bank"], atol=1e-6).all(axis=2).mean()
    np.testing.assert_allclose(gmm.noise_share(states[-1]), still, rtol=1e-6)
    assert 0.2 < kept < 0.8


def test_absent_classes_stay_untouched(run):
    _, _, states, _ = run
    before, after, end = states[0], states[1], states[-1]
    for absent, later in ((1, end), (3, after)):  # class 1 never comes, class 3 not in the first steps
        np.testing.assert_array_equal(later.mean[absent], before.mean[absent])
        np.testing.assert_array_equal(later.deviation[absent], before.deviation[absent])
        np.testing.assert_array_equal(later.bank[3 * absent : 3 * absent + 3], before.bank[3 * absent : 3 * absent + 3])
    assert not np.allclose(end.mean[3], before.mean[3])
    assert not np.allclose(after.deviation[0], before.deviation[0])


def test_gradients_reach_norms_and_features_and_never_the_state(run):
    _, _, _, results = run
    _, (for_params, for_floats, for_features) = results[2]
    for leaf in jax.tree.leaves(for_params):
        assert np.abs(leaf).max() > 1e-4
    assert np.abs(for_features).max() > 1e-4
    for leaf in jax.tree.leaves(for_floats):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("block", [2**22, 60])
def test_backward_in_blocks_equals_automatic_differentiation(rng, monkeypatch, block):
    monkeypatch.setattr(density, "_BLOCK", block)  # 60 entries: blocks of 10 rows, the last one overlaps
    x, scale, bias = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((37, 6), 6, 6))
    mean, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((5, 6), (37, 5)))
    variance = jnp.asarray(rng.random((5, 6)) + 0.1, jnp.float32)

    def plain(x, scale, bias):
        return jnp.sum(weight * diagonal_log_density(density.unit(density.layer_norm(x, scale, bias)), mean, variance))

    def ours(x, scale, bias):
        return jnp.sum(weight * density.normed_log_density(x, scale, bias, mean, variance))

    both = (jax.jit(jax.grad(f, argnums=(0, 1, 2)))(x, scale, bias) for f in (ours, plain))
    for got, want in zip(*both, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def compiled_memory(function, *shapes, **options):
    return jax.jit(function, **options).lower(*shapes).compile().memory_analysis()


def test_extra_memory_of_one_crop_is_bounded():
    """148 x 296 features of 256, 95 components: forward and backward under 200 MB (naive: 4 GB)."""
    settings = GmmSettings(19, memory=20)

    def loss(params, features, state):
        output = gmm.forward(settings, params, state, features)
        return jnp.sum(output.logits**2) + jnp.sum(output.log_density**2)

    params, state = abstract(settings)
    features = jax.ShapeDtypeStruct((1, 148, 296, 256), jnp.float32)
    memory = compiled_memory(jax.grad(loss, argnums=(0, 1)), params, features, state)
    assert memory.output_size_in_bytes >= 43_808 * 256 * 4
    assert memory.temp_size_in_bytes < 200e6


def test_a_donated_bank_is_updated_in_place():
    settings = GmmSettings(3, dimension=16, components=2, memory=4000, update_every=2)
    _, state = abstract(settings)
    shapes = [jax.ShapeDtypeStruct((1, 8, 8, *s), jnp.float32) for s in ((3,), (3, 2), (16,))]
    labels = jax.ShapeDtypeStruct((1, 8, 8), jnp.uint8)

    def update(state, output, labels):
        return gmm.update(settings, state, output, labels)[0]

    memory = compiled_memory(update, state, gmm.GmmOutput(*shapes), labels, donate_argnums=0)
    bank = 6 * 4000 * 16 * 4
    assert memory.alias_size_in_bytes >= bank
    assert memory.temp_size_in_bytes < bank / 2


def test_short_preset_forgets_its_random_start(rng):
    """512 slots, at most 64 new rows a step, momentum 0.9, an update every step: clusters are found, noise is gone."""
    settings = GmmSettings(3, dimension=8, components=2, memory=512, per_component=64, momentum=0.9, update_every=1)
    params = {
        name: {"scale": jnp.ones(n), "bias": jnp.zeros(n)} for name, n in (("feature_norm", 8), ("class_norm", 3))
    }
    state = random_state(rng, settings)
    assert gmm.noise_share(state) == 1.0
    centres = 3 * rng.normal(size=(3, 8))

    @jax.jit
    def step(state, features, labels):
        output = gmm.forward(settings, params, state, features)
        right = jnp.mean(jnp.argmax(output.logits, axis=-1) == labels)
        return gmm.update(settings, state, output, labels)[0], right

    for _ in range(40):
        labels = rng.integers(0, 3, (2, 20, 20))
        features = centres[labels] + rng.normal(size=(2, 20, 20, 8))
        state, right = step(state, jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.uint8))
    assert gmm.noise_share(state) < 0.05
    assert right > 0.95
    want = density.unit(density.layer_norm(jnp.asarray(centres, jnp.float32), jnp.ones(8), jnp.zeros(8)))
    towards = jnp.einsum("kmd,kd->km", density.unit(state.mean), want, precision="highest")
    assert towards.min() > 0.9


def test_paper_form_is_the_uniform_mixture_without_a_norm(rng):
    settings = SETTINGS._replace(combine="logsumexp", normalisation="none")
    assert set(abstract(settings)[0]) == {"feature_norm"}
    params = {"feature_norm": {"scale": jnp.ones(6), "bias": jnp.zeros(6)}}
    state = random_state(rng, settings)
    output = forward(settings, params, state, jnp.asarray(rng.normal(size=(1, 2, 2, 6)), jnp.float32))
    want = np.log(np.exp(np.asarray(output.log_density, np.float64)).mean(axis=-1))
    np.testing.assert_allclose(output.logits, want, rtol=1e-5)
    best = gmm.class_log_density(output.log_density, "max")
    np.testing.assert_array_equal(best, np.asarray(output.log_density).max(axis=-1))


def test_pixels_that_are_not_finite_take_no_part(rng):
    state = random_state(rng, SETTINGS)
    log_density = jnp.zeros((1, 1, 4, 4, 3)).at[0, 0, 1].set(jnp.nan)
    output = gmm.GmmOutput(jnp.eye(4)[None, None], log_density, jnp.ones((1, 1, 4, 6)))
    after, targets = update(SETTINGS, state, output, jnp.asarray([[[0, 1, 254, 3]]], jnp.uint8))
    np.testing.assert_array_equal(targets, [[[0, 255, 255, 9]]])  # equal densities: the lowest component
    np.testing.assert_array_equal(np.flatnonzero(after.written), [0, 9])
    np.testing.assert_array_equal(after.mean[1], state.mean[1])
    assert np.isfinite(after.bank).all()


def test_start_is_of_unit_length_and_repeats():
    start = jax.jit(gmm.init, static_argnums=1)
    first, again = (start(jax.random.key(5), SETTINGS)[1] for _ in range(2))
    np.testing.assert_array_equal(first.bank, again.bank)
    for vectors in (first.mean, first.bank):
        np.testing.assert_allclose(jnp.linalg.norm(vectors, axis=-1), 1.0, rtol=1e-5)
    assert first.bank.shape == (12, 16, 6)
    np.testing.assert_array_equal(first.deviation, 1.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"combine": "mean"}, "combine must be one of logsumexp, max"),
        ({"normalisation": "batch"}, "normalisation must be one of layer, none"),
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"num_classes": 60, "components": 5}, "must be at most 255"),
        ({"per_component": 17}, r"per_component must be at most memory \(16\), got 17"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"minimum_variance": 0.0}, "minimum_variance must lie in"),
    ],
)
def test_wrong_settings_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        gmm.init(jax.random.key(0), SETTINGS._replace(**change))


def test_wrong_shapes_are_named():
    params, state = abstract(SETTINGS)
    with pytest.raises(ValueError, match=r"features must have shape \[B, h, w, 6\]"):
        gmm.forward(SETTINGS, params, state, jnp.zeros((1, 2, 2, 7)))
    with pytest.raises(ValueError, match=r"state.mean must have shape \[5, 3, 6\]"):
        gmm.forward(SETTINGS._replace(num_classes=5), params, state, jnp.zeros((1, 2, 2, 6)))
    output = gmm.GmmOutput(jnp.zeros((1, 2, 2, 4)), jnp.zeros((1, 2, 2, 4, 3)), jnp.zeros((1, 2, 2, 6)))
    with pytest.raises(ValueError, match=r"labels must have shape \[1, 2, 2\]"):
        gmm.update(SETTINGS, state, output, jnp.zeros((1, 4, 4), jnp.uint8))
    with pytest.raises(ValueError, match=r"targets must have shape \[1, 2, 2\]"):
        gmm.contrast(output, jnp.zeros((1, 4, 4), jnp.int32))


@pytest.mark.parametrize("variance", [1.0, 1e-2, 1e-3, 1e-6])
def test_densities_of_unit_vectors_keep_their_digits(rng, variance):
    """Multiplied out, squares over a variance of 1e-6 are a million nats that cancel; then differences are squared."""
    e, mean = (np.array(density.unit(jnp.asarray(rng.normal(size=s), jnp.float32))) for s in ((9, 32), (4, 32)))
    e[:4] = np.asarray(density.unit(jnp.asarray(mean + np.sqrt(variance) * rng.normal(size=(4, 32)) / 9, jnp.float32)))
    spread = (variance * (1 + rng.random((4, 32)))).astype(np.float32)
    exact = ((e[:, None].astype(np.float64) - mean[None]) ** 2 / spread[None]).sum(axis=2)
    constant = np.log(spread.astype(np.float64)).sum(axis=1) + 32 * np.log(2 * np.pi)
    got = jax.jit(density.unit_log_density)(*map(jnp.asarray, (e, mean, spread)))
    np.testing.assert_allclose(got, -0.5 * (exact + constant), rtol=1e-5, atol=1e-4)
