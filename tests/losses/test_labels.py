"""A label outside its range gives NaN in every loss, whatever its type: compiled code cannot raise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import losses
from quantjax.heads import gmm

pytestmark = pytest.mark.usefixtures("strict_dtypes")

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 3)), jnp.float32)
WRONG = [-1, 3, 200, 2**32 + 1, np.uint8(254 - 1), 1.5, np.nan, np.uint32(2**32 - 1)]


def with_one(wrong, shape):
    """Labels 1 everywhere but for the first, in the type of `wrong`."""
    labels = np.full(shape, 1, np.asarray(wrong).dtype)
    labels[(0,) * len(shape)] = wrong
    return labels


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_cross_entropy_of_rows(wrong):
    rows = LOGITS[0, 0]
    got = np.asarray(losses.cross_entropy(rows, with_one(wrong, (4,))))
    want = -np.asarray(jax.nn.log_softmax(rows))[:, 1]
    assert np.isnan(got[0])
    np.testing.assert_allclose(got[1:], want[1:], rtol=1e-6)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_losses_of_pixels(wrong):
    labels = with_one(wrong, (1, 4, 4))
    for loss in (losses.pixel_cross_entropy(LOGITS, labels), losses.likelihood_ratio_loss(LOGITS[..., 0], labels)):
        assert np.isnan(np.asarray(loss)[0, 0, 0])
        assert np.isnan(np.asarray(loss)).sum() == 1
    for loss in (
        losses.rba_loss(LOGITS, labels),
        losses.pebal_loss(jnp.pad(LOGITS, ((0, 0),) * 3 + ((0, 1),)), labels),
    ):
        assert np.isnan(np.asarray(loss)).all()


@pytest.mark.parametrize("wrong", [-1, 6, 254, 1.5])
def test_contrast_of_components(wrong):
    density = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 4, 3, 2)), jnp.float32)
    targets = with_one(wrong, (1, 4, 4))
    targets[0, 3, 3] = 255
    got = np.asarray(gmm.contrast(gmm.GmmOutput(LOGITS, density, LOGITS), targets))
    assert np.isnan(got[0, 0, 0])
    assert np.isnan(got).sum() == 1
    assert got[0, 3, 3] == 0.0


def test_a_wrong_label_trains_nothing_and_a_padded_one_is_masked():
    labels, mask = jnp.asarray([0, -1, 1, 2]), jnp.asarray([True, False, True, True])

    def masked(x):
        return jnp.sum(jnp.where(mask, losses.cross_entropy(x, labels), 0.0))

    value, slope = jax.value_and_grad(masked)(LOGITS[0, 0])
    assert np.isfinite(value)
    np.testing.assert_array_equal(np.abs(np.asarray(slope)).max(axis=1) > 0, mask)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_any_real_dtype_of_logits_gives_what_float32_gives(dtype):
    logits = np.rint(3 * np.asarray(LOGITS)).astype(jnp.dtype(dtype))
    plain, labels = logits.astype(np.float32), np.arange(16).reshape(1, 4, 4) % 3
    for given in (logits, jnp.asarray(logits)):
        for loss in (losses.pixel_cross_entropy, losses.rba_loss, lambda x, y: losses.cross_entropy(x[0, 0], y[0, 0])):
            np.testing.assert_allclose(loss(given, labels), loss(jnp.asarray(plain), labels), rtol=1e-6)
        for loss in (losses.mean_nll, losses.min_nll, lambda x: losses.quantile_nll(x, 0.3)):
            got = loss(given.ravel())
            assert got.dtype == jnp.float32
            np.testing.assert_allclose(got, loss(jnp.asarray(plain).ravel()), rtol=1e-6)
