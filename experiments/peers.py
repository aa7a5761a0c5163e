"""The processes of one run meet, and each learns at once when another ends.

JAX alone tells it late or badly: a collective on CPUs waits for a killed process until its heartbeats have been missing
for 100 s, and all others abort, past Python, the moment that process 0 is gone. So every process keeps a connection to
process 0 that the operating system closes whatever ends it, and JAX reaches process 0 through a relay of its own that
stays open when process 0 does not.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from experiments.relay import free_port, listen

MEETING_SECONDS = 300.0  # how long processes wait for each other at the start
NEWS_SECONDS = 5.0  # within which the end of a killed process is known
IDLE, INTERVAL, PROBES = 10, 5, 3  # seconds and number of TCP's questions whether a silent machine is still there


class Link:
    """A connection that carries one JSON object a line."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", IDLE), ("TCP_KEEPINTVL", INTERVAL), ("TCP_KEEPCNT", PROBES)):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self.connection, self._lines = connection, connection.makefile("rb")

    def send(self, **message: Any) -> None:
        """Send one message; a peer that is gone is noticed by reading."""
        with suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next message, None when the other side has ended or does not speak this language."""
        try:
            message = json.loads(self._lines.readline(1 << 20) or b"null")
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None


class Meeting(NamedTuple):
    """What the processes tell each other before JAX starts."""

    links: dict[int, Link]
    """In process 0 one to every other process, in those the one to process 0."""
    names: list[str]
    """[count] names of the processes' machines."""
    port: int
    """Of JAX's own service in process 0."""


def meet(address: str, count: int, index: int, seconds: float = MEETING_SECONDS) -> Meeting:
    """Wait until all `count` processes have come to `address`, host:port of process 0.

    Raises ValueError when a number is given twice or another count, TimeoutError when a process does not come, OSError
    when the port is taken.
    """
    host, port = split_address(address)
    if index:
        return _join(host, port, count, index, seconds)
    return _wait_for_all(host, port, count, seconds)


def split_address(address: str) -> tuple[str, int]:
    """(host, port); raises ValueError unless `address` is HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"--coordinator must be HOST:PORT of process 0, or auto, got {address!r}")
    return host.strip("[]"), int(port)


def _wait_for_all(host: str, port: int, count: int, seconds: float) -> Meeting:
    links: dict[int, Link] = {}
    names = [socket.gethostname()] * count
    until = time.monotonic() + seconds
    try:
        server = listen("", port)
    except OSError as error:
        raise OSError(
            f"--coordinator {host}:{port}: cannot listen there ({error.strerror}); give another port"
        ) from error
    with server:
        while len(links) < count - 1:
            server.settimeout(max(until - time.monotonic(), 0.01))
            try:
                link = Link(server.accept()[0])
            except TimeoutError:
                missing = [str(i) for i in range(1, count) if i not in links]
                raise TimeoutError(
                    f"process {', '.join(missing)} of {count} did not come to {host}:{port} within {seconds:.0f} s; "
                    f"start all {count} processes, --process 0 to {count - 1}, and let them reach that port"
                ) from None
            link.connection.settimeout(10.0)
            hello = link.receive()
            link.connection.settimeout(None)
            if hello is None or not isinstance(hello.get("process"), int):
                continue  # somebody else's connection
            wrong = _wrong(hello, count, links)
            if wrong:
                for one in (link, *links.values()):
                    one.send(error=wrong)
                raise ValueError(wrong)
            links[hello["process"]], names[hello["process"]] = link, str(hello.get("name"))
    free = free_port()
    for link in links.values():
        link.send(names=names, port=free)
    return Meeting(links, names, free)


def _wrong(hello: dict[str, Any], count: int, links: dict[int, Link]) -> str:
    given, processes = hello["process"], hello.get("processes")
    if processes != count:
        return f"every process must be given the same --processes, process 0 has {count}, process {given} {processes}"
    if given not in range(1, count) or given in links:
        return f"every process must have a --process of its own, 0 to {count - 1}; {given} came twice"
    return ""


def _join(host: str, port: int, count: int, index: int, seconds: float) -> Meeting:
    until = time.monotonic() + seconds
    while True:
        try:
            link = Link(socket.create_connection((host, port), timeout=10.0))
            break
        except OSError as error:
            if time.monotonic() > until:
                raise TimeoutError(
                    f"no process 0 at {host}:{port} for {seconds:.0f} s ({error.strerror or error}); start it, and "
                    "give every process the same --coordinator"
                ) from error
            time.sleep(0.2)
    link.send(process=index, processes=count, name=socket.gethostname())
    link.connection.settimeout(max(until - time.monotonic(), 10.0))
    told = link.receive()
    link.connection.settimeout(None)
    if told is None or "error" in told:
        raise ValueError((told or {}).get("error") or f"process 0 at {host}:{port} ended before all processes had come")
    return Meeting({0: link}, told["names"], told["port"])


class Peers:
    """The other processes of the run, watched from the meeting on until `part`."""

    def __init__(self, meeting: Meeting, index: int):
        self.links, self.names, self.index, self.count = meeting.links, meeting.names, index, len(meeting.names)
        self._said = threading.Lock()  # taken for good by whoever tells the one error
        self._done = {peer: threading.Event() for peer in self.links}
        for peer in self.links:
            threading.Thread(target=self._watch, args=(peer,), daemon=True).start()

    def _watch(self, peer: int) -> None:
        while True:
            message = self.links[peer].receive()
            if message is None:
                if not self._done[peer].is_set():
                    self._lost(peer, None)
                return
            if "done" in message:
                self._done[peer].set()
            elif "ended" in message:
                self._lost(int(message.get("process", peer)), message["ended"])

    def _lost(self, peer: int, reason: str | None) -> NoReturn:
        self._said.acquire()
        self._tell_others(peer, reason)
        why = reason or "it was killed, or its machine cannot be reached"
        print(
            f"error: process {peer} of {self.count}, on {self.names[peer]}, has ended ({why}); start all {self.count} "
            "processes again with --resume, which goes on from the last checkpoint",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        _end(1)

    def _tell_others(self, peer: int, reason: str | None) -> None:
        for other, link in self.links.items():
            if other != peer:
                link.send(process=peer, ended=reason or "it was killed, or its machine cannot be reached")

    def fail(self, text: str, status: int, reason: str | None = None) -> NoReturn:
        """End this process with the error `text`, and with it the run; the others tell its first line, or `reason`."""
        self._said.acquire()
        self._tell_others(self.index, (reason or text.strip().removeprefix("error: ").split("\n")[0])[:500])
        print(text, file=sys.stderr, flush=True)
        _end(status)

    def wait_for_news(self) -> None:
        """Give the watch time to end this process: an error here may come of the end of another one."""
        time.sleep(NEWS_SECONDS)

    def part(self) -> None:
        """Wait until all processes have finished; from then on none misses the others."""
        for link in self.links.values():
            link.send(done=True)
        for done in self._done.values():
            done.wait()


def _end(status: int) -> NoReturn:
    """End this process and those it started; at a usual exit JAX would wait for the others."""
    with suppress(Exception):
        sys.stdout.flush()
        for child in multiprocessing.active_children():
            child.kill()
    os._exit(status)
