"""A floor under what the bundled scenes give, trained small: a silent regression of the method fails here."""

from __future__ import annotations

import json

import jax
import pytest

from experiments.uem import main

pytestmark = pytest.mark.long

# An eighth of the demonstration's pixels and steps, half a minute of training.
SMALL = ["--image-height", "42", "--crop", "42", "84", "--object-share", "0.4", "0.9", "--channels", "16"]
SMALL += ["--steps", "80", "--estimator-steps", "80", "--batch-size", "4", "--methods", "id", "ood", "lr"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("floor")
    with jax.numpy_rank_promotion("allow"):
        assert main(["--workdir", str(workdir), "--run", "floor", *SMALL]) == 0
    results = json.loads((workdir / "floor" / "results.json").read_text())
    return {row["method"]: row for row in results["rows"]} | {"miou": results["miou"]}


def test_the_segmentor_knows_the_street(rows):
    assert rows["miou"]["before"] > 20.0


@pytest.mark.parametrize(("method", "ap", "auroc"), [("id", 7.8, 52.0), ("ood", 8.2, 53.5), ("lr", 8.2, 54.0)])
def test_every_part_of_the_ratio_finds_unseen_objects(rows, method, ap, auroc):
    assert rows[method]["ap"] > ap
    assert rows[method]["auroc"] > auroc
