"""How many cores there are, on every system."""

import os

import pytest

from benchmarks.machine import keep_to
from quantjax.machine import cores


def test_cores_are_those_of_the_process_where_the_system_says_so(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert cores() == 3


@pytest.mark.parametrize(("counted", "expected"), [(8, 8), (None, 1)])
def test_elsewhere_they_are_those_of_the_machine(monkeypatch, counted, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert cores() == expected


def test_a_system_that_binds_no_process_measures_on_all_cores_alone(monkeypatch):
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    keep_to(4)
    with pytest.raises(ValueError, match="binds no process to 2 of its 4 cores; leave out --threads"):
        keep_to(2)
