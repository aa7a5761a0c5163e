"""JAX runs strict in every test: ranks never promote by themselves, seeds are fixed.

Compiling costs more than computing here. XLA therefore optimises nothing: it compiles a training step in a sixth of
the time, and the step then takes five times as long. Compiled programs are kept for both workers, for the
processes that tests start and for the next run; `pytest --cache-clear` throws them away.
"""

from __future__ import annotations

import gc
import os
from importlib.metadata import version
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "d" / "compiled"

FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):  # two thirds of the compiling; a later one ends at a flag that it has no more
    FAST_COMPILE += " --xla_cpu_use_fusion_emitters=false"

# read when JAX starts, here, in the workers and in the processes that tests start; what the caller has set stays
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two workers share a GPU
os.environ.setdefault("NPROC", "1")  # one thread to a worker: as many workers as cores run side by side
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILE}".strip()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

DEAREST = ("experiments", "devices")  # their files begin first, so that no worker is left with one at the end


def pytest_sessionstart(session):
    """Start the devices and the cache, so that no test changes them for those after it."""
    if not hasattr(session.config, "workerinput") and session.config.getoption("numprocesses", None):
        return  # the process that hands out tests runs none
    jax.jit(lambda x: x + 1)(1)  # opens the folder of compiled programs; a later call cannot name another


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.parent.name not in DEAREST)


@pytest.fixture(scope="module", autouse=True)
def let_go_of_programs():
    """A file's programs stay on the disk alone: kept in memory, those of all files are gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # the commands keep the slow ones alone


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
