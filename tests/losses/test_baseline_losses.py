"""PEBAL's and RbA's losses against torch, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")

CASES = {"pebal": (losses.pebal_loss, 1.0, 5), "rba": (losses.rba_loss, 0.1, 4)}  # scale of the logits, channels


@pytest.fixture(scope="module")
def run():
    def mean(name):
        return jax.jit(jax.value_and_grad(lambda logits, labels: jnp.mean(CASES[name][0](logits, labels))))

    return {name: mean(name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("case", ["mixed", "inliers"])
def test_value_and_gradient_equal_torch(golden, run, name, case):
    want = golden("pixel_losses")
    labels = want["labels"] if case == "mixed" else np.where(want["labels"] == 254, 255, want["labels"])
    logits = jnp.asarray(CASES[name][1] * want["logits"][..., : CASES[name][2]], jnp.float32)
    value, gradient = run[name](logits, jnp.asarray(labels))
    np.testing.assert_allclose(value, want[f"{name}/{case}"], rtol=1e-5)
    recorded = want[f"{name}/{case}/gradient"]
    np.testing.assert_allclose(gradient, recorded, rtol=1e-3, atol=1e-5 * np.abs(recorded).max())


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_ignored_pixels_and_an_unknown_label(run, name):
    shape = (3, 6, 9)
    logits = jnp.ones((*shape, CASES[name][2]))
    value, gradient = run[name](logits, jnp.full(shape, 255, jnp.uint8))
    assert value == 0.0
    assert not np.any(gradient)
    value, _ = run[name](logits, jnp.full(shape, 255, jnp.uint8).at[1, 2, 3].set(4))
    assert np.isnan(value)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"labels must have shape \[1, 6, 9\]"):
        losses.rba_loss(jnp.zeros((1, 6, 9, 4)), jnp.zeros((1, 6, 8), jnp.uint8))
    with pytest.raises(ValueError, match="at least 4 x 4 pixels"):
        losses.pebal_loss(jnp.zeros((1, 3, 9, 4)), jnp.zeros((1, 3, 9), jnp.uint8))
