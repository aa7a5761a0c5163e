"""What the questions about scenes decide by themselves; their figures are asked for in test_gpu."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.questions import hot, scenes
from benchmarks.questions.context import Context
from benchmarks.questions.sizes import SMOKE


@pytest.fixture
def steps(monkeypatch):
    """Steps of stage 2 that do next to nothing; those of more than two crops want too much memory."""

    def stage2_step(sizes, batch):
        def step(state, crops):
            return state + crops.sum(), None

        return hot.Hot(step, lambda: (jnp.zeros(()), jnp.ones(batch)), batch, "crops", "bfloat16")

    def compile_program(function, *args, **options):
        if len(args[1]) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand where")
        return program(function, *args, **options)

    program = scenes.compile_program
    monkeypatch.setattr(hot, "stage2_step", stage2_step)
    monkeypatch.setattr(scenes, "compile_program", compile_program)


def test_the_largest_batch_that_fits_is_measured(steps):
    sizes = SMOKE._replace(crop_batches=(8, 4, 2, 1))
    rows = list(scenes.estimator_step(sizes, Context(sizes, 100.0)))
    assert rows[:2] == [{"batch": n, "does_not_fit": "RESOURCE_EXHAUSTED: Out of memory"} for n in (8, 4)]
    assert [(row["batch"], row["crops"]) for row in rows[2:]] == [(2, 2)]
    assert rows[2]["crops_per_second"] == pytest.approx(2 / rows[2]["seconds"], rel=1e-3)


def test_another_failure_is_no_lack_of_memory(monkeypatch):
    def fail(sizes, batch):
        raise jax.errors.JaxRuntimeError("INTERNAL: no kernel")

    monkeypatch.setattr(hot, "stage2_step", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no kernel"):
        list(scenes.estimator_step(SMOKE, Context(SMOKE, 100.0)))


def test_a_scene_is_cut_into_the_windows_of_the_library():
    # 1024 x 2048 at stride 140: starts 0, 140, 280, 420, 506 down and 0, 140, ..., 980, 1012 across
    assert scenes.window_count((1024, 2048), (518, 1036), (140, 140)) == 5 * 9
    assert scenes.window_count((1024, 2048), (518, 1036), (259, 518)) == 3 * 3
    assert scenes.batch_of(45, (1, 4, 9, 15)) == 15
    assert scenes.batch_of(9, (1, 4, 9, 15)) == 9
    assert scenes.batch_of(7, (2, 4)) == 4  # one repeated window either way; fewer calls
