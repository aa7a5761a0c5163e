"""A run's folder: where it lives, whether it may start, go on or is finished already.

Looking (`find_run`) and changing (`begin_run`) are apart: a folder is made, or an old one deleted, only once the data
and weights of the new run have been read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.hosts import is_first
from experiments.run_log import check_tensorboard
from quantjax.report import write_json

FINISHED = "results.json"
CONFIG = "config.json"
_HELD: list[Any] = []


class Opened(NamedTuple):
    """A run's folder."""

    folder: Path
    finished: bool
    """Whether its results are there already."""


def open_run(config: Any, name: str, identity: Mapping[str, Any]) -> Opened:
    """The folder of the run that the settings `config` name, and whether it was finished before.

    Unless it was, the folder belongs to this process alone until `release`. Raises as `find_run`, ValueError when
    another process has it, and ImportError when the settings ask for events that cannot be written.
    """
    from quantjax.hosts import agreed

    if not is_first():  # process 0 looks, and tells whether there is anything to do
        return Opened((config.workdir / name).expanduser().absolute(), agreed(True))
    folder, finished = find_run(config.workdir, name, identity, resume=config.resume, overwrite=config.overwrite)
    if not finished:
        hold(folder)
    if not agreed(finished) and config.tensorboard:
        check_tensorboard()
    return Opened(folder, finished)


def hold(folder: Path) -> None:
    """Keep other processes out of `folder`; the operating system lets go of it when this process ends, however."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{folder} is in use: another process runs these settings there; wait for it or stop it, or choose "
            "another --run name"
        ) from None
    _HELD.append(lock)


def release() -> None:
    """Let other processes have what this one holds."""
    while _HELD:
        _HELD.pop().release()


def find_run(
    workdir: Path, name: str, identity: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> tuple[Path, bool]:
    """(folder, finished) of a run; nothing is written or deleted.

    Raises ValueError when the folder belongs to other settings or is no run's folder, when it holds an unfinished run
    and neither resume nor overwrite is given, and when the workdir cannot be written.
    """
    folder = (workdir / name).expanduser().absolute()
    if resume and overwrite:
        raise ValueError("--resume and --overwrite contradict each other: give one of them")
    _check_writable(folder.parent)
    if not folder.exists() or not any(folder.iterdir()):
        return folder, False
    stored = _stored_identity(folder)
    if overwrite:
        return folder, False
    differ = [k for k in sorted({*stored, *identity}) if stored.get(k) != identity.get(k)]
    if differ:
        shown = "; ".join(f"{k}: there {stored.get(k)!r}, given {identity.get(k)!r}" for k in differ[:5])
        raise ValueError(f"{folder} holds a run of another configuration ({shown}): choose another --run name")
    if not (folder / FINISHED).exists() and not resume:
        raise ValueError(
            f"{folder} holds an unfinished run of these settings: add --resume to continue it or --overwrite to restart"
        )
    return folder, (folder / FINISHED).exists()


def begin_run(
    folder: Path, settings: Mapping[str, Any], identity: Mapping[str, Any], data: str, *, overwrite: bool
) -> None:
    """Make the folder of a new run, in place of an old one with overwrite; check that a resumed one has the same data.

    `data` is a fingerprint of the training images. Raises ValueError when it is not that of the run to be resumed.
    """
    if not is_first():
        return
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    if not (folder / CONFIG).exists():
        write_json(folder / CONFIG, {"settings": dict(settings), "identity": dict(identity), "data": data})
        return
    stored = json.loads((folder / CONFIG).read_text()).get("data")
    if stored != data:
        raise ValueError(
            f"{folder} was begun with other training images (fingerprint {stored}, now {data}): "
            "give the --data-dir it began with, or --overwrite to restart"
        )


def _stored_identity(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))["identity"]
        return dict(stored.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{folder} is not a run's folder ({CONFIG} is missing or damaged: {error}): choose another --run name"
        ) from error


def _check_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise ValueError(f"--workdir must be writable, cannot write {workdir}: {error.strerror or error}") from error
