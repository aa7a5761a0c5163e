"""What a row is made of: counted work, the ceiling it is held against, and the peer it is timed with."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_work_by_hand():
    from benchmarks.counting import work

    x, kernel = jnp.ones((4, 3)), jnp.ones((3, 5))
    with jax.default_matmul_precision("tensorfloat32"):
        assert work(jnp.matmul, x, kernel) == (2 * 4 * 3 * 5, 4 * (4 * 3 + 3 * 5 + 4 * 5), 0)
    with jax.default_matmul_precision("highest"):
        assert work(jnp.matmul, x, kernel).exact == 2 * 4 * 3 * 5
        halves = [a.astype(jnp.bfloat16) for a in (x, kernel)]
        assert work(jnp.matmul, *halves) == (2 * 4 * 3 * 5, 2 * (4 * 3 + 3 * 5 + 4 * 5), 0)
        looped = work(lambda a: jax.lax.fori_loop(0, 6, lambda i, b: b @ jnp.eye(3), a), x)
        assert looped == (6 * 2 * 4 * 3 * 3, 6 * 4 * (12 + 9 + 12), 6 * 2 * 4 * 3 * 3)
        assert work(lambda a: jnp.sin(a) + 1, x) == (0, 0, 0)


def test_the_longer_bound_counts():
    from benchmarks.ceilings import Ceilings, data_sheet, roofline

    ceilings = Ceilings({"bfloat16": 1000e9, "float32": 100e9}, 10e9)
    # 500 GFLOP at 1000 take 0.5 s, 2 GB at 10 take 0.2 s; 1 s was needed
    assert roofline(1.0, 500.0, 2000.0, "bfloat16", ceilings) == {"roofline_fraction": 0.5, "bound": "arithmetic"}
    assert roofline(1.0, 50.0, 2000.0, "bfloat16", ceilings) == {"roofline_fraction": 0.2, "bound": "memory"}
    # 30 of the 100 GFLOP in float32: 0.07 s + 0.3 s
    assert roofline(1.0, 100.0, 0.0, "bfloat16", ceilings, 30.0) == {"roofline_fraction": 0.37, "bound": "arithmetic"}
    assert roofline(2.0, 100.0, 0.0, "bfloat16", None) == {"gflop_per_second": 50.0}
    assert data_sheet("NVIDIA H100 80GB HBM3").flops["bfloat16"] == 989e12
    assert data_sheet("cpu") is None


def context(**sizes):
    from benchmarks.ceilings import Ceilings
    from benchmarks.questions.context import Context
    from benchmarks.questions.sizes import SMOKE

    known = {"ceilings": Ceilings({"float32": 1e9}, 1e9)}
    return Context(SMOKE._replace(**sizes), 100.0, known=known)


def sleeping(seconds, compile_seconds=0.5, **facts):
    from benchmarks.programs import Program

    return Program(lambda: time.sleep(seconds), compile_seconds, facts)


def test_a_peer_is_scaled_to_equal_amounts():
    from benchmarks.programs import Peer, compare

    ours = sleeping(0.002, gflop=0.001, megabytes=0.0)
    peers = [Peer("slow", lambda: sleeping(0.004)), Peer("a fifth", lambda: sleeping(0.004), 2)]
    whole, fifth = compare(context(), ours, peers, amount=10, unit="rows", precision="float32", form="toy")
    assert whole["rows"] == 10
    assert whole["form"] == "toy"
    assert whole["rows_per_second"] == pytest.approx(10 / whole["seconds"], rel=1e-3)
    assert whole["bound"] == "arithmetic"
    assert whole["ratio"] == pytest.approx(whole["peer_seconds"] / whole["seconds"], rel=1e-2)
    assert fifth["peer_seconds"] > 5 * 0.004
    assert 1 < whole["ratio"] < fifth["ratio"]


def test_a_peer_that_cannot_be_built_leaves_its_reason():
    from benchmarks.programs import Peer, compare

    def missing():
        raise ImportError("no module", name="FrEIA")

    def broken():
        raise RuntimeError("no kernel\nfor this")

    def slow():
        with running.limit(0.02):
            time.sleep(5)

    running = context()
    peers = [Peer(build.__name__, build) for build in (missing, broken, slow)]
    rows = list(compare(running, sleeping(0.0), peers, amount=1, unit="rows", precision="float32"))
    assert all(row["seconds"] > 0 and "ratio" not in row for row in rows)
    assert rows[0]["peer_missing"] == "FrEIA"
    assert rows[1]["peer_error"] == "RuntimeError: no kernel"
    assert rows[2]["peer_missing"].startswith("cut off after")


def test_a_limit_inside_a_limit():
    from benchmarks.questions.context import Overtime

    running = context()
    with running.limit(0.15):
        with pytest.raises(Overtime), running.limit(0.02):
            time.sleep(5)
        with pytest.raises(Overtime):  # the outer one still counts
            time.sleep(5)
    time.sleep(0.05)  # and is over with its block


def test_a_program_carries_its_state_on():
    from benchmarks.programs import compile_program

    start = np.zeros(2, np.float32)
    program = compile_program(lambda state, x: (state + x, state.sum()), start, np.ones(2, np.float32), carry=True)
    totals = [float(program.call()[1]) for _ in range(3)]
    assert totals == [0.0, 2.0, 4.0]
    assert not start.any()


def test_turns_end_after_the_fewest():
    from benchmarks.timing import FEWEST, WARM_UP, alternate

    calls = []
    alternate({"one": lambda: calls.append(1)}, repeats=1000, until=time.monotonic() - 1)
    assert len(calls) == FEWEST + WARM_UP


def test_the_verdict_is_the_plainer_form_over_the_other():
    from benchmarks.questions import flow

    seconds = {flow.TWO_ROW: 1.0, flow.TWO_ROW_IN_LOOP: 2.0, flow.PLAIN: 3.0}
    assert flow._verdict(seconds) == {"deferred_two_row": 2.0, "two_row": 3.0}
