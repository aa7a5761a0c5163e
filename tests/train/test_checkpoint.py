"""Checkpoints come back bit for bit; damaged and foreign ones say what to do."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from quantjax.train import checkpoint
from quantjax.train.step import TrainState, init_state

OPTIMIZER = optax.chain(optax.add_decayed_weights(1e-4), optax.adam(optax.constant_schedule(1e-3)))


def state_of(width=3):
    params = {"a": {"w": jnp.arange(2.0 * width).reshape(2, width) / 7}, "b": jnp.ones(4, jnp.bfloat16)}
    return init_state(params, OPTIMIZER, {"mean": jnp.full((2,), 0.1)})


@pytest.mark.parametrize("generator", ["threefry2x32", "unsafe_rbg"])
def test_state_epoch_and_key_come_back_bit_for_bit(tmp_path, generator):
    state = state_of()._replace(step=jnp.int32(9))
    key = jax.random.split(jax.random.key(4, impl=generator))[1]
    assert checkpoint.save(tmp_path, state, 3, key) == tmp_path / "3"
    restored, epoch, stored = checkpoint.restore(tmp_path, jax.tree.map(jnp.zeros_like, state))
    assert epoch == 3
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(jax.random.uniform(stored, (3,)), jax.random.uniform(key, (3,)))
    assert jax.random.key_impl(stored) == jax.random.key_impl(key)


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.latest(tmp_path / "missing") is None
    assert not (tmp_path / "missing").exists()
    assert checkpoint.restore(tmp_path, state_of()) is None


def test_an_array_without_entries_and_a_relative_folder_are_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = state_of()._replace(model_state={"nothing": jnp.zeros((0, 3))})
    checkpoint.save("run", state, 1, jax.random.key(0))
    restored, *_ = checkpoint.restore("run", state)
    assert restored.model_state["nothing"].shape == (0, 3)


def test_only_the_newest_are_kept_and_none_is_overwritten(tmp_path):
    for epoch in (1, 2, 3):
        checkpoint.save(tmp_path, state_of(), epoch, jax.random.key(0), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
    with pytest.raises(ValueError, match="already holds epoch 3, cannot save epoch 3"):
        checkpoint.save(tmp_path, state_of(), 3, jax.random.key(0))


def test_an_empty_file_is_named_and_nothing_older_is_taken_silently(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(tmp_path, state_of(), epoch, jax.random.key(0))
    victim = next(path for path in (tmp_path / "2" / "state").rglob("*") if path.parent.name == "d")
    victim.write_bytes(b"")
    with pytest.raises(ValueError, match=r"is empty; delete the folder .*2 to go on from epoch 1, or start") as error:
        checkpoint.restore(tmp_path, state_of())
    assert str(victim) in str(error.value)
    for path in sorted((tmp_path / "2").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "2").rmdir()
    assert checkpoint.restore(tmp_path, state_of())[1] == 1


@pytest.mark.parametrize("name", ["state/manifest.ocdbt", "state/_METADATA", "about/metadata"])
def test_a_damaged_file_is_an_error_with_a_way_out(tmp_path, name):
    checkpoint.save(tmp_path, state_of(), 1, jax.random.key(0))
    victim = tmp_path / "1" / name
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(content[:-3])
    with pytest.raises(ValueError, match=r"1 is damaged .* as there is no older one, or start the run afresh"):
        checkpoint.restore(tmp_path, state_of())


def test_a_flipped_bit_in_the_arrays_is_seen(tmp_path):
    """Random bytes are stored as they are: nothing but the digest tells one from another."""
    noise = np.random.default_rng(0).integers(0, 2**32, 1000, np.uint32)
    state = TrainState({"w": jnp.asarray(noise)}, (), (), jnp.int32(0))
    checkpoint.save(tmp_path, state, 1, jax.random.key(0))
    [(file, content)] = [
        (file, file.read_bytes())
        for file in (tmp_path / "1" / "state").rglob("*")
        if file.is_file() and noise[:16].tobytes() in file.read_bytes()
    ]
    spoilt = bytearray(content)
    spoilt[content.index(noise[:16].tobytes()) + 9] ^= 1
    file.write_bytes(spoilt)
    with pytest.raises(
        ValueError, match=r"1 is damaged \(its arrays are not those that were saved\); delete the folder"
    ):
        checkpoint.restore(tmp_path, state)


def test_another_model_or_optimiser_is_named(tmp_path):
    checkpoint.save(tmp_path, state_of(3), 1, jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"first is params.a.w, wanted float32 \[2, 5\], stored float32 \[2, 3\]; use the settings"
    ):
        checkpoint.restore(tmp_path, state_of(5))
    plain = init_state(state_of().params, optax.sgd(0.1), state_of().model_state)
    with pytest.raises(ValueError, match=r"another model or optimiser.*wanted none"):
        checkpoint.restore(tmp_path, plain)


def test_what_a_killed_save_leaves_behind_is_no_checkpoint(tmp_path):
    checkpoint.save(tmp_path, state_of(), 1, jax.random.key(0))
    leftover = tmp_path / "2.orbax-checkpoint-tmp"
    (leftover / "state").mkdir(parents=True)
    (leftover / "state" / "half").write_bytes(b"x")
    assert checkpoint.latest(tmp_path) == 1
    assert checkpoint.restore(tmp_path, state_of())[1] == 1
    checkpoint.save(tmp_path, state_of(), 2, jax.random.key(0))
    assert checkpoint.latest(tmp_path) == 2


SAVE_FOR_EVER = """
import sys, jax, jax.numpy as jnp
from quantjax.train.checkpoint import save
from quantjax.train.step import TrainState
for epoch in range(1, 1000):
    state = TrainState({"w": jnp.full((300_000,), float(epoch))}, (), (), jnp.int32(epoch))
    save(sys.argv[1], state, epoch, jax.random.key(0))
    print(epoch, flush=True)
"""


def test_a_process_killed_while_saving_loses_no_checkpoint_that_was_done(tmp_path):
    template = TrainState({"w": jnp.zeros(300_000)}, (), (), jnp.int32(0))
    saving = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        done = next(int(line) for line in saving.stdout if int(line) == 3)
        while not any("tmp" in path.name for path in tmp_path.rglob("*")) and saving.poll() is None:
            pass  # until the next save is under way
    finally:
        saving.kill()
        saving.wait()
    restored, epoch, _ = checkpoint.restore(tmp_path, template)
    assert epoch >= done
    np.testing.assert_array_equal(restored.params["w"], np.full(300_000, float(epoch), np.float32))
    checkpoint.save(tmp_path, template, epoch + 1, jax.random.key(0))
    assert checkpoint.latest(tmp_path) == epoch + 1


@pytest.mark.parametrize("name", ["a[b]", "a\\b", "gs:", "a*?b", "a b \u00e4 \u2192", "\udcff"])
def test_a_folder_may_be_called_anything(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    for epoch in (1, 2):
        checkpoint.save(folder, state_of(), epoch, jax.random.key(0), keep=1)
    assert [path.name for path in folder.iterdir()] == ["2"]
    restored, epoch, _ = checkpoint.restore(folder, state_of())
    assert epoch == checkpoint.latest(folder) == 2
    np.testing.assert_array_equal(restored.params["a"]["w"], state_of().params["a"]["w"])


def test_where_no_link_can_be_made_the_folder_is_refused(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("a privilege is not held")

    monkeypatch.setattr(type(tmp_path), "symlink_to", refuse)
    with pytest.raises(ValueError, match=r"cannot be kept in .*a\[b\].*privilege is not held.*choose a folder"):
        checkpoint.save(tmp_path / "a[b]", state_of(), 1, jax.random.key(0))


def test_a_full_disk_keeps_the_checkpoints_before(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    checkpoint.save(tmp_path, state_of(), 1, jax.random.key(0))

    def fill(manager, step, **_):
        (tmp_path / f"{step}{checkpoint.UNFINISHED}").mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes: No space left on device [os_error_code='28']")

    monkeypatch.setattr(ocp.CheckpointManager, "save", fill)
    with pytest.raises(OSError, match=r"/2 cannot be written, the disk is full"):
        checkpoint.save(tmp_path, state_of(), 2, jax.random.key(0))
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
