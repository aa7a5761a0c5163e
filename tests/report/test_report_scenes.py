import copy
import json
import math
import re

import numpy as np
import pytest

from quantjax.report import Example, maps, write_scenes


def row(method="lr", dataset="road_anomaly", **changes):
    rates = {"ap": 92.86, "fpr95": 8.95, "auroc": 98.37, "component_f1": 40.0}
    speed = {"score_seconds": 12.0, "images_per_second": 5.0}
    return {"variant": "G-D", "method": method, "dataset": dataset, **rates, **speed, **changes}


@pytest.fixture
def results():
    rows = [
        row(),
        row(dataset="fs_laf", ap=79.02, component_f1=None),
        row("id", ap=64.77, auroc=92.94),
        row("id", "fs_laf", ap=15.0),
        row("lr", ap=93.75, variant="G-G"),
    ]
    facts = {"inlier": "camvid", "config": {"seed": 0}, "versions": {"jax": "0.10.2"}, "device": "cpu", "seed": 0}
    return {"rows": rows, "miou": {"before": np.float32(60.5), "after": 60.5}, "parameters": {"mlp": 788226}, **facts,
            "seconds": 200.0}  # fmt: skip


@pytest.fixture
def examples(rng):
    image, label = rng.integers(0, 256, (20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8)
    shown = [Example(f"frame & {i}", image, label, {"id": rng.random((20, 30)), "lr": label * 1.0}) for i in range(2)]
    return {"road_anomaly": shown}


def test_results_json_follows_the_schema(tmp_path, results):
    write_scenes(tmp_path, results)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert (stored["schema"], stored["positive_class"]) == (1, "outlier")
    assert stored["rows"] == results["rows"]
    assert stored["miou"] == {"before": 60.5, "after": 60.5}
    assert stored["parameters"] == {"mlp": 788226}


def test_markdown_has_variants_and_methods_down_and_sets_across(tmp_path, results):
    write_scenes(tmp_path, results)
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| Method | road_anomaly | fs_laf | Average |" in lines
    # averages: (92.86 + 79.02) / 2 = 85.94 and (64.77 + 15) / 2 = 39.885, both FPR95 8.95; G-G lacks a set
    assert "| G-D lr | 92.86 / 8.95 | **79.02 / 8.95** | **85.94 / 8.95** |" in lines
    assert "| G-D id | 64.77 / 8.95 | 15.00 / 8.95 | 39.88 / 8.95 |" in lines
    assert "| G-G lr | **93.75 / 8.95** | - | - |" in lines
    # of the components one was not measured, so neither is their average
    assert "| G-D lr | **98.37 / 40.00** | **98.37 / -** | **98.37 / -** |" in lines
    assert any("60.50 % before and 60.50 % after" in line for line in lines)


def test_page_shows_rows_of_maps_and_needs_no_other_file(tmp_path, results, examples):
    write_scenes(tmp_path, results, scenes=examples)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == page.count("src=") == 2
    assert not re.search(r"href\s*=|url\(|@import|<script|<link", page)
    assert page.count("<span>image</span><span>label</span><span>id</span><span>lr</span>") == 2
    assert "frame &amp; 1" in page
    assert "Highest AP: G-G lr, road_anomaly" in page
    write_scenes(tmp_path, results)
    assert "<img" not in (tmp_path / "report.html").read_text()


def test_predicted_classes_have_a_legend(tmp_path, results, examples):
    write_scenes(tmp_path, results, scenes=examples, class_names=["road", "sky"])
    assert "sky" not in (tmp_path / "report.html").read_text()  # no scene holds classes
    first = examples["road_anomaly"][0]._replace(classes=np.ones((20, 30), int))
    write_scenes(tmp_path, results, scenes={"a": [first]}, class_names=["road", "sky"])
    page = (tmp_path / "report.html").read_text()
    red, green, blue = maps.class_colours(2)[1]
    assert f'fill="rgb({red}, {green}, {blue})"/></svg>sky</span>' in page
    assert "<span>classes</span>" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("miou"), "results must hold miou"),
        (lambda r: r["miou"].pop("after"), r"results\['miou'\] must hold after"),
        (lambda r: r["miou"].update(after=101.0), r"\['miou'\]\['after'\].*100"),
        (lambda r: r["rows"][1].pop("ap"), r"rows'\]\[1\] must hold ap"),
        (lambda r: r["rows"][0].update(ap=None), "must be a number"),
        (lambda r: r["rows"][0].update(fpr95=math.nan), "'fpr95'.*finite"),
        (lambda r: r["rows"].clear(), "at least one row"),
        (lambda r: r["rows"].append(r["rows"][0]), r"each \(variant, method, dataset\) once"),
    ],
)
def test_wrong_results_are_refused_and_nothing_is_written(tmp_path, results, change, message):
    results = copy.deepcopy(results)
    change(results)
    with pytest.raises(ValueError, match=message):
        write_scenes(tmp_path, results)
    assert list(tmp_path.iterdir()) == []


def test_maps_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, results, examples):
    examples["road_anomaly"][0] = examples["road_anomaly"][0]._replace(label=np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="label of 'frame & 0'"):
        write_scenes(tmp_path, results, scenes=examples)
    assert list(tmp_path.iterdir()) == []
