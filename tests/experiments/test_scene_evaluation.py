"""What an evaluation set gives whose anomalies are too small to be counted as components."""

import contextlib

import numpy as np
import pytest

from experiments.segmentation import evaluation
from experiments.segmentation.config import UEM, resolve
from quantjax.report.tables import auroc_component_table
from quantjax.segmentation import PREDICTION


@contextlib.contextmanager
def quiet(title):
    yield lambda *args, **extra: None


@pytest.mark.parametrize("exact", [True, False])
def test_a_set_without_a_countable_component_has_its_rates(tmp_path, exact):
    """One anomalous pixel, scored highest, in a scene of the benchmark's size: a component counts from 100 on."""
    label = np.zeros((720, 1280), np.uint8)
    label[5, 7] = 1
    scene = {"image": np.zeros((*label.shape, 3), np.uint8), "label": label, "name": "small"}
    maps = {"id": label.astype(np.float32), PREDICTION: label}
    config = resolve(UEM(exact=exact, crop=(28, 56), image_height=28), accelerator=False)
    found = evaluation.evaluate(
        config, "small", lambda image: maps, [scene], quiet, folder=tmp_path, variant="g-d", names=["id"]
    )
    [row] = found.rows
    assert (row["ap"], row["auroc"], row["fpr95"]) == (100.0, 100.0, 0.0)
    assert row["component_f1"] is row["siou"] is row["ppv"] is None
    assert auroc_component_table({"rows": found.rows}).cells[0][1] == "100.00 / -"
