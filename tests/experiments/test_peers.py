"""Processes meet and learn of each other's end; here they are threads of one process, joined by sockets."""

from __future__ import annotations

import socket
import threading

import pytest

from experiments import peers
from experiments.peers import Link, Peers, meet
from experiments.relay import relay

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def at_once(*calls):
    """What the calls return, or the exceptions that they raise, each made in a thread of its own."""
    found = [None] * len(calls)

    def run(i):
        try:
            found[i] = calls[i]()
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    return found


def met(count=3):
    address = free_address()
    return at_once(*(lambda i=i: meet(address, count, i, 10.0) for i in range(count)))


@pytest.fixture
def ended(monkeypatch):
    """(event, statuses): the end of a process is noted instead of happening."""
    event, statuses = threading.Event(), []

    def end(status):
        statuses.append(status)
        if len(statuses) == 2:
            event.set()
        raise SystemExit

    monkeypatch.setattr(peers, "_end", end)
    return event, statuses


def test_all_know_all_and_where_jax_will_listen():
    first, *others = met()
    assert sorted(first.links) == [1, 2]
    assert first.names == [socket.gethostname()] * 3
    assert {(other.port, len(other.names), *other.links) for other in others} == {(first.port, 3, 0)}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([(2, 0), (3, 1)], "must be given the same --processes, process 0 has 2, process 1 3"),
        ([(3, 0), (3, 1), (3, 1)], "must have a --process of its own, 0 to 2; 1 came twice"),
    ],
)
def test_numbers_that_do_not_fit_are_an_error_of_all(numbers, message):
    address = free_address()
    for found in at_once(*(lambda c=count, i=index: meet(address, c, i, 10.0) for count, index in numbers)):
        assert isinstance(found, ValueError)
        assert message in str(found)


@pytest.mark.parametrize(
    ("index", "message"), [(0, "process 1 of 2 did not come to 127.0.0.1"), (1, "no process 0 at 127.0.0.1")]
)
def test_a_process_that_does_not_come_is_named(index, message):
    with pytest.raises(TimeoutError, match=message):
        meet(free_address(), 2, index, 0.3)


def test_a_taken_port_is_an_error_and_strangers_are_passed_over():
    with socket.create_server(("", 0)) as taken, pytest.raises(OSError, match="give another port"):
        meet(f"127.0.0.1:{taken.getsockname()[1]}", 2, 0, 0.3)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_connection_that_breaks_ends_the_others_with_one_error(killed, ended, capsys):
    event, statuses = ended
    meetings = met()
    watched = [Peers(meeting, i) for i, meeting in enumerate(meetings) if i != killed]
    for link in meetings[killed].links.values():
        link.connection.shutdown(socket.SHUT_RDWR)  # as the operating system does for a killed process
    assert event.wait(10.0)
    assert statuses == [1, 1]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == len(watched) == 2
    for error in errors:
        assert error.startswith(f"error: process {killed} of 3, on {socket.gethostname()}, has ended (it was killed")
        assert "--resume" in error


def test_an_error_is_told_by_all(ended, capsys):
    event, statuses = ended
    first, second = met(2)
    one, _ = Peers(first, 0), Peers(second, 1)
    with pytest.raises(SystemExit):
        one.fail("error: --blocks must be at least 1", 1)
    assert event.wait(10.0)
    assert statuses == [1, 1]
    assert "error: --blocks must be at least 1\n" in capsys.readouterr().err


def test_processes_that_part_do_not_miss_each_other(ended):
    event, statuses = ended
    watched = [Peers(meeting, i) for i, meeting in enumerate(met(2))]
    assert at_once(*(one.part for one in watched)) == [None, None]
    watched[0].links[1].connection.shutdown(socket.SHUT_RDWR)
    assert not event.wait(0.2)
    assert statuses == []


def test_a_relay_carries_both_ways_and_stays_open_when_the_far_end_closes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = Link(socket.create_connection(("127.0.0.1", relay(*server.getsockname()))))
        far = Link(server.accept()[0])
        near.send(question=1)
        assert far.receive() == {"question": 1}
        far.send(answer=2)
        assert near.receive() == {"answer": 2}
        far.connection.shutdown(socket.SHUT_RDWR)
        near.connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            near.connection.recv(1)
