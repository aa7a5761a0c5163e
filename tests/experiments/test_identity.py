"""A run is what its numbers depend on: other data under the same names are another run, finished or not."""

import json

import numpy as np
import pytest

from experiments import quantod
from experiments.images.config import QuantOD, resolve
from experiments.images.sets import content, open_sources
from experiments.scenes import config as scenes


def site(folder, seed):
    """An inlier and an outlier set; folders of other seeds differ in their pixels alone."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    labels = np.array([0, 1, 0, 1])
    np.savez(folder / "mine.npz", train_images=images, train_labels=labels, test_images=images + 1, test_labels=labels)
    np.savez(folder / "other.npz", images=255 - images)
    return folder


def settings(folder, **change):
    return resolve(QuantOD(inlier="mine.npz", outliers=("other.npz",), data_dir=folder, **change), accelerator=False)


def test_inliers_and_outliers_count_by_content(tmp_path):
    one, same, other = (settings(site(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    found = [content(config, open_sources(config)) for config in (one, same, other)]
    assert found[0] == found[1]
    assert found[0].keys() == {"inlier_content", "outliers_content"}
    assert not set(found[0].values()) & set(found[2].values())


@pytest.fixture
def stopped(monkeypatch):
    """The command ends where it would decode images."""

    def load_sets(*args):
        raise ValueError("begins anew")

    monkeypatch.setattr("experiments.images.sets.load_sets", load_sets)


def run(capsys, *flags):
    status = quantod.main(["--inlier", "mine.npz", "--outliers", "other.npz", *map(str, flags)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def finished(folder, identity):
    """A finished run in its folder, by what `open_run` looks at."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"identity": identity}))
    (folder / "results.md").write_text("AP 31.04")
    results = {"positive_class": "inlier", "config": {}, "rows": [], "calibration": {"achieved_tpr": 95.0}}
    (folder / "results.json").write_text(json.dumps(results))


@pytest.mark.usefixtures("stopped")
def test_a_finished_run_is_not_served_for_other_data(tmp_path, capsys):
    here, there = site(tmp_path / "a", 0), site(tmp_path / "b", 1)
    config = settings(here)
    whole = quantod.identity(config) | content(config, open_sources(config))
    workdir = tmp_path / "runs"
    for name in (quantod.run_name(config, whole), "named"):
        finished(workdir / name, whole)
    status, text = run(capsys, "--workdir", workdir, "--data-dir", here)
    assert (status, "AP 31.04" in text, "finished before" in text) == (0, True, True)
    assert text.splitlines()[-3].startswith("found: keeps 95.0 % of inliers")
    status, text = run(capsys, "--workdir", workdir, "--data-dir", there)
    assert (status, "begins anew" in text, "AP 31.04" in text) == (1, True, False)
    status, text = run(capsys, "--workdir", workdir, "--data-dir", there, "--run", "named")
    assert (status, "AP 31.04" in text) == (1, False)
    assert "another configuration (inlier_content: there" in text


@pytest.mark.parametrize("how", [resolve, scenes.resolve])
def test_a_missing_data_dir_is_refused_even_where_no_set_needs_it(tmp_path, how):
    flags = QuantOD if how is resolve else scenes.UEM
    for wrong in (tmp_path / "missing", __file__):
        with pytest.raises(ValueError, match="--data-dir must be the folder that holds the published sets"):
            how(flags(data_dir=type(tmp_path)(wrong)), accelerator=False)
    how(flags(data_dir=tmp_path), accelerator=False)
