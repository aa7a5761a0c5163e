"""Runs side by side: seeds are averaged, other settings are not."""

import json

import pytest

from experiments.images import outcome
from experiments.images.config import QuantOD, identity, resolve
from experiments.tables import main


def write_run(folder, *, seed, loss="quantile", fpr95=50.0, epochs=2, method="quantod", workdir="a"):
    folder.mkdir(parents=True)
    rows = [{"method": method, "outlier": name, "fpr95": fpr95 + k, "auroc": 90.0} for k, name in enumerate(("x", "y"))]
    config = {"seed": seed, "loss": loss, "flow_epochs": epochs, "workdir": workdir}
    (folder / "results.json").write_text(
        json.dumps({"rows": rows, "config": config, "inlier": "digits", "positive_class": "inlier"})
    )
    log = [{"stage": "flow", "epoch": e, "fpr95": fpr95 + 10.0 * e, "auroc": 80.0} for e in range(1, epochs + 1)]
    lines = [json.dumps(row) for row in (log if method == "quantod" else [])]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return str(folder)


def test_seeds_are_averaged_and_settings_are_kept_apart(tmp_path, capsys):
    runs = [
        write_run(tmp_path / "a", seed=0, fpr95=50.0, workdir="here"),
        write_run(tmp_path / "b", seed=1, fpr95=54.0, workdir="there"),
        write_run(tmp_path / "c", seed=0, loss="mean", fpr95=80.0),
        write_run(tmp_path / "d", seed=0, fpr95=70.0, method="energy"),
    ]
    assert main([*runs, "--output", str(tmp_path / "tables.md"), "--epochs", "1", "2"]) == 0
    text = (tmp_path / "tables.md").read_text()
    assert text in capsys.readouterr().out
    # averages 50.5 and 54.5: mean 52.5, standard deviation of two values 4 apart 4 / sqrt(2)
    assert "| loss quantile (2 runs) | quantod | 52.00 / 90.00 | 53.00 / 90.00 | 52.50 ± 2.83 / 90.00 |" in text
    assert "| loss mean (1 run) | quantod | 80.00 / 90.00 | 81.00 / 90.00 | 80.50 / 90.00 |" in text
    assert "| all alike (1 run) | energy | 70.00 / 90.00 | 71.00 / 90.00 | 70.50 / 90.00 |" in text
    assert "| loss quantile (2 runs) | 62.00 ± 2.83 / 80.00 | 72.00 ± 2.83 / 80.00 | 62.00 in epoch 1 |" in text


def write_scenes_run(folder, *, seed, variant, ap, after):
    folder.mkdir(parents=True)
    rows = [
        {"variant": variant, "method": m, "dataset": "d", "ap": ap + k, "fpr95": 50.0, "auroc": 90.0}
        for k, m in enumerate(("id", "lr"))
    ]
    config = {"seed": seed, "variant": variant, "steps": 5, "segmentor": f"file of {seed}"}
    results = {"rows": rows, "config": config, "seed": seed, "miou": {"before": 60.0, "after": after}}
    (folder / "results.json").write_text(json.dumps(results | {"positive_class": "outlier"}))
    return str(folder)


def test_runs_on_scenes_have_tables_of_their_own(tmp_path, capsys):
    runs = [
        write_scenes_run(tmp_path / "a", seed=0, variant="g-d", ap=10.0, after=60.0),
        write_scenes_run(tmp_path / "b", seed=1, variant="g-d", ap=14.0, after=60.0),
        write_scenes_run(tmp_path / "c", seed=0, variant="d-d", ap=30.0, after=50.0),
        write_run(tmp_path / "e", seed=0),
    ]
    assert main(runs) == 0
    text = capsys.readouterr().out
    # 10 and 14: mean 12, standard deviation 4 / sqrt(2)
    assert "| g-d id | 2 | 12.00 ± 2.83 / 50.00 ± 0.00 / 90.00 ± 0.00 |" in text
    assert "| d-d lr | 1 | 31.00 / 50.00 / 90.00 |" in text
    assert "| d-d | 1 | before 60.00, after 50.00 |" in text
    assert "## Methods" in text


def test_the_same_seed_twice_is_no_second_seed(tmp_path, capsys):
    runs = [write_run(tmp_path / name, seed=0, workdir=name) for name in "ab"]
    runs += [write_scenes_run(tmp_path / name, seed=0, variant="g-d", ap=10.0, after=60.0) for name in "cd"]
    runs += [write_run(tmp_path / "e", seed=1, fpr95=54.0)]
    assert main(runs) == 0
    text = capsys.readouterr().out
    assert "| g-d id | 1 | 10.00 / 50.00 / 90.00 |" in text
    assert "| g-d | 1 | before 60.00, after 60.00 |" in text
    # the mean of two seeds, 50.5 and 54.5, not of three runs
    assert "| all alike (3 runs of 2 seeds) | quantod | 52.00 / 90.00 | 53.00 / 90.00 | 52.50 ± 2.83 / 90.00 |" in text
    assert "| all alike (3 runs of 2 seeds) | 62.00 ± 2.83 / 80.00 |" in text


def test_every_run_decides_which_rows_there_are(tmp_path, capsys):
    runs = [write_scenes_run(tmp_path / str(k), seed=k, variant="g-d", ap=10.0, after=60.0) for k in (0, 1)]
    file = tmp_path / "0" / "results.json"
    first = json.loads(file.read_text())
    file.write_text(json.dumps(first | {"rows": first["rows"][:1]}))
    assert main(runs) == 0
    text = capsys.readouterr().out
    assert "| g-d id | 2 | 10.00 ± 0.00 / 50.00 ± 0.00 / 90.00 ± 0.00 |" in text
    assert "| g-d lr | 1 | 11.00 / 50.00 / 90.00 |" in text


def test_weights_of_one_name_and_other_content_are_kept_apart(tmp_path, capsys):
    runs = []
    for seed, fpr95 in ((0, 0.0), (1, 100.0)):
        file = tmp_path / str(seed) / "classifier.safetensors"
        runs.append(write_run(file.parent, seed=seed, fpr95=fpr95, epochs=1))
        file.write_bytes(bytes([seed]))
        config = resolve(QuantOD(weights=file, seed=seed), accelerator=False)
        results = json.loads((file.parent / "results.json").read_text())
        public = json.loads(json.dumps(outcome.public(identity(config), config)))
        (file.parent / "results.json").write_text(json.dumps(results | {"config": public}))
    assert main(runs) == 0
    text = capsys.readouterr().out
    assert "70.71" not in text
    assert text.count("weights classifier.safetensors ") == 4  # two lines in each table


@pytest.mark.parametrize(("content", "message"), [(None, "finish the run first"), ("{half", "is damaged")])
def test_unfinished_and_damaged_runs(tmp_path, capsys, content, message):
    if content:
        (tmp_path / "results.json").write_text(content)
    assert main([str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
