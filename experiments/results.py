"""What every run concludes with: settings, versions and machine beside its numbers, and what it shows at the end."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
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
    """Print the results of a run that is finished, and what to do with them; process 0 alone."""
    if not is_first():
        return
    print((folder / "results.md").read_text(encoding="utf-8"))
    if finished_before:
        print(f"finished before: {folder} (add --overwrite to run it again)")
    else:
        print(f"{time.perf_counter() - start:.0f} s; results.json, results.md, report.html and detector/ in {folder}")
    file = folder / "results.json"
    try:
        lines = verdict(json.loads(file.read_text(encoding="utf-8")), folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is damaged ({type(error).__name__}: {error}): add --overwrite to run it again"
        ) from None
    print("\n".join(lines))


def verdict(results: Mapping[str, Any], folder: Path) -> tuple[str, str, str]:
    """Three lines: what a run found, the file to open, the next command; short but for the folder's name."""
    near = shlex.quote(str(_near(folder)))
    photo = "photo.png" if results["positive_class"] == "inlier" else "scene.png"
    return (
        f"found: {_found(results)}",
        f"open:  {near}/report.html",
        f"next:  python -m experiments.predict --run {near} {photo}",
    )


def _found(results: Mapping[str, Any]) -> str:
    """The detector's rates, averaged over the sets, and what its threshold keeps."""
    of_images = results["positive_class"] == "inlier"
    chosen, variant = results["config"].get("detector"), results["config"].get("variant")
    rows = [row for row in results["rows"] if row["method"] == chosen and row.get("variant") == variant]
    kept = (results.get("calibration") or {}).get("achieved_tpr")
    parts = [] if kept is None else [f"keeps {kept:.1f} % of {'inliers' if of_images else 'known pixels'}"]
    if rows:
        keys = (("auroc", "AUROC"), ("fpr95", "FPR95")) if of_images else (("ap", "AP"), ("fpr95", "FPR95"))
        means = [f"{name} {sum(row[key] for row in rows) / len(rows):.1f}" for key, name in keys]
        parts = [f"{' / '.join(means)} % on {len(rows)} set{'' if len(rows) == 1 else 's'}", *parts]
    return ": ".join(filter(None, (chosen, "; ".join(parts) or "nothing was evaluated")))


def _near(folder: Path) -> Path:
    """The folder as seen from the current one, where it lies below it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


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
