"""Sockets that lead to process 0: a port to meet at, and a way for JAX that outlives the process at its end."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


def relay(host: str, port: int) -> int:
    """A port of this machine that leads to host:port, and stays open when the other end closes."""
    server = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket, close: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        if close:
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            near = server.accept()[0]
            try:
                far = socket.create_connection((host, port), timeout=10.0)
            except OSError:
                near.close()  # not there yet: the caller tries again
                continue
            far.settimeout(None)
            for source, target, close in ((near, far, True), (far, near, False)):
                threading.Thread(target=copy, args=(source, target, close), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; host "" is every address of this machine."""
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server((host, port))


def free_port() -> int:
    """A port that nobody listens at now."""
    with listen("", 0) as probe:
        return int(probe.getsockname()[1])
