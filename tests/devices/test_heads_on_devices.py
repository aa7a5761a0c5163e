"""Four devices train the mixture head as one does: bank writes, pointers, Sinkhorn and moments are global."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, np.ndarray]:
    path = tmp_path_factory.mktemp("heads") / "results.npz"
    # the programs are tiny: compiling them well would cost more than running them badly
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    flags += " --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, str(HERE / "heads_on_devices.py"), str(path)]
    program = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert program.returncode == 0, program.stderr
    with np.load(path) as file:
        return dict(file)


def pairs(results: dict[str, np.ndarray], prefix: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    names = [name.removesuffix("|one") for name in results if name.startswith(prefix) and name.endswith("|one")]
    assert names
    return [(name, results[f"{name}|one"], results[f"{name}|four"]) for name in names]


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
