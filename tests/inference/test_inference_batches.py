import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.inference import batched, bucketed, map_batches


def double(x):
    return {"twice": 2 * x, "total": jnp.sum(x, axis=(1, 2))}


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 40])
def test_rows_come_back_exactly_whatever_the_padding(rng, rows):
    x = rng.integers(0, 100, (rows, 2, 3)).astype(np.float32)
    out = map_batches(double, x, batch_size=8)
    np.testing.assert_array_equal(out["twice"], 2 * x)
    np.testing.assert_array_equal(out["total"], x.sum((1, 2)))
    assert isinstance(out["twice"], np.ndarray)


def test_one_compilation_for_any_number_of_rows():
    traces = []

    def fn(x):
        traces.append(x.shape)
        return x + 1

    run = batched(fn, batch_size=8)
    for rows in (3, 8, 21):
        run(np.zeros((rows, 2), np.float32))
    assert traces == [(8 // jax.local_device_count(), 2)]


def test_shared_arguments_reach_every_batch_and_may_change():
    run = batched(lambda weights, x: x * weights["w"], batch_size=4, shared=1)
    x = np.arange(6.0, dtype=np.float32)
    np.testing.assert_array_equal(run({"w": np.float32(3)}, x), 3 * x)
    np.testing.assert_array_equal(run({"w": np.float32(5)}, x), 5 * x)


def test_arrays_may_be_a_tree(rng):
    tree = {"a": rng.random((5, 2)), "b": np.arange(5)}
    out = map_batches(lambda t: t["a"][:, 0] + t["b"], tree, batch_size=2)
    np.testing.assert_allclose(out, tree["a"][:, 0] + tree["b"], rtol=1e-6)


def test_progress_counts_finished_rows_and_ends_at_all():
    seen = []
    map_batches(lambda x: x, np.zeros((90, 1)), batch_size=8, report=lambda *numbers: seen.append(numbers))
    assert seen[0] == (8, 90)
    assert seen[-1] == (90, 90)
    assert len(seen) == 12


def test_no_rows_give_empty_results_of_the_right_shape():
    out = map_batches(double, np.zeros((0, 2, 3), np.float32), batch_size=4)
    assert out["twice"].shape == (0, 2, 3)
    assert out["total"].shape == (0,)


def test_padding_never_feeds_rows_that_are_not_there():
    out = map_batches(lambda x: 1 / x, np.full((5, 1), 2.0, np.float32), batch_size=4)
    with jax.debug_nans(True):
        again = map_batches(lambda x: 1 / x, np.full((5, 1), 2.0, np.float32), batch_size=4)
    np.testing.assert_array_equal(out, again)


@pytest.mark.parametrize("arrays", [(np.zeros(3), np.zeros(4)), (), np.float32(1)])
def test_arrays_without_common_rows_are_refused(arrays):
    with pytest.raises(ValueError, match="share one leading axis"):
        map_batches(lambda x: x, arrays, batch_size=2)


def test_batch_size_is_checked():
    with pytest.raises(ValueError, match=r"batch_size must lie in \[1"):
        batched(lambda x: x, batch_size=0)


FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from quantjax.inference import batched
assert jax.local_device_count() == 4
rng = np.random.default_rng(0)
weights, x = rng.standard_normal((6, 3)), rng.standard_normal((23, 6))
fn = lambda w, rows: {"y": jnp.tanh(rows @ w), "n": jnp.sum(rows, -1)}
seen = []
many = batched(fn, batch_size=7, shared=1)(weights, x, report=lambda *numbers: seen.append(numbers))
one = batched(fn, batch_size=7, shared=1, devices=jax.local_devices()[:1])(weights, x)
other = batched(fn, batch_size=7, shared=1, devices=jax.local_devices()[1:2])(weights, x)
for name in many:
    np.testing.assert_allclose(many[name], one[name], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other[name], one[name], rtol=1e-6, atol=1e-6)
assert many["y"].shape == (23, 3) and seen == [(8, 23), (16, 23), (23, 23)], seen
"""


def test_four_devices_give_what_one_gives_for_rows_that_do_not_divide():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", FOUR_DEVICES], check=True, env=environment)


def test_few_rows_fill_a_small_batch():
    sizes = []

    def double(x):
        sizes.append(x.shape[0])
        return 2 * x

    run = bucketed(double, batch_size=64)
    for rows in (1, 3, 16, 17, 64, 65, 1):
        np.testing.assert_array_equal(run(np.arange(rows)), 2 * np.arange(rows))
    assert sizes == [1, 16, 64]  # each compiled once
