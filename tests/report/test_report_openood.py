"""The tables and CSV files of a benchmark: averages near and far by hand, the CSV against OpenOOD's own numbers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from quantjax.report import openood_csv, write_openood, write_results
from quantjax.report.openood import COLUMNS

GROUPS = {"near": ["near_a", "near_b"], "far": ["far_a"]}
RATES = (
    "fpr95", "auroc", "average_precision", "aupr_trapezoid", "fpr95_outlier_positive", "fpr95_outlier_positive_thinned",
    "average_precision_outlier_positive", "aupr_trapezoid_outlier_positive",
)  # fmt: skip
SECONDS = ("load", "compile", "extract", "fit", "score", "total")


def row(method, outlier, first):
    """Rates first, first + 1, ... in the order of RATES."""
    rates = {name: first + k for k, name in enumerate(RATES)}
    return {"method": method, "outlier": outlier, **rates}


def timed(rows):
    return [one | {f"{part}_seconds": 1.0 for part in SECONDS} | {"images_per_second": 2.0} for one in rows]


@pytest.fixture
def results():
    rows = [row("msp", "near_a", 10.0), row("msp", "near_b", 21.0), row("msp", "far_a", 40.0)]
    rows += [row("knn", "near_a", 12.0), row("knn", "near_b", 15.0), row("knn", "far_a", 50.0)]
    full = [one | {name: one[name] + 30.0 for name in RATES} for one in rows]
    calibration = {"source": "list", "n": 50, "promised_tpr": 95.0, "achieved_tpr": 95.0, "threshold": 1.0}
    facts = {"inlier": "cifar10", "config": {}, "versions": {}, "device": "cpu", "seed": 0, "seconds": 1.0}
    return {
        "rows": timed(rows), "accuracy": 94.0, "calibration": calibration, "groups": GROUPS, **facts,
        "full_spectrum": {"inliers": ["cifar10c"], "accuracy": 80.5, "rows": full},
    }  # fmt: skip


def test_the_csv_is_what_openoods_numbers_print_as(golden):
    recorded = golden("openood")
    sets = ("near_a", "near_b", "far_a")
    lines = recorded["rates/msp"][[0, 1, 3]]
    rows = [
        {"outlier": name} | dict(zip(COLUMNS.values(), line, strict=False))
        for name, line in zip(sets, lines, strict=True)
    ]
    assert openood_csv(rows, GROUPS, lines[0, 4]) == str(recorded["csv"])


def test_averages_are_of_a_group_alone(results):
    text = openood_csv(results["rows"][:3], GROUPS, 94.0)
    lines = list(csv.reader(text.splitlines()))
    assert lines[0] == ["", "FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT", "ACC"]
    assert [line[0] for line in lines[1:]] == ["near_a", "near_b", "nearood", "far_a", "farood"]
    # thinned FPR95 is the sixth rate, AUROC the second: (15 + 26) / 2, (11 + 22) / 2
    assert lines[3][1:3] == ["20.50", "16.50"]
    assert lines[5] == ["farood", "45.00", "41.00", "43.00", "47.00", "94.00"]
    with pytest.raises(ValueError, match="missing: near_b, far_a"):
        openood_csv(results["rows"][:1], GROUPS, 94.0)


def test_a_file_per_method_and_kind(tmp_path, results):
    write_openood(tmp_path, results)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.csv"))
    assert files == [f"openood/{kind}/{method}.csv" for kind in ("fsood", "ood") for method in ("knn", "msp")]
    full = list(csv.reader((tmp_path / "openood/fsood/knn.csv").open()))
    assert full[3][:3] == ["nearood", f"{(17 + 20) / 2 + 30:.2f}", f"{(13 + 16) / 2 + 30:.2f}"]
    assert {line[5] for line in full[1:]} == {"80.50"}
    del results["full_spectrum"]
    write_openood(tmp_path / "plain", results)
    assert not (tmp_path / "plain/openood/fsood").exists()


def test_the_report_begins_with_the_groups(tmp_path, results):
    write_results(tmp_path, results)
    text = (tmp_path / "results.md").read_text()
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles[:5] == [
        "OpenOOD 1.5: FPR@95 / AUROC, outlier positive",
        "OpenOOD 1.5: AUPR_IN / AUPR_OUT",
        "OpenOOD 1.5, full spectrum: FPR@95 / AUROC, outlier positive",
        "OpenOOD 1.5, full spectrum: AUPR_IN / AUPR_OUT",
        "FPR95 / AUROC, inlier positive",
    ]
    assert "| Method | near_a | near_b | near average | far_a | far average |" in text
    assert "| msp | **15.00 / 11.00** | 26.00 / 22.00 | 20.50 / 16.50 | **45.00 / 41.00** | **45.00 / 41.00** |" in text
    assert "| knn | 17.00 / 13.00 | **20.00 / 16.00** | **18.50 / 14.50** | 55.00 / 51.00 | 55.00 / 51.00 |" in text
    assert "test images and cifar10c, accuracy 80.50 %" in text
    page = (tmp_path / "report.html").read_text()
    assert page.index("near average") < page.index("full spectrum") < page.index("FPR95 / AUROC, inlier positive")
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["groups"] == GROUPS
    np.testing.assert_allclose(stored["full_spectrum"]["rows"][0]["auroc"], 41.0)
    assert Path(tmp_path / "results.json").is_file()
