"""Standard streams that are closed, full, without readers or of another alphabet; back ends that are not there."""

from __future__ import annotations

import io
import os
import sys

import jax
import pytest

from experiments import start, terminal
from experiments.errors import report_errors
from experiments.progress import Progress
from experiments.terminal import Lasting, is_lost, lasting_streams


def test_nothing_is_raised_where_nobody_reads(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with lasting_streams():
            print("one", flush=True)
            assert is_lost()
            print("two", flush=True)
        assert sys.stdout is stream
        print("three", flush=True)  # and nothing at the end of the process


def test_characters_of_another_alphabet_come_as_backslashes(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    with lasting_streams():
        print("gr\u00fcn \u2192")
    assert raw.getvalue() == b"gr\\xfcn \\u2192\n"
    assert not is_lost()


def test_missing_streams_are_there_and_missing_again(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_streams():
        with Progress("work", stream=None) as report:
            report(1, 1)
        assert report_errors(lambda: int("x"), "nothing") == 1
    assert sys.stderr is None


@pytest.mark.parametrize(("term", "drawn"), [("xterm", True), ("dumb", False), ("", True)])
def test_a_bar_is_drawn_on_terminals_that_can(monkeypatch, term, drawn):
    monkeypatch.setenv("TERM", term)
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    assert terminal.draws(Lasting(stream)) == drawn
    assert not terminal.draws(io.StringIO())


@pytest.mark.parametrize("raised", [RuntimeError("Unable to initialize backend 'x': no\nmore"), AssertionError()])
def test_a_missing_back_end_is_one_sentence(monkeypatch, capsys, raised):
    def fail():
        raise raised

    monkeypatch.setattr(jax, "default_backend", fail)
    assert report_errors(lambda: len(start.backend()), "nothing", failed=2) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: JAX_PLATFORMS=")
    assert "give cpu" in line
