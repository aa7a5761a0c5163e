"""A run's folder is new, unfinished, finished, or someone else's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.errors import report_errors
from experiments.run_folder import begin_run, find_run, hold, release


def found(workdir, *, name="run", seed=0, resume=False, overwrite=False):
    return find_run(workdir, name, {"seed": seed}, resume=resume, overwrite=overwrite)


def begun(workdir, **options):
    folder, _ = found(workdir, **options)
    begin_run(folder, {"seed": 0}, {"seed": 0}, "images", overwrite=options.get("overwrite", False))
    return folder


def test_looking_writes_nothing(tmp_path):
    folder, finished = found(tmp_path / "runs")
    assert not finished
    assert not folder.exists()


def test_a_new_run_records_its_settings(tmp_path):
    config = json.loads((begun(tmp_path / "runs") / "config.json").read_text())
    assert config == {"settings": {"seed": 0}, "identity": {"seed": 0}, "data": "images"}


def test_an_unfinished_run_asks(tmp_path):
    folder = begun(tmp_path)
    with pytest.raises(ValueError, match=r"unfinished run .* --resume .* --overwrite"):
        found(tmp_path)
    assert found(tmp_path, resume=True) == (folder, False)


def test_a_finished_run_is_told_apart(tmp_path):
    folder = begun(tmp_path)
    (folder / "results.json").write_text("{}")
    assert found(tmp_path) == (folder, True)
    assert found(tmp_path, overwrite=True) == (folder, False)
    assert (folder / "results.json").exists()
    begun(tmp_path, overwrite=True)
    assert not (folder / "results.json").exists()


def test_a_resumed_run_wants_the_same_images(tmp_path):
    folder = begun(tmp_path)
    with pytest.raises(ValueError, match="begun with other training images"):
        begin_run(folder, {}, {"seed": 0}, "other images", overwrite=False)


def test_another_configuration_is_refused_and_left_alone(tmp_path):
    folder = begun(tmp_path)
    (folder / "precious").touch()
    with pytest.raises(ValueError, match=r"another configuration \(seed: there 0, given 1\): choose another --run"):
        found(tmp_path, seed=1, resume=True)
    assert (folder / "precious").exists()


@pytest.mark.parametrize("content", [None, "{half", "[]", '{"model_type": "dinov2"}'])
@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, content, flag):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    if content:
        (tmp_path / "run" / "config.json").write_text(content)
    with pytest.raises(ValueError, match="not a run's folder"):
        found(tmp_path, **{flag: True})
    assert (tmp_path / "run" / "thesis.txt").exists()


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="contradict"):
        found(tmp_path, resume=True, overwrite=True)


def test_an_unwritable_workdir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--workdir must be writable"):
        found(tmp_path / "file" / "runs")


def test_a_run_in_progress_keeps_other_processes_out_until_its_process_ends(tmp_path):
    code = "import sys, pathlib; from experiments.run_folder import hold; hold(pathlib.Path(sys.argv[1]));"
    code += "print('held', flush=True); sys.stdin.read()"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    try:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="is in use: another process runs these settings"):
            hold(tmp_path / "run")
        hold(tmp_path / "other")
    finally:
        owner.kill()  # no chance to clean up
        owner.wait()
    hold(tmp_path / "run")
    release()


def test_errors_are_one_line_unless_debug_asks_for_more(capsys):
    def wrong():
        raise ValueError("q must lie in [0, 1)")

    assert report_errors(wrong, "--batch-size") == 1
    assert capsys.readouterr().err == "error: q must lie in [0, 1)\n"
    with pytest.raises(ValueError, match="q must lie"):
        report_errors(wrong, "--batch-size", debug=True)
