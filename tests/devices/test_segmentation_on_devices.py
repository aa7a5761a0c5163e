"""Four devices run both stages of UEM and score windows as one does."""

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
    path = tmp_path_factory.mktemp("segmentation") / "results.npz"
    # the programs are tiny: compiling them well would cost more than running them badly
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    flags += " --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, str(HERE / "segmentation_on_devices.py"), str(path)]
    program = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert program.returncode == 0, program.stderr
    with np.load(path) as file:
        return dict(file)


def pairs(results: dict[str, np.ndarray], prefix: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    names = [name.removesuffix("|one") for name in results if name.startswith(prefix) and name.endswith("|one")]
    assert names
    return [(name, results[f"{name}|one"], results[f"{name}|four"]) for name in names]


@pytest.mark.parametrize("what", ["losses", "params", "state"])
@pytest.mark.parametrize("stage", ["first", "second"])
def test_ten_steps_are_those_of_one_device(results, stage, what):
    for name, one, four in pairs(results, f"{stage}.{what}"):
        np.testing.assert_allclose(four, one, rtol=2e-3, atol=2e-4, err_msg=name)


def test_score_maps_of_overlapping_windows_are_those_of_one_device(results):
    for name, one, four in pairs(results, "scores"):
        assert one.shape == (40, 90)
        assert one.std() > 0
        np.testing.assert_allclose(four, one, rtol=2e-3, atol=2e-3, err_msg=name)


def test_means_deviations_and_bank_have_moved(results):
    for stage in ("first", "second"):
        written = {n: v for n, v in results.items() if n.startswith(f"{stage}.state['head']") and "written" in n}
        assert written
        assert all(v.sum() > 0 for v in written.values())
        [deviation] = [v for n, v in results.items() if n.startswith(f"{stage}.state['head'].deviation") and "one" in n]
        assert np.abs(deviation - 1.0).max() > 0.1
