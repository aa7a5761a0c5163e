"""How a run begins: the devices of the machine, and the folder that is its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from experiments import hosts, run_folder
from experiments.hosts import Hosts
from experiments.run_folder import Opened
from quantjax import parallel


def open_devices(flags: Hosts) -> bool:
    """Make the cores of a CPU devices, unless XLA_FLAGS says how many there are; whether there is an accelerator.

    Where the flags say so, this process joins others first. Raises as `hosts.join`.
    """
    if "device_count" not in os.environ.get("XLA_FLAGS", ""):
        parallel.cores_as_devices()
    hosts.join(flags)
    return backend() != "cpu"


def backend() -> str:
    """Start JAX; the kind of its devices, "cpu", say.

    Raises ValueError where it finds none: of a plug-in that is not installed JAX 0.10 asserts something, or raises.
    """
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        asked = jax.config.jax_platforms  # type: ignore[attr-defined]
        reason = str(error).partition("\n")[0] or "its plug-in is not installed"
        raise ValueError(
            f"JAX_PLATFORMS={asked or ''} finds no device ({reason}): correct it, leave it out, or give cpu"
        ) from error


def open_run(config: Any, name: str, identity: Mapping[str, Any], note: str) -> Opened:
    """The folder of the run that these settings name, and whether it was finished before.

    From here on products have the settings' precision, and compiled programs are kept beside the runs. Raises as
    `run_folder.open_run`, and ValueError in a process that was started with other settings than process 0.
    """
    hosts.check_same("the settings", identity, "give every process the same flags")
    if config.precision != "tensorfloat32":
        jax.config.update("jax_default_matmul_precision", "highest")
    opened = run_folder.open_run(config, name, identity)
    if not opened.finished:
        parallel.enable_compilation_cache(cache_of(opened.folder) / "compiled")
        print(f"run {opened.folder}\n{note}", flush=True)
    return opened


def cache_of(folder: Path) -> Path:
    """What the runs of one --workdir share: features and compiled programs."""
    return folder.parent / "cache"
