"""What a table or a figure of a paper is: lines, each one method of one run, and what is read off its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

AVERAGE = "average"  # beside the names of outlier sets
RUN = "run"  # the column of what belongs to a run, not to a set: its accuracy
Measure = Literal["fpr95", "auroc", "average_precision", "total_seconds", "accuracy"]
SHOWN: dict[Measure, str] = {
    "fpr95": "FPR95",
    "auroc": "AUROC",
    "average_precision": "AUPR",
    "total_seconds": "seconds",
    "accuracy": "accuracy",
}


class Place(NamedTuple):
    """Where a number stands in a table or figure."""

    column: str
    """An outlier set, AVERAGE or RUN."""
    measure: Measure
    """In percent, or seconds."""
    epoch: int | None = None
    """Of the flow, where it is judged after each."""


class Line(NamedTuple):
    """A row of a table, or a curve, a bar or a point of a figure."""

    label: str
    """What the paper calls it."""
    method: str
    """Whose scores are judged, a name of quantjax.methods."""
    flags: Mapping[str, Any] = {}
    """Fields of the command's settings that make this line; no flag of the user's replaces them."""
    published: Mapping[Place, float] = {}
    """What the paper reports."""


class Plan(NamedTuple):
    """A table or figure."""

    title: str
    """What it shows."""
    source: str
    """Paper and number."""
    lines: tuple[Line, ...]
    """From top to bottom."""
    cells: tuple[tuple[Measure, ...], ...]
    """Measures that belong together; each group is a table of its own."""
    by_set: bool = False
    """Whether outlier sets have columns, beside their average."""
    flags: Mapping[str, Any] = {}
    """Fields of the settings that are the paper's; the user's replace them."""
    drawing: Literal["levels", "epochs", "bars"] | None = None
    """How a figure is drawn; None for a table."""


class Value(NamedTuple):
    """A number of a line, over seeds, beside the paper's."""

    line: str
    """Its label."""
    place: Place
    """Where it stands."""
    values: tuple[float, ...]
    """One per seed; none where there is no run."""
    published: float | None
    """The paper's."""
    reason: str = ""
    """Why there are no values."""
