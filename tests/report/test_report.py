import copy
import json
import math
import re

import numpy as np
import pytest

from quantjax.atomic import write_text
from quantjax.report import Curve, MethodScores, append_jsonl, charts, read_jsonl, write_json, write_results
from quantjax.report.page import to_text
from quantjax.report.tables import fpr_auroc_table, lay_out


def row(method="QuantOD", outlier="svhn", **changes):
    rates = {
        "fpr95": 9.39,
        "auroc": 97.94,
        "average_precision": 99.59,
        "aupr_trapezoid": 99.6,
        "fpr95_outlier_positive": 11.0,
        "fpr95_outlier_positive_thinned": 12.0,
        "average_precision_outlier_positive": 88.0,
        "aupr_trapezoid_outlier_positive": 88.5,
    }
    parts = {f"{part}_seconds": 1.0 for part in ("load", "compile", "extract", "fit", "score")}
    return {
        "method": method,
        "outlier": outlier,
        **rates,
        **parts,
        "total_seconds": 5.0,
        "images_per_second": 9.0,
        **changes,
    }


@pytest.fixture
def results():
    rows = [row(), row(outlier="isun", fpr95=17.5), row("MSP", fpr95=48.49), row("MSP", "isun", fpr95=56.03)]
    calibration = {"source": "held-out", "n": 500, "promised_tpr": 0.95, "achieved_tpr": 0.951, "threshold": -3.25}
    facts = {"inlier": "cifar10", "config": {"q": 0.05}, "versions": {"jax": "0.10.2"}, "device": "cpu", "seed": 0}
    return {"rows": rows, "accuracy": np.float32(94.68), "calibration": calibration, **facts, "seconds": 88.0}


@pytest.fixture
def scores(rng):
    outliers = {"svhn": rng.normal(4, 1, 40), "isun": rng.normal(2, 1, 40)}
    return {
        "QuantOD": MethodScores(rng.normal(0, 1, 200), outliers, 1.64),
        "MSP": MethodScores(-rng.random(200), outliers),
    }


def test_results_json_follows_the_schema(tmp_path, results, scores):
    write_results(tmp_path, results, scores=scores)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["schema"] == 1
    assert stored["positive_class"] == "inlier"
    assert stored["rows"] == results["rows"]
    assert stored["accuracy"] == pytest.approx(94.68)
    assert stored["calibration"]["threshold"] == -3.25


def test_the_page_says_what_the_methods_are(tmp_path, results):
    about = {"MSP": {"reads": ["logits"], "settings": {}, "paper": "Hendrycks and Gimpel"}}
    write_results(tmp_path, results | {"methods": about})
    page = (tmp_path / "report.html").read_text()
    assert page.index("<h3>Methods</h3>") < page.index("Hendrycks and Gimpel") < page.index("<h3>Versions</h3>")


def test_markdown_has_methods_down_sets_across_and_the_average(tmp_path, results):
    write_results(tmp_path, results)
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| Method | svhn | isun | Average |" in lines
    # averages: (9.39 + 17.5) / 2 = 13.445, (48.49 + 56.03) / 2 = 52.26
    assert "| QuantOD | **9.39 / 97.94** | **17.50 / 97.94** | **13.45 / 97.94** |" in lines
    assert "| MSP | 48.49 / 97.94 | 56.03 / 97.94 | 52.26 / 97.94 |" in lines
    titles = [line for line in lines if line.startswith("## ")]
    assert [("inlier positive" in t, "outlier positive" in t) for t in titles] == [
        (True, False),
        (True, False),
        (False, True),
        (False, False),  # OpenOOD's pair, one of either
    ]


def test_a_missing_set_leaves_a_dash_and_no_average(results):
    table = fpr_auroc_table({**results, "rows": results["rows"][:3]})
    assert table.cells[1] == ["MSP", "48.49 / 97.94", "-", "-"]


def test_best_is_the_highest_where_higher_is_better():
    rows, keys = [row("a", average_precision=90.0), row("b", average_precision=99.0)], ("average_precision", "auroc")
    assert [line[1] for line in lay_out("", "", rows, keys, best=max).best] == [False, True]


def test_page_is_self_contained_and_complete(tmp_path, results, scores):
    results["note"] = "the bundled <demonstration>"
    curves = [Curve("q = 0.05", [1, 2, 3], [70, 54, 55], [76, 87, 84]), Curve("mean", [1], [85], [60])]
    write_results(tmp_path, results, scores=scores, curves=curves)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script|<link", page)
    assert "the bundled &lt;demonstration&gt;" in page
    assert page.count('class="area inlier"') == 4  # two methods, two sets
    assert page.count('class="hit"') == 2  # one of the methods has a threshold
    assert page.count('aria-label="ROC curves') == 2
    assert "epoch by epoch" in page
    assert "prefers-color-scheme: dark" in page
    from xml.etree import ElementTree

    for drawing in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("seed"), "results must hold seed"),
        (lambda r: r["rows"][1].pop("fpr95"), r"rows'\]\[1\] must hold fpr95"),
        (lambda r: r["rows"][0].update(auroc=math.nan), "'auroc'.*finite"),
        (lambda r: r["rows"][0].update(auroc=101.0), "100"),
        (lambda r: r["rows"][0].update(load_seconds=None), "must be a number"),
        (lambda r: r["calibration"].update(threshold=math.inf), "threshold.*finite"),
        (lambda r: r["calibration"].pop("n"), "calibration.*must hold n"),
        (lambda r: r["rows"].clear(), "at least one row"),
        (lambda r: r["rows"].append(r["rows"][0]), "once"),
    ],
)
def test_wrong_results_are_refused_and_nothing_is_written(tmp_path, results, change, message):
    results = copy.deepcopy(results)
    change(results)
    with pytest.raises(ValueError, match=message):
        write_results(tmp_path, results)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inlier", [[0.0, 1.0, -np.inf], [np.inf, np.inf], [0.0, np.nan]])
def test_scores_without_bound_stand_at_the_ends_of_their_axis(tmp_path, results, inlier):
    outliers = {"svhn": np.array([1.0, np.nan, np.inf, -np.inf])}
    write_results(tmp_path, results, scores={"x": MethodScores(np.array(inlier), outliers, np.inf)})
    page = (tmp_path / "report.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert page.count('class="area outlier"') == 1
    assert not [d for d in drawings if re.search(r'd="[^"]*(nan|inf)', d)]


def test_shares_that_count_nan_as_most_outlying():
    # outliers accepted at 0 and at infinity; inliers 0 and NaN: half of either at 0, all at the end
    found, accepted = charts.roc_points(np.array([0.0, np.nan]), np.array([0.0, np.inf]))
    np.testing.assert_array_equal(found, [0, 50, 100])
    np.testing.assert_array_equal(accepted, [0, 50, 100])


def test_rates_are_percent_however_small(results):
    results["calibration"] |= {"promised_tpr": 0.8, "achieved_tpr": 1.0}
    assert "promised 0.80 %, achieved 1.00 %" in to_text(results)


def test_a_set_without_scores_is_refused(tmp_path, results):
    with pytest.raises(ValueError, match="at least one score"):
        write_results(tmp_path, results, scores={"x": MethodScores(np.zeros(0), {})})
    assert list(tmp_path.iterdir()) == []


def test_roc_points_are_those_of_every_threshold():
    # inliers 0 1 2 3, outliers 2 4; accepted at t = 0 1 2 3 4: inliers 25 50 75 100 100, outliers 0 0 50 50 100
    x, y = charts.roc_points(np.array([0.0, 1, 2, 3]), np.array([2.0, 4]))
    np.testing.assert_allclose(x, [0, 0, 0, 50, 50, 100])
    np.testing.assert_allclose(y, [0, 25, 50, 75, 100, 100])


def test_histogram_keeps_every_image_and_says_what_it_cuts_off():
    # float32 scores far beyond the axis once fell out of the last bin
    inlier, outlier = np.linspace(0, 1, 100, dtype=np.float32), np.full(50, 1e6 + 0.3, np.float32)
    chart = charts.histogram_chart(inlier, outlier, 0.95, title="")
    assert '<text class="beyond"' in chart
    assert ">100 %<" in chart
    assert '<text class="beyond"' not in charts.histogram_chart(inlier, inlier, 0.95, title="")


def test_axis_shows_inliers_and_threshold_and_cuts_far_tails(rng):
    inlier = rng.normal(0, 1, 1000)
    low, high = charts.score_range(inlier, np.array([1e9, 3.0]), 1.6)
    assert low < -2
    assert 3 < high < 25
    low, high = charts.score_range(np.zeros(5), np.zeros(5), None)
    assert low < high


@pytest.mark.parametrize(("low", "high"), [(0.0, 100.0), (-0.00031, 0.00052), (-4e6, 1e9), (11.2, 11.9)])
def test_ticks_are_few_and_inside(low, high):
    values = charts.ticks(low, high)
    assert 2 <= len(values) <= 7
    assert all(low - 1e-9 * abs(low) <= v <= high + 1e-9 * abs(high) for v in values)


def test_files_are_replaced_whole(tmp_path):
    write_text(tmp_path / "sub" / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "sub" / "a.txt", "new \ud800")
    assert (tmp_path / "sub" / "a.txt").read_text() == "old"
    assert len(list((tmp_path / "sub").iterdir())) == 1


def test_json_takes_numpy_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": np.float32(0.5), "y": np.arange(2), "z": (tmp_path, None)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 0.5, "y": [0, 1], "z": [str(tmp_path), None]}
    with pytest.raises(ValueError, match=r"b.json\['x'\]\[0\] must be finite"):
        write_json(tmp_path / "b.json", {"x": [math.nan]})


def test_jsonl_survives_a_kill_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_jsonl(path, {"epoch": 1, "loss": np.float32(0.5)})
    with path.open("a") as file:
        file.write('{"epoch": 2, "lo')
    append_jsonl(path, {"epoch": 2, "loss": math.inf})
    assert read_jsonl(path) == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}]
    assert read_jsonl(tmp_path / "none.jsonl") == []
