"""What every run concludes with: settings, versions and machine beside its numbers, and what it shows at the end."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.hosts import is_first
from quantjax import parallel


def of_run(config: Any, shown: Mapping[str, Any], note: str, start: float) -> dict[str, Any]:
    """The keys that results.json of every command has: `shown` are the settings, `start` the clock at the start."""
    return {
        "inlier": config.inlier,
        "config": shown,
        "versions": versions(),
        "device": parallel.device_summary(),
        "seed": config.seed,
        "seconds": time.perf_counter() - start,
        "note": note,
    }


def show(folder: Path, start: float, *, finished_before: bool) -> None:
    """Print the results of a run that is finished, and where its files are; process 0 alone."""
    if not is_first():
        return
    print((folder / "results.md").read_text(encoding="utf-8"))
    if finished_before:
        print(f"finished before: {folder} (add --overwrite to run it again)")
        return
    print(f"{time.perf_counter() - start:.0f} s; results.json, results.md, report.html and detector/ in {folder}")


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    packages = ("quantjax", "jax", "jaxlib", "flax", "optax", "numpy")
    found = {name: _version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return getattr(__import__(package), "__version__", "unknown")
