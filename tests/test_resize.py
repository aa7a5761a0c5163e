"""Resizing against PyTorch's (golden/resize.npz), and that gradients are those of the same matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import resize


def recorded(golden, kind):
    """(given, out, ...), values of every case of one kind."""
    cases = {}
    for name, value in golden("resize").items():
        first, *numbers = name.split("/")
        if first == kind:
            cases[tuple(int(n) for n in numbers)] = value
    return cases


def test_nearest_reads_the_rows_that_torch_reads(golden):
    cases = recorded(golden, "nearest")
    assert len(cases) == 7
    for (given, out), rows in cases.items():
        labels = np.arange(given, dtype=np.int32)
        np.testing.assert_array_equal(resize.nearest(jnp.asarray(labels[None, :, None]), (out, 1))[0, :, 0], rows)
        np.testing.assert_array_equal(resize.nearest(jnp.asarray(labels[None, None]), (1, out))[0, 0], rows)


def test_nearest_keeps_labels_and_further_axes(rng):
    labels = jnp.asarray(rng.integers(0, 256, (2, 4, 5)), jnp.uint8)
    small = resize.nearest(labels, (2, 3))
    assert small.dtype == jnp.uint8
    np.testing.assert_array_equal(small, labels[:, ::2][:, :, np.array([0, 1, 3])])  # floor of 0, 5/3, 10/3
    np.testing.assert_array_equal(resize.nearest(jnp.stack([labels, labels], 3), (2, 3))[..., 1], small)


def test_bilinear_weights_are_those_of_torch(golden):
    cases = recorded(golden, "bilinear")
    assert len(cases) == 12
    for (given, out, corners), weights in cases.items():
        np.testing.assert_allclose(resize.bilinear_weights(given, out, bool(corners)), weights, atol=3e-6)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(10, 5), (3, 7), (2, 40), (5, 1)])  # doubled, kept, shrunk, by whole matrices
def test_bilinear_and_its_gradient_are_products_with_those_weights(rng, size, corners):
    x, y = (jnp.asarray(rng.normal(size=(2, *s, 3)), jnp.float32) for s in ((5, 5), size))
    rows, columns = (resize.bilinear_weights(5, n, corners) for n in size)
    out, pull = jax.vjp(lambda x: resize.bilinear(x, size, corners), x)
    np.testing.assert_allclose(out, np.einsum("ah,bw,nhwc->nabc", rows, columns, x), atol=1e-5)
    np.testing.assert_allclose(pull(y)[0], np.einsum("ah,bw,nabc->nhwc", rows, columns, y), atol=1e-5)


def test_bilinear_is_differentiated_twice_and_mapped(rng):
    x = jnp.asarray(rng.normal(size=(3, 1, 4, 2, 1)), jnp.float32)
    enlarge = lambda x: resize.bilinear(x, (6, 3))  # noqa: E731, used three times below
    np.testing.assert_allclose(jax.vmap(enlarge)(x)[1], enlarge(x[1]), atol=1e-6)
    slope = jax.grad(lambda x: (enlarge(x) ** 2).sum())
    rows, columns = resize.bilinear_weights(4, 6), resize.bilinear_weights(2, 3)
    curvature = jax.grad(lambda x: slope(x).sum())(x[0])[0, :, :, 0]  # 2 A'A summed over one side
    np.testing.assert_allclose(curvature, 2 * np.outer((rows.T @ rows).sum(0), (columns.T @ columns).sum(0)), atol=1e-5)


def test_the_dtype_stays(rng):
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 2)), jnp.bfloat16)
    assert resize.bilinear(x, (8, 30)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resize.bilinear(jnp.zeros((4, 5, 3)), (8, 8)), r"x must have shape \[B, h, w, C\], got \[4, 5, 3\]"),
        (lambda: resize.bilinear(jnp.zeros((1, 4, 5, 3), jnp.int32), (8, 8)), "labels are resized by resize.nearest"),
        (lambda: resize.nearest(jnp.zeros((4, 5)), (8, 8)), r"x must have shape \[B, h, w, ...\], got \[4, 5\]"),
        (lambda: resize.nearest(jnp.zeros((1, 4, 5)), (0, 8)), r"two positive numbers of pixels, got \(0, 8\)"),
        (lambda: resize.nearest(jnp.zeros((1, 4, 5)), (8,)), "two positive numbers of pixels"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parity
def test_many_sizes_are_resized_as_torch_does(rng):
    torch = pytest.importorskip("torch")
    for given in range(1, 60, 4):
        x = rng.normal(size=(1, given, 1, 1)).astype(np.float32)
        for out in range(1, 90, 8):
            rows = torch.from_numpy(x[..., 0])
            wanted = torch.nn.functional.interpolate(rows[None, :, :, 0], size=out, mode="nearest")[0, 0]
            np.testing.assert_array_equal(resize.nearest(x, (out, 1))[0, :, 0, 0], wanted.numpy())
            for corners in (False, True):
                wanted = torch.nn.functional.interpolate(
                    rows[None], size=(out, 1), mode="bilinear", align_corners=corners
                )
                found = resize.bilinear_weights(given, out, corners) @ x[0, :, 0, 0]
                np.testing.assert_allclose(found, wanted[0, 0, :, 0].numpy(), atol=2e-5)


def test_blur_is_scipys_gaussian_of_seven_taps(rng):
    from scipy.ndimage import gaussian_filter

    x = rng.normal(size=(2, 9, 5)).astype(np.float32)
    expected = [gaussian_filter(image, 1.0, mode="mirror", truncate=3.0) for image in x]
    np.testing.assert_allclose(resize.blur(jnp.asarray(x)), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"\[B, H, W\] with H and W at least 4"):
        resize.blur(jnp.zeros((1, 3, 8)))
