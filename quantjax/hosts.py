"""Several processes, on one host or more, as one run: how they meet, and what they tell each other.

Every process runs the same program on the same settings. What is read from disk, drawn from a clock or decided from
either must be the same in all of them, or they wait for each other for ever: it is asked of process 0 by `agreed` and
`from_first`. With one process all functions here hand back what they get.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

PART = 64 << 20  # bytes that processes send each other at once: they lie on the devices meanwhile
Arrays = dict[str, np.ndarray]


def connect(
    address: str | None = None,
    count: int | None = None,
    index: int | None = None,
    local_device_ids: Sequence[int] | None = None,
) -> None:
    """Join `count` processes into one training run; call it first of all, in every process.

    address is host:port of process 0, index this process's number, local_device_ids the accelerators of its own where
    several processes share a machine. All may stay None where the cluster tells JAX (SLURM, TPU pods, Open MPI). On
    CPUs the processes talk over gloo. Raises ValueError when the processes have different numbers of devices.
    """
    with contextlib.suppress(AttributeError):  # an option of the CPU back end, chosen by itself in newer JAX
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    with contextlib.suppress(AttributeError):  # it catches SIGTERM, so that a process would not end when told to
        jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(address, count, index, local_device_ids=local_device_ids)
    own, everywhere = jax.local_device_count(), jax.device_count()
    if own * jax.process_count() != everywhere:
        raise ValueError(
            f"every process must have the same number of devices, process {jax.process_index()} has {own} of "
            f"{everywhere} in {jax.process_count()} processes; give each as many (CUDA_VISIBLE_DEVICES)"
        )


def agreed(decision: bool) -> bool:
    """The decision of process 0 in every process: clocks differ, and all must do the same."""
    if jax.process_count() == 1:
        return decision
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(decision)))


def from_first(read: Callable[[], Arrays | None]) -> Arrays | None:
    """read() of process 0, named arrays or None, in every process: the files of a run are those that process 0 sees.

    The others do not call read. An error that it raises is process 0's alone.
    """
    if jax.process_count() == 1:
        return read()
    found = read() if jax.process_index() == 0 else None
    arrays = {name: np.asarray(array, order="C") for name, array in (found or {}).items()}
    about = {name: [array.dtype.name, array.shape] for name, array in arrays.items()}
    about = json.loads(_sent(json.dumps(None if found is None else about).encode()))
    if about is None:
        return None
    data = _sent(b"".join(array.tobytes() for array in arrays.values()))
    result, start = {}, 0
    for name, (kind, shape) in about.items():
        dtype, count = jnp.dtype(kind), math.prod(shape)
        result[name] = np.frombuffer(data, dtype, count, start).reshape(shape).copy()
        start += count * dtype.itemsize
    return result


def _sent(data: bytes) -> bytes:
    """The bytes of process 0, in parts that fit beside everything else on a device."""
    from jax.experimental import multihost_utils

    [parts, last] = multihost_utils.broadcast_one_to_all(np.asarray(divmod(len(data), PART), np.int32)).tolist()
    own, received = np.frombuffer(data, np.uint8), []
    for start, size in [*((i * PART, PART) for i in range(parts)), (parts * PART, last)]:
        part = own[start : start + size] if jax.process_index() == 0 else np.zeros(size, np.uint8)
        received.append(multihost_utils.broadcast_one_to_all(part).tobytes())
    return b"".join(received)


def gather_rows(rows: np.ndarray, total: int) -> np.ndarray:
    """All `total` rows from processes of which number i of n holds rows i, i + n, i + 2n, ... in that order."""
    count = jax.process_count()
    if count == 1:
        return rows
    from jax.experimental import multihost_utils

    longest = -(-total // count)
    own = np.pad(rows, [(0, longest - len(rows)), *[(0, 0)] * (rows.ndim - 1)])
    every = max(PART // max(own[:1].nbytes * count, 1), 1)
    parts = [multihost_utils.process_allgather(own[i : i + every]) for i in range(0, longest, every)]
    joined = np.concatenate(parts, axis=1)  # [n, longest, ...]
    return np.swapaxes(joined, 0, 1).reshape(-1, *rows.shape[1:])[:total]
