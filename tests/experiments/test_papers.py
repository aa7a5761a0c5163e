"""Tables and figures of a paper: which runs they take, what stands in their cells, what is written."""

import csv
import json
import math

import pytest

from experiments import quantod
from experiments.images.config import PAPER_OUTLIERS, QuantOD
from experiments.papers import jobs as papers
from experiments.papers.layout import COLUMNS, to_latex, to_markdown
from experiments.papers.plan import AVERAGE, RUN, Line, Place, Plan
from experiments.papers.quantod import FIGURES, TABLES
from experiments.run_folder import Opened
from experiments.tables import main

PLANS = {**{f"table {k}": v for k, v in TABLES.items()}, **{f"figure {k}": v for k, v in FIGURES.items()}}
SETS = ("stripes", "noise")


def line(label, method, **flags):
    return Line(label, method, flags, {Place(AVERAGE, "fpr95"): 10.0})


PLAN = Plan(
    "A plan", "Nobody", (line("MSP", "msp"), line("flow", "quantod")), (("fpr95", "auroc"), ("accuracy",)), True
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A stand-in for the command: FPR95 is 10 times the seed, and one more on every further set."""
    calls = []

    def carry_out(config, *, classifier=None):
        calls.append((config, classifier))
        if config.q == 0.75:
            raise FloatingPointError("the loss became nan")
        folder = config.workdir / f"run{len(calls)}"
        folder.mkdir(parents=True)
        rows = [
            {"method": m, "outlier": s, "fpr95": 10.0 * config.seed + k, "auroc": 90.0, "average_precision": 80.0}
            for m in config.scores
            for k, s in enumerate(config.outliers)
        ]
        results = {"rows": rows, "accuracy": 50.0, "config": {"seed": config.seed}}
        (folder / "results.json").write_text(json.dumps(results))
        log = [{"stage": "flow", "epoch": e, "fpr95": 40.0 - e, "auroc": 60.0 + e} for e in (1, 2, 2)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, log)))
        return Opened(folder, False)

    monkeypatch.setattr(quantod, "carry_out", carry_out)
    return calls


def given(tmp_path, **flags):
    return QuantOD(workdir=tmp_path, outliers=SETS, **flags)


def values_of(plan, tmp_path, seeds, **flags):
    wanted = papers.jobs(plan, given(tmp_path, **flags), seeds)
    classifiers = {}
    done = [(job, papers.carry_out(job.config, classifiers)) for job in wanted]
    return {(value.line, value.place): value for value in papers.values(plan, done)}, done


@pytest.fixture
def sets(monkeypatch):
    """Every outlier set is there."""
    monkeypatch.setattr("experiments.images.sets.absent", lambda config: {})


@pytest.mark.parametrize("name", PLANS)
def test_every_line_is_a_method_with_settings_that_exist(name):
    from quantjax import methods

    plan = PLANS[name]
    for one in plan.lines:
        assert methods.get(one.method).name == one.method
        QuantOD(**plan.flags, **{k: v for k, v in one.flags.items() if k not in plan.flags})
        assert all(0.0 < value <= 100.0 for value in one.published.values())
    assert len({one.label for one in plan.lines}) == len(plan.lines)


def test_published_averages_are_those_of_their_sets():
    for one in TABLES["quantod-1"].lines:
        for measure in ("fpr95", "auroc", "average_precision"):
            numbers = [one.published[Place(name, measure)] for name in PAPER_OUTLIERS]
            # the paper rounds; its MSP has an AUPR of 97.92 where the six make 97.92
            assert math.isclose(sum(numbers) / 6, one.published[Place(AVERAGE, measure)], abs_tol=0.02)


def test_a_run_per_seed_where_a_seed_decides_anything(tmp_path):
    weights = tmp_path / "w.pth"
    wanted = papers.jobs(PLAN, given(tmp_path, weights=weights), (0, 1, 2))
    assert [(job.config.seed, job.config.scores) for job in wanted] == [
        (0, ("msp",)), (0, ("quantod",)), (1, ("quantod",)), (2, ("quantod",)),
    ]  # fmt: skip
    for pattern in (None, tmp_path / "{inlier}_{backbone}_{seed}.pth"):
        assert len(papers.jobs(PLAN, given(tmp_path, weights=pattern, backbone="wrn40_2"), (0, 1, 2))) == 6
    last = papers.jobs(PLAN, given(tmp_path, weights=pattern, backbone="wrn40_2", inlier="cifar10"), (0, 7))[-1]
    assert last.config.weights == tmp_path / "cifar10_wrn40_2_7.pth"


def test_cells_hold_every_seed_and_the_papers_number(tmp_path, run, sets):
    found, _ = values_of(PLAN, tmp_path, (0, 2))
    flow = found["flow", Place("noise", "fpr95")]
    assert (flow.values, flow.published) == ((1.0, 21.0), None)
    average = found["flow", Place(AVERAGE, "fpr95")]
    assert (average.values, average.published) == ((0.5, 20.5), 10.0)
    assert found["MSP", Place(RUN, "accuracy")].values == (50.0, 50.0)
    text = to_markdown(PLAN, list(found.values()))
    # 1 and 21: mean 11, deviation 20 / sqrt(2) = 14.14; averages 0.5 and 20.5
    assert "| flow | 10.00 ± 14.14 / 90.00 ± 0.00 | 11.00 ± 14.14 / 90.00 ± 0.00 | 10.50 ± 14.14 / 90.00 ± 0.00" in text
    assert "(10.00 / –) |" in text
    assert r"10.50 $\pm$ 14.14" in to_latex(PLAN, list(found.values()))


def test_stage_one_is_trained_once_for_all_flows(tmp_path, run, sets):
    plan = PLAN._replace(lines=tuple(line(f"n = {n}", "quantod", blocks=n) for n in (2, 4)))
    values_of(plan, tmp_path, (0, 1))
    first, *others = [classifier for _, classifier in run]
    assert [config.blocks for config, _ in run] == [2, 2, 4, 4]
    assert (first, others) == (None, [None, tmp_path / "run1", tmp_path / "run2"])


def test_a_missing_set_leaves_its_cells_empty(tmp_path, run, monkeypatch):
    monkeypatch.setattr("experiments.images.sets.absent", lambda config: {"noise": "noise was not found"})
    found, done = values_of(PLAN, tmp_path, (0,))
    assert [config.outliers for config, _ in run] == [("stripes",)] * 2
    assert found["MSP", Place("stripes", "fpr95")].values == (0.0,)
    for column in ("noise", AVERAGE):
        assert found["MSP", Place(column, "fpr95")][2:] == (
            (),
            10.0 if column == AVERAGE else None,
            "noise was not found",
        )
    assert found["MSP", Place(RUN, "accuracy")].values == (50.0,)
    assert not any(one.failed for _, one in done)
    text = to_markdown(PLAN, list(found.values()))
    assert "| MSP | 0.00 / 90.00 | – | – (10.00 / –) |" in text
    assert "- MSP, noise; MSP, average; flow, noise and 1 more: noise was not found" in text


def test_missing_weights_and_a_failed_run_leave_their_cells_empty(tmp_path, run, sets):
    there = tmp_path / "0.pth"
    there.touch()
    plan = PLAN._replace(lines=(line("good", "quantod"), line("bad", "quantod", q=0.75)))
    found, done = values_of(plan, tmp_path, (0, 1), weights=tmp_path / "{seed}.pth")
    assert found["good", Place(AVERAGE, "fpr95")].values == (0.5,)
    assert found["bad", Place(AVERAGE, "fpr95")].reason == "the loss became nan"
    assert [one.failed for _, one in done] == [False, False, True, False]
    assert done[1][1].reasons == {RUN: f"no weights {tmp_path / '1.pth'}"}


def test_figures_by_epoch_read_the_log(tmp_path, run, sets):
    plan = PLAN._replace(drawing="epochs", by_set=False, cells=(("fpr95", "auroc"),))
    found, _ = values_of(plan, tmp_path, (0,))
    assert [found["flow", Place(AVERAGE, "fpr95", e)].values for e in (1, 2)] == [(39.0,), (38.0,)]


def test_the_command_writes_every_file_and_goes_on(tmp_path, capsys):
    """Two flows behind one classifier, really trained; again, there is nothing left to do."""
    arguments = ["--figure", "quantod-3", "--workdir", str(tmp_path), "--smoke"]
    assert main(arguments) == 0
    first = capsys.readouterr()
    names = {file.name for file in (tmp_path / "tables").iterdir()}
    assert names == {f"figure-quantod-3.{kind}" for kind in ("md", "tex", "csv", "json", "svg", "pdf", "png")}
    rows = list(csv.DictReader((tmp_path / "tables" / "figure-quantod-3.csv").open()))
    assert tuple(rows[0]) == COLUMNS
    assert {(row["line"], row["epoch"]) for row in rows} == {
        (n, e) for n in ("q = 0.05", "mean") for e in ("", "1", "2")
    }
    assert all(0.0 <= float(row["mean"]) <= 100.0 for row in rows)
    assert first.err.count("stage 1, epochs: 1/1 in") == 1
    assert first.err.count("stage 2, epochs: 2/2 in") == 2
    before = (tmp_path / "tables" / "figure-quantod-3.json").read_text()
    assert main(arguments) == 0
    assert "stage" not in capsys.readouterr().err
    assert (tmp_path / "tables" / "figure-quantod-3.json").read_text() == before


@pytest.mark.long
def test_every_table_and_figure_smokes(tmp_path, capsys):
    assert main(["--table", *TABLES, "--figure", *FIGURES, "--workdir", str(tmp_path), "--smoke"]) == 0
    found = {file.stem for file in (tmp_path / "tables").glob("*.json")}
    assert found == {f"table-{name}" for name in TABLES} | {f"figure-{name}" for name in FIGURES}
    assert "Empty:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a_run", "--table", "quantod-1"], 1, "leave out a_run"),
        (["a_run", "--", "--seed", "1"], 1, "name one, or drop --seed"),
        ([], 1, "give folders of finished runs"),
    ],
)
def test_contradictions_are_one_error(arguments, status, message, capsys):
    assert main(arguments) == status
    assert message in capsys.readouterr().err


def test_the_list_names_all(capsys):
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(f"--table {name}:" in text for name in TABLES)
    assert all(f"--figure {name}:" in text for name in FIGURES)
