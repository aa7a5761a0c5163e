"""A floor under what the bundled scenes give, trained small: a silent regression of the method fails here."""

from __future__ import annotations

import json

import jax
import pytest

from experiments.uem import main

# A quarter of the demonstration's pixels and of its steps, half a minute of training.
SMALL = ["--image-height", "56", "--crop", "56", "112", "--object-share", "0.4", "0.9", "--channels", "24"]
SMALL += ["--steps", "120", "--estimator-steps", "120", "--methods", "id", "ood", "lr"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("floor")
    with jax.numpy_rank_promotion("allow"):
        assert main(["--workdir", str(workdir), "--run", "floor", *SMALL]) == 0
    results = json.loads((workdir / "floor" / "results.json").read_text())
    return {row["method"]: row for row in results["rows"]} | {"miou": results["miou"]}


def test_the_segmentor_knows_the_street(rows):
    assert rows["miou"]["before"] > 27.0


@pytest.mark.parametrize(("method", "ap", "auroc"), [("id", 7.0, 54.0), ("ood", 9.5, 59.0), ("lr", 10.5, 59.0)])
def test_every_part_of_the_ratio_finds_unseen_objects(rows, method, ap, auroc):
    assert rows[method]["ap"] > ap
    assert rows[method]["auroc"] > auroc
