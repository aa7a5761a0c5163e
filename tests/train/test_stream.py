"""Streams of batches: the same numbers as a plain loop, after a kill too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from quantjax.train import Mean, fit_stream, init_state, make_step, objective_of_means

KEY = jax.random.key(3)
OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def means(params, model_state, batch, key, axis_name):
    frozen, rows = batch
    residual = rows["x"] @ params["w"] + frozen["b"] - rows["y"]
    noise = jax.random.uniform(key)
    labelled = rows["y"] > 0
    square = jnp.where(labelled, residual**2, 0.0)
    terms = {
        "square": Mean(square.sum(), labelled.sum(), 1.0),
        "weighed": Mean(jnp.sum(residual) * noise, residual.size, 0.1),
        "rows": Mean(jnp.float32(2.0 * residual.size), residual.size),
    }
    return terms, {"seen": model_state["seen"] + 1.0}


def batches(first):
    for step in range(first, 100):
        rng = np.random.default_rng(step)
        yield {"x": rng.normal(size=(4, 2)).astype("float32"), "y": rng.normal(size=4).astype("float32")}


def run(steps, **options):
    state = init_state({"w": jnp.zeros(2)}, OPTIMIZER, {"seen": jnp.zeros(())})
    frozen = {"b": jnp.float32(0.5)}
    step = make_step(objective_of_means(means), OPTIMIZER)
    return fit_stream(step, state, batches, steps=steps, key=KEY, frozen=frozen, **options)


def by_hand(steps):
    """The same in NumPy: gradient of the mean over labelled rows plus 0.1 times the mean of noisy residuals."""
    w, velocity, losses = np.zeros(2), np.zeros(2), []
    for step, rows in zip(range(steps), batches(0), strict=False):
        noise = float(jax.random.uniform(jax.random.fold_in(KEY, step)))
        residual = rows["x"] @ w + 0.5 - rows["y"]
        labelled = rows["y"] > 0
        count = max(labelled.sum(), 1)
        losses.append((residual[labelled] ** 2).sum() / count + 0.1 * noise * residual.mean())
        gradient = 2 * (residual * labelled) @ rows["x"] / count + 0.1 * noise * rows["x"].mean(0)
        velocity = 0.9 * velocity + gradient
        w = w - 0.1 * velocity
    return w, losses


def test_a_stream_trains_as_the_loop_by_hand():
    seen = []
    state = run(5, report_every=2, report=lambda step, values: seen.append((step, values)))
    w, losses = by_hand(5)
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
    assert [step for step, _ in seen] == [2, 4, 5]
    np.testing.assert_allclose(
        [v["loss"] for _, v in seen], [np.mean(losses[:2]), np.mean(losses[2:4]), losses[4]], rtol=1e-5
    )
    assert all(values["rows"] == 2.0 for _, values in seen)
    assert float(state.model_state["seen"]) == 5.0


def every_second_step():
    """A clock that passes a checkpoint's time in two steps of two looks each."""
    return {"clock": Ticking(1.0), "checkpoint_seconds": 4.0}


class Ticking:
    """Time that passes by being looked at: a question takes `seconds`."""

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def __call__(self):
        self.now += self.seconds
        return self.now


def test_progress_and_checkpoints_go_by_the_clock(tmp_path):
    # two looks a step of three seconds each: a step takes six, so every second one reports, every tenth is saved
    seen = []
    options = {"clock": Ticking(3.0), "checkpoint_seconds": 60.0, "checkpoints": tmp_path, "report_every": 1000}
    state = run(23, report=lambda step, values: seen.append(step), keep=9, **options)
    assert np.diff(seen).max() <= 2
    saved = sorted(int(folder.name) for folder in tmp_path.iterdir() if folder.name.isdigit())
    assert len(saved) >= 3
    assert np.diff([0, *saved]).max() <= 11
    assert saved[-1] == int(state.step) == 23


def test_a_killed_run_goes_on_with_the_same_numbers(tmp_path):
    whole = run(7)

    def stop(step, values):
        if step == 5:
            raise KeyboardInterrupt

    options = {"checkpoints": tmp_path, "report_every": 1} | every_second_step()
    with pytest.raises(KeyboardInterrupt):
        run(7, report=stop, **options)
    with pytest.raises(ValueError, match="resume it"):
        run(7, **options)
    resumed = run(7, resume=True, **options)
    assert np.array_equal(resumed.params["w"], whole.params["w"])
    assert int(run(7, resume=True, **options).step) == 7  # nothing left to do


def test_a_stream_that_ends_or_diverges_says_so(tmp_path):
    step = make_step(objective_of_means(means), OPTIMIZER)

    def start():
        return init_state({"w": jnp.zeros(2)}, OPTIMIZER, {"seen": jnp.zeros(())})

    frozen = {"b": jnp.float32(0.5)}
    with pytest.raises(ValueError, match="ended after 1 of 3 steps"):
        fit_stream(step, start(), lambda first: iter([next(batches(0))]), steps=3, key=KEY, frozen=frozen)

    def broken(first):
        for index, rows in enumerate(batches(first), first):
            yield rows if index < 3 else rows | {"x": rows["x"] * np.nan}

    options = {"checkpoints": tmp_path} | every_second_step()
    with pytest.raises(FloatingPointError, match=r"in steps 3 to 4, step 2 of 2; lower.*; 2 steps are safe in"):
        fit_stream(step, start(), broken, steps=6, key=KEY, frozen=frozen, **options)
