"""metrics.jsonl, one line per epoch, and the same as TensorBoard events where asked for."""

from __future__ import annotations

import atexit
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from experiments.hosts import is_first
from quantjax.report import append_jsonl

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
