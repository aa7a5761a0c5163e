"""The command that asks every question: all at toy size, and what the runner does when one fails or time ends."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("distrax", "tensorflow_probability", "grain", "tensorflow", "tensorflow_datasets", "tyro", "experiments")
SMOKE = f"""
import sys
from benchmarks import gpu
status = gpu.main(["--out", sys.argv[1], "--smoke", "--minutes", "30"])
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
sys.exit(status)
"""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """(rows, the table's text) of all questions at toy size."""
    folder = tmp_path_factory.mktemp("smoke")
    ran = subprocess.run(
        [sys.executable, "-c", SMOKE, str(folder)], cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return json.loads((folder / "rows.json").read_text()), (folder / "table.md").read_text()


@pytest.fixture
def gpu():
    from benchmarks import gpu

    return gpu


@pytest.mark.long
def test_every_question_answers_at_toy_size(smoke, gpu):
    rows, table = smoke
    asked = {question.name for question in gpu.QUESTIONS} - {"suite"}  # which runs these tests, on a device
    assert {row["question"] for row in rows} == asked
    assert not [row for row in rows if {"error", "peer_error", "profile_error", "skipped", "stopped"} & set(row)]
    assert all(row["device"] == row["platform"] == "cpu" and row["smoke"] for row in rows)
    assert all(row["versions"]["jax"] for row in rows)
    assert table.count("\n| ") == 2 + len(rows)


@pytest.mark.long
def test_every_speed_says_what_it_stands_on(smoke):
    speeds = [row for row in smoke[0] if "seconds" in row]
    assert len(speeds) > 10
    for row in speeds:
        assert row["seconds"] > 0
        assert [key for key in row if key.endswith("s_per_second")], row
        assert {"precision", "compile_seconds", "roofline_fraction", "bound", "gflop"} <= set(row)
        if "peer" in row and "peer_missing" not in row:
            assert math.isclose(row["ratio"], row["peer_seconds"] / row["seconds"], rel_tol=0.01, abs_tol=1e-3)
            assert {"peer_compile_seconds", "peer_mode"} <= set(row)


@pytest.mark.long
def test_programs_agree_with_their_peers_at_toy_size(smoke):
    pytest.importorskip("torch")
    differences = [row["relative_difference"] for row in smoke[0] if "relative_difference" in row]
    assert len(differences) >= 3
    assert max(differences) < 0.03  # bfloat16 on both sides


@pytest.mark.long
def test_windows_agree_with_their_peer_at_toy_size(smoke):
    pytest.importorskip("transformers")
    found = {row["precision"]: row for row in smoke[0] if row["question"] == "windows"}
    assert found["tensorfloat32"]["logits_relative_difference"] < 1e-3  # on a CPU that is float32
    assert found["tensorfloat32"]["relative_difference"] < 1e-4
    assert found["bfloat16"]["logits_relative_difference_rms"] < 0.1
    assert found["bfloat16"]["attention"] == "xla"


@pytest.mark.long
def test_profiles_name_kernels(smoke):
    profiles = [row for row in smoke[0] if row["question"] == "profiles"]
    assert len(profiles) >= 5
    for row in profiles:
        assert row["kernel_milliseconds"] > 0
        assert 1 <= len(row["longest"]) <= 5


# --- the runner, with questions of its own


class Asked:
    """A question of these tests; counts how often it was asked."""

    def __init__(self, name, rows, seconds=100.0):
        self.name, self.rows, self.seconds, self.times = name, rows, seconds, 0

    def open(self):
        def ask(sizes, context):
            self.times += 1
            yield from self.rows(context)

        return ask


def answer(context):
    yield {"value": 1}
    yield {"value": 2}


def fail(context):
    yield {"value": 3}
    raise ValueError("no such kernel\nand more")


def end_the_run(context):
    yield {"value": 4}
    raise KeyboardInterrupt


def run(gpu, questions, folder, seconds=1000.0, full=True):
    from benchmarks.questions.sizes import FULL
    from benchmarks.questions.sizes import SMOKE as TOY

    return gpu.ask_all(questions, folder, FULL if full else TOY, time.monotonic() + seconds)


def written(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_a_question_that_fails_does_not_stop_the_rest(gpu, tmp_path):
    broken, sound = Asked("broken", fail), Asked("sound", answer)
    assert run(gpu, [broken, sound], tmp_path) == 1
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["value"] for row in rows if "value" in row] == [3, 1, 2]
    assert [row["error"] for row in rows if "error" in row] == ["ValueError: no such kernel"]
    assert "ValueError: no such kernel" in (tmp_path / "table.md").read_text()


def test_an_import_error_is_that_questions_own(gpu, tmp_path):
    from benchmarks.questions import Question

    assert run(gpu, [Question("absent", "no_such_module:ask", 100), Asked("sound", answer)], tmp_path) == 1
    rows = written(tmp_path)
    assert [row["error"].partition(":")[0] for row in rows if "error" in row] == ["ModuleNotFoundError"]
    assert [row["value"] for row in rows if "value" in row] == [1, 2]


def test_a_second_run_asks_what_is_missing(gpu, tmp_path):
    sound, broken = Asked("sound", answer), Asked("broken", fail)
    run(gpu, [broken, sound], tmp_path)
    broken.rows = answer
    assert run(gpu, [broken, sound], tmp_path) == 0
    assert (sound.times, broken.times) == (1, 2)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["question"], row["value"]) for row in rows] == [
        ("broken", 1), ("broken", 2), ("sound", 1), ("sound", 2),
    ]  # fmt: skip


def test_a_run_that_was_cut_off_keeps_its_rows_and_the_question_comes_last(gpu, tmp_path):
    fatal, sound = Asked("fatal", end_the_run), Asked("sound", answer)
    with pytest.raises(KeyboardInterrupt):
        run(gpu, [fatal, sound], tmp_path)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"question": "fatal", "va')  # a line that the kill cut short
    with pytest.raises(KeyboardInterrupt):
        run(gpu, [fatal, sound], tmp_path)
    assert sound.times == 1
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.endswith("}")]
    assert len(found) == len(lines) - 1
    assert [row["value"] for row in found if "value" in row] == [4, 1, 2, 4]


def test_other_sizes_or_devices_are_no_answer(gpu, tmp_path):
    sound = Asked("sound", answer)
    run(gpu, [sound], tmp_path, full=False)
    run(gpu, [sound], tmp_path, full=True)
    assert sound.times == 2


def test_what_does_not_fit_is_said(gpu, tmp_path):
    long, short = Asked("long", answer, seconds=100.0), Asked("short", answer, seconds=1.0)
    assert run(gpu, [long, short], tmp_path, seconds=50.0) == 0
    assert (long.times, short.times) == (0, 1)
    assert next(row["skipped"] for row in written(tmp_path) if row["question"] == "long").startswith("wants 100 s")


def test_a_question_past_its_budget_stops_and_is_asked_again(gpu, tmp_path):
    def slow(context):
        yield {"value": 1}
        time.sleep(0.06)
        if not context.expired():
            yield {"value": 2}

    question = Asked("slow", slow, seconds=0.05)
    assert run(gpu, [question], tmp_path) == 0
    assert [row["value"] for row in written(tmp_path) if "value" in row] == [1]
    assert any("stopped" in row for row in written(tmp_path))
    run(gpu, [question], tmp_path)
    assert question.times == 2


def test_a_question_that_does_not_stop_is_cut_off(gpu, tmp_path):
    def endless(context):
        yield {"value": 1}
        while True:
            time.sleep(0.01)

    assert run(gpu, [Asked("endless", endless, seconds=0.05), Asked("sound", answer)], tmp_path) == 1
    rows = written(tmp_path)
    assert [row["error"] for row in rows if "error" in row] == ["Overtime: cut off after 0.1 s"]
    assert [row["value"] for row in rows if "value" in row] == [1, 1, 2]


# --- the command line


def test_the_list_names_every_question(gpu, capsys):
    assert gpu.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == [question.name for question in gpu.QUESTIONS]
    assert gpu.main(["--list", "--only", "knn,ceilings"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ceilings", "knn"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: --out DIR is needed"),
        (["--out", "x", "--only", "knn,nothing"], "error: --only names nothing; known are ceilings"),
        (["--out", str(Path(__file__))], "error: --out must be a folder"),
        (["--out", "x", "--minutes", "0"], "error: --minutes must be positive, got 0.0"),
        (["--out", "x", "--minutes", "soon"], "error: argument --minutes: invalid float value: 'soon'"),
        (["--out", "x", "--train", "/no/such/folder"], "error: --train must be a folder with data sets"),
        (["--out", "x", "--smoek"], "error: unrecognized arguments: --smoek"),
    ],
)
def test_a_wrong_flag_is_one_line(gpu, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        gpu.main(flags)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(message)
    assert said.count("\n") == 1
