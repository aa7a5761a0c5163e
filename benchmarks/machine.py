"""The machine that a figure was measured on: device, processor, versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from quantjax.machine import cores

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch")


def versions() -> dict[str, str]:
    """Versions of Python and of those PACKAGES that this process has imported."""
    found = {name: sys.modules[name].__version__ for name in PACKAGES if hasattr(sys.modules.get(name), "__version__")}
    return {"python": platform.python_version(), **found}


def device() -> dict[str, str]:
    """Kind and platform of the first device."""
    import jax

    first = jax.devices()[0]
    return {"device": first.device_kind, "platform": first.platform}


def driver() -> dict[str, str]:
    """What nvidia-smi says of the card, where there is one."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm", "--format=csv"]
    said = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return {"nvidia_smi": "; ".join(said.stdout.split("\n")).strip("; ")}


def processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def keep_to(count: int) -> None:
    """Run this process, and those it starts, on `count` of its cores; ValueError where the system binds none."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    elif count != cores():
        raise ValueError(f"this system binds no process to {count} of its {cores()} cores; leave out --threads")


def load() -> float | None:
    """What the system's run queue was in the last minute, None where it tells no such number."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def machine(threads: int) -> dict[str, Any]:
    """What stands beside the rows of a result file; `threads` is how many cores the programs were given."""
    about = {"device": device()["device"], "cpu": processor(), "threads": threads, "load": load()}
    return about | versions()
