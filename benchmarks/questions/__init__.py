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
    Question("ceilings", "machine:ceilings", 15),
    Question("scoring", "images:scoring", 170),
    Question("stage1", "stage1:training", 100),
    Question("flow_training", "flow:training", 90),
    Question("windows", "scenes:windows", 110),
    Question("flow_scoring", "flow:scoring", 50),
    Question("scene", "scenes:scene", 35),
    Question("table", "images:table", 45),
    Question("knn", "banks:knn", 60),
    Question("goldens", "right:goldens", 30),
    Question("perturbed", "images:perturbed", 90),
    Question("estimator_step", "scenes:estimator_step", 35),
    Question("mixture_step", "scenes:mixture_step", 15),
    Question("mahalanobis", "banks:mahalanobis", 15),
    Question("flow_steps", "flow:steps", 30),
    Question("profiles", "profiles:profiles", 60),
    Question("suite", "right:suite", 100),
)
