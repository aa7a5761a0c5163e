"""The questions of `python -m benchmarks.gpu`, the most valuable first."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Question(NamedTuple):
    """A name, the function that answers it, and its time budget on an H100 in seconds."""

    name: str
    ask: str  # module:function(sizes, context) -> iterator of rows; imported when it is asked
    seconds: float

    def open(self) -> Callable[..., Iterator[dict[str, Any]]]:
        module, function = self.ask.split(":")
        return getattr(importlib.import_module(f"benchmarks.questions.{module}"), function)


QUESTIONS: tuple[Question, ...] = (
    Question("ceilings", "machine:ceilings", 10),
    Question("scoring", "images:scoring", 100),
    Question("perturbed", "images:perturbed", 60),
    Question("table", "images:table", 40),
    Question("flow_scoring", "flow:scoring", 40),
    Question("flow_training", "flow:training", 60),
    Question("flow_steps", "flow:steps", 20),
    Question("stage1", "stage1:training", 90),
    Question("knn", "banks:knn", 50),
    Question("mahalanobis", "banks:mahalanobis", 15),
    Question("goldens", "right:goldens", 25),
    Question("suite", "right:suite", 100),
    Question("profiles", "profiles:profiles", 60),
)
