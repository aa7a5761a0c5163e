"""Values of a table or figure laid out: Markdown and LaTeX for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.papers.plan import AVERAGE, RUN, SHOWN, Measure, Place, Plan, Value
from experiments.side_by_side import spread
from quantjax import markdown

COLUMNS = ("line", "column", "measure", "epoch", "mean", "deviation", "seeds", "published", "reason")
NOTE = (
    "Percent, inlier positive; mean ± standard deviation over seeds. In brackets: the paper's own number, of its own "
    "classifier and sets."
)
NONE = "–"
Found = Mapping[tuple[str, Place], Value]  # by line and place


class Block(NamedTuple):
    """One table of several."""

    header: list[str]
    lines: list[list[str]]


def rows(values: Sequence[Value]) -> list[dict[str, Any]]:
    """One row per number, with the keys COLUMNS."""
    return [
        {
            "line": value.line,
            "column": value.place.column,
            "measure": value.place.measure,
            "epoch": value.place.epoch,
            "mean": statistics.fmean(value.values) if value.values else None,
            "deviation": statistics.stdev(value.values) if len(value.values) > 1 else None,
            "seeds": len(value.values),
            "published": value.published,
            "reason": value.reason,
        }
        for value in values
    ]


def to_csv(values: Sequence[Value]) -> str:
    """`rows` as a CSV file with a header; what is not there is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(values))
    return text.getvalue()


def to_markdown(plan: Plan, values: Sequence[Value]) -> str:
    """Tables, and below them why cells are empty."""
    parts = [f"## {plan.title}", f"{plan.source}. {NOTE}"]
    parts += [markdown.table(block.header, block.lines, numbers=True) for block in blocks(plan, values)]
    return "\n\n".join([*parts, *_reasons(values)]) + "\n"


def to_latex(plan: Plan, values: Sequence[Value]) -> str:
    """The same tables for a document that uses the package booktabs."""
    return "\n\n".join(_tabular(block) for block in blocks(plan, values)) + "\n"


def blocks(plan: Plan, values: Sequence[Value]) -> list[Block]:
    """One per group of measures: lines down; sets and their average across, or the measures."""
    found = {(value.line, value.place): value for value in values}
    return [_block(plan, measures, found) for measures in plan.cells]


def _block(plan: Plan, measures: Sequence[Measure], found: Found) -> Block:
    across = _columns(plan, measures, found)
    header = ["Method" if plan.drawing is None else "", *across]
    lines = [[line.label, *(_cell(line.label, places, found) for places in across.values())] for line in plan.lines]
    return Block(header, lines)


def _columns(plan: Plan, measures: Sequence[Measure], found: Found) -> dict[str, list[Place]]:
    """Head of a column -> what stands in its cells."""
    if not plan.by_set or measures == ("accuracy",):
        return {SHOWN[m]: [Place(RUN if m == "accuracy" else AVERAGE, m)] for m in measures}
    sets = dict.fromkeys(place.column for _, place in found if place.column not in (AVERAGE, RUN))
    shown = " / ".join(SHOWN[measure] for measure in measures)
    heads = {name: name for name in sets} | {f"average {shown}": AVERAGE}
    return {head: [Place(column, measure) for measure in measures] for head, column in heads.items()}


def _cell(line: str, places: Sequence[Place], found: Found) -> str:
    own = [found.get((line, place)) for place in places]
    if not any(own):
        return NONE
    ours = [spread(value.values) if value and value.values else NONE for value in own]
    theirs = [f"{value.published:.2f}" if value and value.published is not None else NONE for value in own]
    text = " / ".join(dict.fromkeys(ours)) if set(ours) == {NONE} else " / ".join(ours)
    return text if set(theirs) == {NONE} else f"{text} ({' / '.join(theirs)})"


def _reasons(values: Sequence[Value]) -> list[str]:
    """Why cells are empty, each reason once."""
    found: dict[str, list[str]] = {}
    for value in values:
        if value.reason:
            found.setdefault(value.reason, []).append(f"{value.line}, {value.place.column}")
    if not found:
        return []
    return ["Empty:", "\n".join(f"- {_and_more(where)}: {reason}" for reason, where in found.items())]


def _and_more(places: Sequence[str], most: int = 3) -> str:
    unique = list(dict.fromkeys(places))
    return "; ".join(unique[:most]) + (f" and {len(unique) - most} more" if len(unique) > most else "")


def _tabular(block: Block) -> str:
    columns = "l" + "r" * (len(block.header) - 1)
    ends = [" & ".join(map(_tex, line)) + r" \\" for line in (block.header, *block.lines)]
    inside = [r"\toprule", ends[0], r"\midrule", *ends[1:], r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *inside, r"\end{tabular}"])


def _tex(text: str) -> str:
    replaced: Callable[[str], str] = lambda sign: {"±": r"$\pm$", NONE: "--"}.get(sign, "\\" + sign)  # noqa: E731
    return "".join(replaced(sign) if sign in "_%&#${}±" + NONE else sign for sign in text)
