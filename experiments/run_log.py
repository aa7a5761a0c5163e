"""metrics.jsonl, one line per epoch, and the same as TensorBoard events where asked for."""

from __future__ import annotations

import atexit
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from experiments.hosts import is_first
from quantjax.report import append_jsonl, read_jsonl

FILE = "metrics.jsonl"


def record(folder: Path, row: Mapping[str, Any], *, tensorboard: bool) -> None:
    """Append `row`, which has "stage" and "epoch", to the run's log."""
    if not is_first():
        return
    append_jsonl(folder / FILE, row)
    if tensorboard:
        for name, value in row.items():
            if isinstance(value, float):
                _writer(folder).add_scalar(f"{row['stage']}/{name}", value, int(row["epoch"]))


def flow_epochs(folder: Path) -> dict[int, dict[str, Any]]:
    """What a run's log says of its flow after each epoch; one that was run twice, because of a kill, counts once."""
    rows = read_jsonl(folder / FILE)
    return {int(row["epoch"]): row for row in rows if row.get("stage") == "flow" and "fpr95" in row}


def check_tensorboard() -> None:
    """Raise ImportError, with the way out, when events cannot be written."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ImportError("--tensorboard needs tensorboardX: install quantjax[tracking]")


@cache
def _writer(folder: Path) -> Any:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    atexit.register(writer.close)  # its thread still holds the last events
    return writer
