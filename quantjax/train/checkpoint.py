"""Save and restore a training run with Orbax: parameters, model and optimiser state, step count and random key.

A checkpoint is one folder, named by the number of finished epochs (of steps, where the data are a stream), that
appears whole or not at all: a kill while saving leaves the ones before it untouched. Of several processes, all of which
hold the whole state, process 0 alone writes and reads it: the folder need not be one that the others see.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import hosts, trees
from quantjax.atomic import naming
from quantjax.train.plain_path import plain_path
from quantjax.train.step import TrainState
from quantjax.types import Array

UNFINISHED = ".orbax-checkpoint-tmp"  # behind the name of what is being written


def latest(directory: str | Path) -> int | None:
    """Return the number of finished epochs of the newest checkpoint in `directory`, None if there is none."""
    directory = Path(directory).resolve()
    if not directory.is_dir():
        return None
    with _manager(directory) as manager:
        return manager.latest_step()


def save(directory: str | Path, state: TrainState, epoch: int, key: Array, *, keep: int = 2) -> Path:
    """Write the checkpoint after `epoch` finished epochs, drop all but the newest `keep`, return its folder.

    key is the run's typed random key; its bits and the name of its generator are stored. Raises ValueError when
    `directory` already holds a checkpoint of that epoch or a later one, OSError when it cannot be written.
    """
    directory = Path(directory).resolve()
    if jax.process_index():
        return directory / str(epoch)
    leaves = {name: leaf for name, leaf in _named(state).items() if leaf.size}
    about = {
        "epoch": epoch,
        "sha256": trees.digest(leaves),
        "shapes": {name: [list(leaf.shape), leaf.dtype.name] for name, leaf in _named(state).items()},
        "key": {"implementation": str(jax.random.key_impl(key)), "data": np.asarray(jax.random.key_data(key)).tolist()},
    }
    try:
        with naming(directory / str(epoch)):
            _to_the_end(lambda: _write(directory, epoch, leaves, about, keep))
    except OSError:
        shutil.rmtree(directory / f"{epoch}{UNFINISHED}", ignore_errors=True)  # room for what tells of it
        raise
    return directory / str(epoch)


def _write(directory: Path, epoch: int, leaves: dict[str, np.ndarray], about: dict[str, Any], keep: int) -> None:
    import orbax.checkpoint as ocp

    with _manager(directory, keep) as manager:
        newest = manager.latest_step()
        if newest is not None and newest >= epoch:
            raise ValueError(f"{directory} already holds epoch {newest}, cannot save epoch {epoch}; resume or clear it")
        manager.save(
            epoch, args=ocp.args.Composite(state=ocp.args.StandardSave(leaves), about=ocp.args.JsonSave(about))
        )


def _to_the_end(write: Callable[[], None]) -> None:
    """Call `write` where Ctrl-C does not reach it: a writer that is stopped halfway leaves threads that crash at exit.

    The interrupt is raised here as soon as it has ended.
    """
    with ThreadPoolExecutor(1, "checkpoint") as pool:
        pool.submit(write).result()


def restore(directory: str | Path, template: TrainState) -> tuple[TrainState, int, Array] | None:
    """Return (state of NumPy arrays, finished epochs, key) of the newest checkpoint, None if there is none.

    template gives the structure, shapes and dtypes to expect. A damaged checkpoint is an error, never skipped for an
    older one: going back is the user's choice, made by deleting the folder that the message names. Raises ValueError
    for a damaged checkpoint and for one of another model or optimiser.
    """
    import orbax.checkpoint as ocp

    directory = Path(directory).resolve()
    epoch = latest(directory)
    if epoch is None:
        return None
    folder = directory / str(epoch)
    _check_no_empty_file(folder)
    expected = _named(template)
    try:
        with _manager(directory) as manager:
            about = manager.restore(epoch, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about
            _check_shapes(folder, expected, about["shapes"])
            blank = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in expected.items() if leaf.size}
            leaves = manager.restore(epoch, args=ocp.args.Composite(state=ocp.args.StandardRestore(blank))).state
        # Orbax sees no flipped bit in what it stores uncompressed; checkpoints of version 0.1 have no digest
        if about.get("sha256", trees.digest(leaves)) != trees.digest(leaves):
            raise ValueError("its arrays are not those that were saved")
        stored = about["key"]
        key = jax.random.wrap_key_data(jnp.asarray(stored["data"], jnp.uint32), impl=stored["implementation"])
        done = int(about["epoch"])
    except _Mismatch as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # Orbax, its JSON reader and its array store raise many kinds
        raise ValueError(f"checkpoint {folder} is damaged ({_first_line(error)}); {_way_out(folder)}") from error
    leaves |= {name: leaf for name, leaf in expected.items() if not leaf.size}
    state = jax.tree.unflatten(jax.tree.structure(template), [leaves[name] for name in expected])
    return state, done, key


def starting_point(
    state: TrainState, key: Array, checkpoints: str | Path | None, resume: bool
) -> tuple[TrainState, int]:
    """(state, finished epochs or steps) to begin with: the newest checkpoint's when a run is resumed, else `state`, 0.

    Several processes begin with what process 0 finds. Raises ValueError when the folder holds checkpoints and resume is
    False, or when they are damaged, of another model or of another key.
    """
    if jax.process_count() == 1:
        return _starting_point(state, key, checkpoints, resume)

    def read() -> dict[str, np.ndarray]:
        found, done = _starting_point(state, key, checkpoints, resume)
        return {"done": np.asarray(done), **{str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(found))}}

    told = hosts.from_first(read)
    assert told is not None
    done = int(told.pop("done"))
    return jax.tree.unflatten(jax.tree.structure(state), list(told.values())), done


def _starting_point(
    state: TrainState, key: Array, checkpoints: str | Path | None, resume: bool
) -> tuple[TrainState, int]:
    if checkpoints is None:
        return state, 0
    if not resume:
        found = latest(checkpoints)
        if found is not None:
            raise ValueError(f"{checkpoints} holds a run that got to {found}; resume it, or start in an empty folder")
        return state, 0
    restored = restore(checkpoints, state)
    if restored is None:
        return state, 0
    state, done, stored = restored
    same = str(jax.random.key_impl(stored)) == str(jax.random.key_impl(key))
    if not (same and np.array_equal(jax.random.key_data(stored), jax.random.key_data(key))):
        raise ValueError(f"{checkpoints} holds a run with another random key; use the seed and generator it began with")
    return state, done


class _Mismatch(Exception):
    """A checkpoint that is whole, but of something else."""


@contextmanager
def _manager(directory: Path, keep: int | None = None) -> Iterator[Any]:
    import orbax.checkpoint as ocp

    directory.mkdir(parents=True, exist_ok=True)  # not Orbax's to do where one process of several writes
    alone = None
    if jax.process_count() > 1:
        alone = ocp.options.MultiprocessingOptions(0, {0}, "alone")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=False, enable_async_checkpointing=False,
        **({} if alone is None else {"multiprocessing_options": alone}),
    )  # fmt: skip
    with plain_path(directory) as place, ocp.CheckpointManager(place, options=options) as manager:
        yield manager


def _named(state: TrainState) -> dict[str, np.ndarray]:
    """Leaves under readable names; the order is that of jax.tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def _check_no_empty_file(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size == 0:
            raise ValueError(f"checkpoint file {path} is empty; {_way_out(folder)}")


def _way_out(folder: Path) -> str:
    older = sorted((int(p.name) for p in folder.parent.iterdir() if p.name.isdigit() and p != folder), reverse=True)
    back = f"to go on from epoch {older[0]}" if older else "to start from the first epoch, as there is no older one"
    return f"delete the folder {folder} {back}, or start the run afresh (--overwrite)"


def _check_shapes(folder: Path, expected: dict[str, np.ndarray], stored: dict[str, list[Any]]) -> None:
    wanted = {name: [list(leaf.shape), leaf.dtype.name] for name, leaf in expected.items()}
    different = [name for name in {**wanted, **stored} if wanted.get(name) != stored.get(name)]
    if different:
        name = different[0]
        raise _Mismatch(
            f"checkpoint {folder} is of another model or optimiser: {len(different)} arrays differ, the first is "
            f"{name}, wanted {_described(wanted.get(name))}, stored {_described(stored.get(name))}; "
            "use the settings it was made with, or start the run afresh (--overwrite)"
        )


def _described(entry: list[Any] | None) -> str:
    return "none" if entry is None else f"{entry[1]} {entry[0]}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
