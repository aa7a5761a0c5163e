"""JAX runs strict in every test: ranks never promote by themselves, seeds are fixed."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.devices()  # started here, so that no test changes the number of devices for those after it


@pytest.fixture
def golden():
    """Read tests/golden/<name>.npz as a dict; `origin` in each file says which program made it."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets in their publishers' layouts."""
    value = os.environ.get("QUANTJAX_DATA_DIR")
    if not value:
        pytest.skip("QUANTJAX_DATA_DIR is unset: point it at a folder with the data sets to run this test")
    return Path(value)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def strict_dtypes():
    """Mixed dtypes raise; request it in the tests of flows, gaussian, losses, scores and metrics."""
    with jax.numpy_dtype_promotion("strict"):
        yield
