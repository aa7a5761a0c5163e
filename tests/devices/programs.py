"""Programs that need several devices run in processes of their own; here is how, and how their results are paired."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def start(program: str, *arguments: str, flags: str = "") -> subprocess.Popen[str]:
    """Run `program`, a file beside this one, in a process of its own on the CPU."""
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parents[1])
    }  # fmt: skip
    command = [sys.executable, str(HERE / program), *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HERE.parents[1]
    )


def finish(*processes: subprocess.Popen[str]) -> None:
    """Wait for all of them; what they printed is shown when one fails."""
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)


def on_four_devices(program: str, path: Path) -> dict[str, np.ndarray]:
    """What `program` writes to `path`, an .npz, when it has four CPU devices."""
    finish(start(program, str(path), flags="--xla_force_host_platform_device_count=4"))
    with np.load(path) as file:
        return dict(file)


def pairs(results: dict[str, np.ndarray], prefix: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, on one device, on four) of all results whose name begins with `prefix`."""
    names = [name.removesuffix("|one") for name in results if name.startswith(prefix) and name.endswith("|one")]
    assert names
    return [(name, results[f"{name}|one"], results[f"{name}|four"]) for name in names]
