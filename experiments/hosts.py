"""Several processes, on one machine or more, that run one command together: the flags, joining, and who may write."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TextIO

from experiments.peers import Peers, meet, split_address
from experiments.relay import relay

AUTO = "auto"
REMEDY = "give every process the same data"
_PEERS: list[Peers] = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hosts:
    """Run the command as one of several processes; without --coordinator it runs alone, whatever a cluster says."""

    coordinator: str | None = None
    """HOST:PORT of process 0, the same for every process, or auto: what SLURM (srun), Kubernetes or Open MPI say."""
    processes: int | None = None
    """Number of processes; none with auto."""
    process: int | None = None
    """Number of this process, from 0; process 0 alone writes and prints. None with auto."""


class Place(NamedTuple):
    """Where a process stands among the others."""

    address: str
    processes: int
    process: int
    accelerators: tuple[int, ...] | None
    """Those of its own, None for all of its machine."""


def join(flags: Hosts) -> None:
    """Become one of several processes, if the flags say so; call it before JAX starts.

    Raises ValueError for flags that contradict each other and as `peers.meet`.
    """
    place = place_of(flags)
    if place is None or place.processes == 1:
        return
    meeting = meet(place.address, place.processes, place.process)
    _PEERS.append(Peers(meeting, place.process))
    _keep_native_output_away()
    if place.process:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives
    from quantjax import hosts, parallel

    host = split_address(place.address)[0]
    near = f"127.0.0.1:{relay(host, meeting.port)}" if place.process else f"{_bracketed(host)}:{meeting.port}"
    hosts.connect(near, place.processes, place.process, place.accelerators)
    parallel.first_collectives()


def place_of(flags: Hosts) -> Place | None:
    """Where the flags put this process; None where they do not speak of others."""
    given = [name for name in ("processes", "process") if getattr(flags, name) is not None]
    if flags.coordinator is None:
        if given:
            raise ValueError(f"--{given[0]} needs --coordinator HOST:PORT, the address of process 0")
        return None
    if flags.coordinator == AUTO:
        if given:
            raise ValueError(f"--coordinator auto takes the numbers from the cluster: leave out --{given[0]}")
        return _from_cluster()
    split_address(flags.coordinator)
    if flags.processes is None or flags.process is None:
        raise ValueError(f"--coordinator {flags.coordinator} needs --processes N and --process I, 0 to N - 1")
    if not 0 <= flags.process < flags.processes:
        raise ValueError(f"--process must lie in 0 to {flags.processes - 1}, got {flags.process}")
    return Place(flags.coordinator, flags.processes, flags.process, None)


def _from_cluster() -> Place:
    from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize asks; it does not hand out the answer

    try:
        address, count, index, own = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 300)
    except RuntimeError as error:
        raise ValueError(f"--coordinator auto: {' '.join(str(error).split())}") from error
    if address is None or count is None or index is None:
        raise ValueError(
            "--coordinator auto finds no cluster (SLURM's srun, Kubernetes or Open MPI); give --coordinator HOST:PORT "
            "--processes N --process I"
        )
    return Place(address, count, index, None if own is None else tuple(own))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _keep_native_output_away() -> None:
    """Python prints on as before; what libraries write to file 1 themselves, gloo's greetings, is dropped."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def is_first() -> bool:
    """Whether this process writes and prints: process 0, or the only one."""
    return not _PEERS or _PEERS[0].index == 0


def progress_stream() -> TextIO:
    """Where progress goes."""
    return sys.stderr if is_first() else open(os.devnull, "w")


def give_up(text: str, status: int) -> int:
    """Tell the error `text`; of several processes every one ends here, a single one gets `status` back."""
    if _PEERS:
        _PEERS[0].fail(text, status)
    print(text, file=sys.stderr)
    return status


def wait_for_news() -> None:
    """Before an error is told that may come of the end of another process: if it does, this call does not return."""
    if _PEERS:
        _PEERS[0].wait_for_news()


def crash(error: BaseException) -> None:
    """End the run of several processes with the traceback of `error`; nothing for a single one, which raises it."""
    if _PEERS:
        wait_for_news()
        shown = "".join(traceback.format_exception(error))
        _PEERS[0].fail(shown, 1, reason=shown.strip().rsplit("\n", 1)[-1])


def part() -> None:
    """Wait for the other processes at the end of a run."""
    if _PEERS:
        import jax

        _PEERS[0].part()
        jax.distributed.shutdown()


def check_same(what: str, own: Mapping[str, Any], remedy: str) -> None:
    """Raise ValueError in a process whose JSON values `own` are not those of process 0."""
    if not _PEERS:
        return
    import numpy as np

    from quantjax import hosts

    told = hosts.from_first(lambda: {"json": np.frombuffer(json.dumps(own).encode(), np.uint8)})
    assert told is not None
    first, mine = json.loads(told["json"].tobytes()), json.loads(json.dumps(own))
    differ = [name for name in sorted({*first, *mine}) if first.get(name) != mine.get(name)]
    if differ:
        shown = "; ".join(f"{name}: {mine.get(name)!r} here, {first.get(name)!r} there" for name in differ[:5])
        raise ValueError(f"{what} of process {_PEERS[0].index} are not those of process 0 ({shown}); {remedy}")


class Share:
    """The rows of a source that this process reads: every n-th of n processes."""

    def __init__(self, source: Any, index: int, count: int):
        self.source, self.index, self.count = source, index, count

    def __len__(self) -> int:
        """Number of its rows."""
        return len(range(self.index, len(self.source), self.count))

    def __getitem__(self, row: Any) -> Any:
        """Row `row` of the share."""
        return self.source[range(self.index, len(self.source), self.count)[row]]


def load(read: Callable[[Any], tuple[Any, Any]], source: Any) -> tuple[Any, Any]:
    """read(source) -> (images, labels), where each process reads its share of the rows and all get all of them.

    A source that holds its images in memory already is read whole. Raises ValueError where processes have other images.
    """
    if not _PEERS:
        return read(source)
    from quantjax import hosts
    from quantjax.data import fingerprint

    check_same("the images", {"number": len(source)}, REMEDY)
    if hasattr(source, "images") or len(source) < _PEERS[0].count:
        images, labels = read(source)
        check_same("the images", {"fingerprint": fingerprint(images, labels)}, REMEDY)
        return images, labels
    images, labels = read(Share(source, _PEERS[0].index, _PEERS[0].count))
    return hosts.gather_rows(images, len(source)), hosts.gather_rows(labels, len(source))
