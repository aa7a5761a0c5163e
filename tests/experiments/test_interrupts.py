"""Ctrl-C and SIGTERM in a process of its own: one line, the status of the signal, whatever the process is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, time
from experiments import interrupts
from experiments.errors import report_errors
interrupts.GRACE = 0.3
def run():
    print("ready", flush=True)
    {body}
sys.exit(report_errors(run, "nothing"))
"""
SLEEP = "time.sleep(60)"
DEAF = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # one step, as a compilation is
STUBBORN = """
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("unwinding", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("body", [SLEEP, DEAF, STUBBORN], ids=["waiting", "deaf", "stubborn"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signals to a child")
def test_a_signal_ends_a_command_with_one_line(body, number, status):
    program = PROGRAM.format(body=body)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=50)
    assert process.returncode == status
    assert said.strip() == "stopped; the same command with --resume continues"


def test_without_a_signal_the_handlers_are_as_before():
    from experiments.interrupts import SIGNALS, caught

    before = [signal.getsignal(number) for number in SIGNALS]
    with caught("never"):
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before
