import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import scores

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.fixture
def network(golden):
    """The recorded convolution as features and logits of standardised images."""
    want = {name: jnp.asarray(value, jnp.float32) for name, value in golden("scores").items() if value.dtype == float}

    def features(images):
        maps = jax.lax.conv_general_dilated(
            images, want["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
        )
        return jnp.mean(jax.nn.relu(maps + want["bias"][None, None, None, :]), axis=(1, 2))

    return want, features, lambda images: features(images) @ want["head"]


def test_odin_equals_torch_and_the_step_matters(network):
    want, _, classify = network
    got = scores.odin(classify, want["images"], std=want["std"], form="probability")
    # at T = 1000 all softmax values lie near 1 / K; what is left after K * s - 1 is what ranks
    informative = lambda confidence: 4.0 * np.asarray(confidence) - 1.0  # noqa: E731
    np.testing.assert_allclose(informative(-got), informative(want["odin"]), rtol=2e-3, atol=1e-6)
    moved = informative(want["odin"]) - informative(want["odin_unmoved"])
    assert (moved > 0).all()
    plain = scores.odin(classify, want["images"], epsilon=0.0, form="probability")
    np.testing.assert_allclose(informative(-plain), informative(want["odin_unmoved"]), rtol=2e-3, atol=1e-6)
    assert np.abs(moved).min() > 1e-5


def test_perturbed_mahalanobis_equals_torch(network, golden):
    want, features, _ = network
    labels = golden("scores")["image_labels"]
    gaussian = scores.fit_tied_gaussian(want["image_features"], labels, 4)
    score = lambda images: scores.mahalanobis(gaussian, features(images))  # noqa: E731
    got = scores.perturbed(score, want["images"], std=want["std"])
    np.testing.assert_allclose(got, -want["mahalanobis_moved"], rtol=1e-3)
    assert (got < score(want["images"])).all()


def test_step_by_hand():
    # score = 3 r - 2 g per image: the gradient's signs are (+, -, 0), the step is epsilon / std against them
    images = jnp.ones((2, 1, 1, 3))
    score = lambda x: jnp.sum(x * jnp.asarray([[[[3.0, -2.0, 0.0]]]]), axis=(1, 2, 3))  # noqa: E731
    moved = scores.perturb(score, images, 0.1, (0.5, 0.25, 1.0))
    np.testing.assert_allclose(moved, np.broadcast_to([0.8, 1.4, 1.0], (2, 1, 1, 3)), rtol=1e-6)
    np.testing.assert_allclose(scores.perturb(score, images, 0.1)[0, 0, 0], [0.9, 1.1, 1.0], rtol=1e-6)


def test_pixels_with_unit_std_take_the_step_of_standardised_images(network):
    """A step in pixels by a network that standardises itself is the scaled step on standardised images."""
    want, _, classify = network
    std = want["std"][None, None, None, :]
    inside = scores.odin(lambda pixels: classify(pixels / std), want["images"] * std)
    outside = scores.odin(classify, want["images"], std=want["std"])
    np.testing.assert_allclose(inside, outside, atol=1e-7)


def test_odin_compiles_and_rows_are_independent(network):
    want, _, classify = network
    together = jax.jit(lambda x: scores.odin(classify, x, std=want["std"]))(want["images"])
    np.testing.assert_allclose(together[2:3], scores.odin(classify, want["images"][2:3], std=want["std"]), atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"std": (1.0, 1.0)}, "std must have 1 or 3 values"),
        ({"epsilon": -1.0}, "epsilon must lie in"),
        ({"temperature": 0.0}, "temperature must lie in"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        scores.odin(lambda x: jnp.mean(x, axis=(1, 2)), jnp.zeros((1, 2, 2, 3)), **settings)


def test_wrong_rank_is_named():
    with pytest.raises(ValueError, match="images must have shape"):
        scores.perturb(lambda x: jnp.sum(x, axis=(1, 2)), jnp.zeros((1, 2, 2)), 0.1)
