"""A run's folder: where it lives, whether it may start, go on or is finished already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantjax.report import write_json

FINISHED = "results.json"


def open_run(
    workdir: Path, name: str, settings: Mapping[str, Any], identity: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> tuple[Path, bool]:
    """(folder, finished) of a run; a new folder gets its config.json.

    Raises ValueError when the folder belongs to other settings, or holds an unfinished run and neither resume nor
    overwrite is given; OSError text names a workdir that cannot be written.
    """
    folder = (workdir / name).expanduser().absolute()
    if resume and overwrite:
        raise ValueError("--resume and --overwrite contradict each other: give one of them")
    if overwrite and folder.exists():
        _check_is_run(folder)
        shutil.rmtree(folder)
    if folder.exists() and any(folder.iterdir()):
        _check_same_settings(folder, identity)
        if (folder / FINISHED).exists():
            return folder, True
        if not resume:
            raise ValueError(
                f"{folder} holds an unfinished run of these settings: "
                "add --resume to continue it or --overwrite to restart"
            )
        return folder, False
    _make_writable(folder)
    write_json(folder / "config.json", {"settings": dict(settings), "identity": dict(identity)})
    return folder, False


def _check_is_run(folder: Path) -> None:
    if any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise ValueError(f"--overwrite refuses to delete {folder}: it has no config.json, so it is not a run's folder")


def _check_same_settings(folder: Path, identity: Mapping[str, Any]) -> None:
    file = folder / "config.json"
    try:
        stored = json.loads(file.read_text())["identity"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} is not a readable run folder ({file.name}: {error}): choose another --run"
        ) from error
    differ = [k for k in sorted({*stored, *identity}) if stored.get(k) != identity.get(k)]
    if differ:
        shown = "; ".join(f"{k}: there {stored.get(k)!r}, given {identity.get(k)!r}" for k in differ[:5])
        raise ValueError(
            f"--run {folder.name} holds a run of another configuration ({shown}): choose another --run name"
        )


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"--workdir must be writable, cannot write {folder}: {error.strerror or error}") from error
