"""The last three lines of a run."""

import os
import time

import pytest

from experiments.results import show, verdict


def row(method, outlier, auroc, fpr95, **more):
    return {"method": method, "outlier": outlier, "auroc": auroc, "fpr95": fpr95, **more}


def test_the_verdict_is_about_the_detector_that_was_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = {
        "positive_class": "inlier",
        "config": {"detector": "energy"},
        "rows": [row("msp", "a", 99.0, 1.0), row("energy", "a", 90.0, 20.0), row("energy", "b", 91.0, 31.0)],
        "calibration": {"achieved_tpr": 95.26},
    }
    found, file, command = verdict(results, tmp_path / "runs" / "one")
    assert found == "found: energy: AUROC 90.5 / FPR95 25.5 % on 2 sets; keeps 95.3 % of inliers"
    assert file == f"open:  {os.path.join('runs', 'one')}/report.html"
    assert command == f"next:  python -m experiments.predict --run {os.path.join('runs', 'one')} photo.png"
    assert max(map(len, (found, file, command))) <= 80
    assert verdict({**results, "rows": []}, tmp_path)[0] == "found: energy: keeps 95.3 % of inliers"


def test_scenes_have_precision_of_their_own_variant(tmp_path):
    results = {
        "positive_class": "outlier",
        "config": {"detector": "lr", "variant": "g-d"},
        "rows": [
            {"variant": "g-d", "method": "lr", "dataset": "mix", "ap": 31.04, "fpr95": 12.5},
            {"variant": "fine-tuned", "method": "lr", "dataset": "mix", "ap": 1.0, "fpr95": 1.0},
        ],
        "calibration": {"achieved_tpr": 99.0},
    }
    spaced = tmp_path / "my runs"
    found, file, command = verdict(results, spaced)
    assert found == "found: lr: AP 31.0 / FPR95 12.5 % on 1 set; keeps 99.0 % of known pixels"
    assert command == f"next:  python -m experiments.predict --run '{spaced}' scene.png"
    assert file == f"open:  '{spaced}'/report.html"
    older = {"positive_class": "outlier", "config": {}, "rows": []}
    assert verdict(older, spaced)[0] == "found: nothing was evaluated"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"positive_class": "inlier", "config": 3, "rows": []}'])
def test_damaged_results_are_one_error(tmp_path, content):
    (tmp_path / "results.md").write_text("text")
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json is damaged .* --overwrite"):
        show(tmp_path, time.perf_counter(), finished_before=True)
