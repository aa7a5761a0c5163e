"""How stage 1 is run and watched, whatever it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.images.config import Settings
from experiments.progress import OpenProgress
from experiments.run_log import record


@contextmanager
def stage_one(config: Settings, folder: Path, progress: OpenProgress) -> Iterator[dict[str, Any]]:
    """Context: what the settings say to quantjax.classification, with progress, a log and checkpoints."""
    with progress("stage 1, epochs") as report:

        def note(step: int, metrics: dict[str, float]) -> None:
            record(folder, {"stage": "classifier", "step": step, **metrics}, tensorboard=config.tensorboard)
            report(int(metrics["epoch"]), config.epochs, loss=metrics["loss"], accuracy=metrics["accuracy"])

        yield {
            "epochs": config.epochs,
            "batch_size": config.batch_size,
            "seed": config.seed,
            "report": note,
            "checkpoints": folder / "checkpoints" / "classifier",
            "resume": config.resume,
        }
