"""Four devices run both stages of UEM as one does; inference/test_windows.py has the windows."""

from __future__ import annotations

import numpy as np
import pytest
from programs import on_four_devices, pairs

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, np.ndarray]:
    return on_four_devices("segmentation_on_devices.py", tmp_path_factory.mktemp("segmentation") / "results.npz")


@pytest.mark.parametrize("what", ["losses", "params", "state"])
@pytest.mark.parametrize("stage", ["first", "second"])
def test_six_steps_are_those_of_one_device(results, stage, what):
    for name, one, four in pairs(results, f"{stage}.{what}"):
        np.testing.assert_allclose(four, one, rtol=2e-3, atol=2e-4, err_msg=name)


def test_means_deviations_and_bank_have_moved(results):
    for stage in ("first", "second"):
        written = {n: v for n, v in results.items() if n.startswith(f"{stage}.state['head']") and "written" in n}
        assert written
        assert all(v.sum() > 0 for v in written.values())
        [deviation] = [v for n, v in results.items() if n.startswith(f"{stage}.state['head'].deviation") and "one" in n]
        assert np.abs(deviation - 1.0).max() > 0.1
