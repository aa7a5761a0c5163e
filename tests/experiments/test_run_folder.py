"""A run's folder is new, unfinished, finished, or someone else's."""

import json

import pytest

from experiments.run_folder import open_run


def opened(workdir, *, name="run", seed=0, resume=False, overwrite=False):
    settings = {"seed": seed}
    return open_run(workdir, name, settings, settings, resume=resume, overwrite=overwrite)


def test_a_new_run_records_its_settings(tmp_path):
    folder, finished = opened(tmp_path / "runs")
    assert not finished
    assert json.loads((folder / "config.json").read_text())["settings"] == {"seed": 0}


def test_an_unfinished_run_asks(tmp_path):
    folder, _ = opened(tmp_path)
    with pytest.raises(ValueError, match=r"unfinished run .* --resume .* --overwrite"):
        opened(tmp_path)
    assert opened(tmp_path, resume=True) == (folder, False)


def test_a_finished_run_is_told_apart(tmp_path):
    folder, _ = opened(tmp_path)
    (folder / "results.json").write_text("{}")
    assert opened(tmp_path) == (folder, True)
    assert opened(tmp_path, overwrite=True) == (folder, False)
    assert not (folder / "results.json").exists()


def test_another_configuration_is_refused_and_left_alone(tmp_path):
    folder, _ = opened(tmp_path)
    (folder / "precious").touch()
    with pytest.raises(ValueError, match=r"another configuration \(seed: there 0, given 1\): choose another --run"):
        opened(tmp_path, seed=1, resume=True)
    assert (folder / "precious").exists()


def test_overwrite_deletes_runs_only(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="refuses to delete"):
        opened(tmp_path, overwrite=True)
    assert (tmp_path / "run" / "thesis.txt").exists()


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{half")
    with pytest.raises(ValueError, match="not a readable run folder"):
        opened(tmp_path, resume=True)


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="contradict"):
        opened(tmp_path, resume=True, overwrite=True)


def test_an_unwritable_workdir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--workdir must be writable"):
        opened(tmp_path / "file" / "runs")
