"""One device here; several in tests/devices."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax import parallel
from quantjax.parallel import AXIS, data_parallel, local_rows, pad_axis, process_share, replicate


def test_on_one_device_the_function_is_compiled_once_per_shape_and_sees_no_axis():
    seen = []

    def scale(weights, x, axis_name):
        seen.append((x.shape, axis_name))
        return weights["w"] * x

    run = data_parallel(scale, (None, 0), 0)
    weights = {"w": jnp.float32(3.0)}
    for x in (np.ones((4, 2), np.float32), np.full((4, 2), 2.0, np.float32), np.ones((5, 2), np.float32)):
        np.testing.assert_array_equal(run(weights, x), 3.0 * x)
    assert seen == [((4, 2), None), ((5, 2), None)]


def test_donated_state_is_given_up_and_a_copy_leaves_the_original_alone():
    run = data_parallel(lambda state, axis_name: jax.tree.map(lambda leaf: leaf + 1, state), (None,), None,
                        donate_argnums=(0,))  # fmt: skip
    original = {"w": jnp.ones((64,))}
    copy = replicate(original, copy=True)
    np.testing.assert_array_equal(run(copy)["w"], np.full(64, 2.0))
    assert copy["w"].is_deleted()
    np.testing.assert_array_equal(original["w"], np.ones(64))


def test_replicate_keeps_what_is_there_and_takes_numpy_and_keys():
    there = jnp.arange(4)
    tree = replicate({"a": there, "b": np.ones(2, np.uint8), "key": jax.random.key(3, impl="unsafe_rbg")})
    assert tree["a"].unsafe_buffer_pointer() == there.unsafe_buffer_pointer()
    assert isinstance(tree["b"], jax.Array)
    assert tree["b"].dtype == np.uint8
    assert jax.random.key_impl(tree["key"]) == "unsafe_rbg"


@pytest.mark.parametrize(
    ("axis", "expected"),
    [(0, [[1, 2, 3], [4, 5, 6], [-1, -1, -1], [-1, -1, -1]]), (1, [[1, 2, 3, -1], [4, 5, 6, -1]])],
)
def test_pad_axis_fills_up_to_a_multiple(axis, expected):
    np.testing.assert_array_equal(pad_axis(np.array([[1, 2, 3], [4, 5, 6]]), axis, 4, -1), expected)


def test_pad_axis_leaves_a_multiple_alone():
    assert pad_axis(np.ones((4, 3)), 0, 2).shape == (4, 3)


def shares(drawn, **options):
    """local_rows as three devices see it; vmap's named axis stands in for them."""
    return jax.vmap(lambda _: local_rows(drawn, AXIS, **options), axis_name=AXIS)(jnp.arange(3))


def test_local_rows_are_the_devices_parts_in_order():
    np.testing.assert_array_equal(shares(jnp.arange(6)), [[0, 1], [2, 3], [4, 5]])
    masks = jnp.arange(12).reshape(2, 6)
    np.testing.assert_array_equal(shares({"m": masks}, axis=-1)["m"][1], [[2, 3], [8, 9]])
    assert local_rows(masks, None) is masks


def test_local_rows_of_a_padded_batch_end_in_zeros():
    np.testing.assert_array_equal(shares(jnp.arange(1, 8), rows=3), [[1, 2, 3], [4, 5, 6], [7, 0, 0]])


@pytest.mark.parametrize("options", [{}, {"rows": 2}])
def test_local_rows_that_do_not_fit_are_an_error(options):
    with pytest.raises(ValueError, match="is no 3 equal shares"):
        shares(jnp.arange(7), **options)


def test_one_process_feeds_everything():
    order = np.arange(6).reshape(1, 6)
    np.testing.assert_array_equal(process_share(order, 1), order)


def test_summary_and_counts_name_this_machine():
    assert parallel.device_summary() == f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    assert parallel.device_count() == jax.local_device_count()
    assert parallel.device_count(jax.devices()[:1]) == 1
    assert parallel.runs_loops_well() == (jax.default_backend() != "cpu")


def test_compilation_cache_fills_the_folder(tmp_path):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_entry_size_bytes",
             "jax_persistent_cache_min_compile_time_secs")  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    from jax.experimental.compilation_cache import compilation_cache

    try:
        jax.config.update("jax_compilation_cache_dir", None)
        folder = parallel.enable_compilation_cache(tmp_path / "deep" / "cache")
        assert parallel.enable_compilation_cache(tmp_path / "other") == folder  # what is chosen stays
        assert not (tmp_path / "other").exists()
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        compilation_cache.reset_cache()
        data_parallel(lambda x, axis_name: jnp.sin(x) * 3.25, (0,), 0)(np.ones(17, np.float32))
        assert folder == tmp_path / "deep" / "cache"
        assert any(folder.iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_cores_become_devices_before_jax_starts_and_not_after():
    before = jax.device_count()
    parallel.cores_as_devices(before + 1)
    assert jax.device_count() == before
    code = "import jax\nfrom quantjax import parallel\nparallel.cores_as_devices(3)\nassert jax.device_count() == 3"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
