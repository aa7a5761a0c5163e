"""Four devices train the mixture head as one does: bank writes, pointers, Sinkhorn and moments are global."""

from __future__ import annotations

import numpy as np
import pytest
from programs import on_four_devices, pairs


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, np.ndarray]:
    return on_four_devices("heads_on_devices.py", tmp_path_factory.mktemp("heads") / "results.npz")


@pytest.mark.parametrize("what", ["step", "params", "state"])
def test_ten_steps_of_the_mixture_are_those_of_one_device(results, what):
    for name, one, four in pairs(results, what):
        np.testing.assert_allclose(four, one, rtol=1e-4, atol=1e-5, err_msg=name)


def test_ten_steps_have_moved_everything(results):
    assert results["state['count']|one"] == 10
    assert (results["state['written']|one"] > 0).all()
    assert (results["state['pointer']|one"] != results["state['written']|one"]).any()  # some ring has wrapped around
    assert results["step1['loss']|one"] > 0.1
    assert results["step2['loss']|one"] == 0.0  # only ignored pixels


@pytest.mark.parametrize("prefix", ["targets", "apart"])
def test_assignments_are_identical(results, prefix):
    for name, one, four in pairs(results, prefix):
        np.testing.assert_array_equal(four, one, err_msg=name)


def test_baseline_losses_and_gradients_are_those_of_one_device(results):
    for name, one, four in pairs(results, "baseline"):
        np.testing.assert_allclose(four, one, rtol=1e-4, atol=1e-6, err_msg=name)
        assert np.abs(one).max() > 1e-3
