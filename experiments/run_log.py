"""metrics.jsonl, one line per epoch, and the same as TensorBoard events where asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from quantjax.report import append_jsonl

FILE = "metrics.jsonl"


def record(folder: Path, row: Mapping[str, Any], *, tensorboard: bool) -> None:
    """Append `row`, which has "stage" and "epoch", to the run's log."""
    append_jsonl(folder / FILE, row)
    if tensorboard:
        for name, value in row.items():
            if isinstance(value, float):
                _writer(folder).add_scalar(f"{row['stage']}/{name}", value, int(row["epoch"]))
        _writer(folder).flush()


@cache
def _writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError("--tensorboard needs tensorboardX: install quantjax[tracking]") from error
    return SummaryWriter(str(folder / "tensorboard"))
