"""Four devices equal one, two processes equal one; each in a process of its own, as device counts are fixed early."""

from __future__ import annotations

import socket

import jax
import numpy as np
import pytest
import two_processes
from programs import finish, on_four_devices, pairs, start


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, np.ndarray]:
    return on_four_devices("four_devices.py", tmp_path_factory.mktemp("devices") / "results.npz")


STAGE_ONE = ["classifier", "accumulated", "auxiliary", "virtual"]
TRAININGS = [*STAGE_ONE, "quantile-two_row", "quantile-plain", "mean-plain"]


@pytest.mark.parametrize("training", TRAININGS)
def test_raw_gradients_of_four_devices_are_those_of_one(results, training):
    found = pairs(results, f"{training}.grad")
    for name, one, four in found:
        np.testing.assert_allclose(four, one, rtol=1e-5, atol=1e-5, err_msg=name)
    # a wrong factor (4 or 1/4) must not hide below the tolerance
    assert max(np.abs(one).max() for _, one, _ in found) > 1e-2


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("what", ["first", "losses", "params"])
def test_ten_steps_on_four_devices_are_those_on_one(results, training, what):
    for name, one, four in pairs(results, f"{training}.{what}"):
        np.testing.assert_allclose(four, one, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("training", STAGE_ONE)
def test_statistics_and_queues_after_ten_steps_are_those_of_one_device(results, training):
    found = pairs(results, f"{training}.statistics")
    assert any("queues" in name for name, _, _ in found) == (training == "virtual")
    for name, one, four in found:
        np.testing.assert_allclose(four, one, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("training", TRAININGS)
def test_ten_steps_are_traced_once(results, training):
    assert results[f"{training}.traces|one"] == results[f"{training}.traces|four"] == 1


def test_scores_of_four_devices_are_those_of_one(results):
    ((_, one, four),) = pairs(results, "scores")
    assert one.shape == (26,)
    np.testing.assert_allclose(four, one, rtol=1e-5)


def test_training_a_flow_vmapped_over_seeds_equals_separate_runs(results):
    for name in [name for name in results if name.startswith("seeds") and name.endswith("|together")]:
        np.testing.assert_allclose(
            results[name], results[name.removesuffix("together") + "apart"], rtol=1e-4, atol=1e-5, err_msg=name
        )
    first, second = results["seeds['loss']|together"]
    assert not np.allclose(first, second)


def test_joined_results_donation_and_lengths_that_do_not_divide(results):
    np.testing.assert_array_equal(results["joined"], np.arange(24).reshape(2, 12) * 2 + np.arange(12)[None, :])
    assert results["donated"]
    assert "shape [2, 10] is split along axis 1 over 4 devices" in str(results["refusal"])
    assert "pad_axis" in str(results["refusal"])
    assert results["total"] == 3.0  # of a function all of whose arguments are the same on every device
    assert str(results["summary"]) == "4 x cpu"


def test_two_processes_train_as_one_does(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    outputs = [tmp_path / f"{name}.npz" for name in ("alone", "first", "second")]
    parts = [start("two_processes.py", str(outputs[1 + i]), address, "2", str(i)) for i in range(2)]
    with jax.numpy_rank_promotion("allow"):
        two_processes.main(str(outputs[0]))
    finish(*parts)
    alone, *together = [dict(np.load(path)) for path in outputs]
    for result in together:
        assert str(result["summary"]) == "2 x cpu, 2 processes"
        for name in alone.keys() - {"summary"}:
            np.testing.assert_allclose(result[name], alone[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert np.ptp(alone["losses"]) > 1e-3
