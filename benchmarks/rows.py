"""The rows of a run: one line each in rows.jsonl the moment they are known, a table at the end."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from quantjax import markdown

BEGIN, FINISHED = "begin", "finished"  # lines that frame one attempt at a question
ABOUT = ("device", "platform", "versions", "smoke")
Row = dict[str, Any]


class RowFile:
    """DIR/rows.jsonl, appended line by line; `about` goes into every line."""

    def __init__(self, folder: Path, about: Row):
        self.folder, self.about = folder, about
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "rows.jsonl"
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):  # a kill cut the last line short
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def write(self, row: Row) -> None:
        """Append and print a row; it is on the disk when this returns."""
        line = json.dumps(row | self.about)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        if BEGIN not in row:
            print(json.dumps(row), flush=True)

    def lines(self) -> list[Row]:
        """All lines; one that a kill cut short is left out."""
        if not self.path.exists():
            return []
        return [row for line in self.path.read_text(encoding="utf-8").splitlines() if (row := _read(line))]

    def answered(self) -> set[str]:
        """Questions that an earlier run answered whole, on this kind of device and at these sizes."""
        same = [row for row in self.lines() if all(row.get(k) == self.about[k] for k in ("device", "smoke"))]
        return {row["question"] for row in same if FINISHED in row}

    def begun(self) -> Counter[str]:
        """How often each question was begun, by this run or an earlier one."""
        return Counter(row["question"] for row in self.lines() if BEGIN in row)

    def finish(self) -> list[Row]:
        """Write rows.json and table.md from the best attempt at every question; returns its rows."""
        rows = best_attempts(self.lines())
        (self.folder / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (self.folder / "table.md").write_text(table(rows), encoding="utf-8")
        return rows


def _read(line: str) -> Row | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def best_attempts(lines: list[Row]) -> list[Row]:
    """For every question the rows of its last finished attempt, else of the attempt that gave most."""
    attempts: dict[str, list[list[Row]]] = {}
    for row in lines:
        of_question = attempts.setdefault(row["question"], [])
        if BEGIN in row or not of_question:
            of_question.append([])
        if BEGIN not in row:
            of_question[-1].append(row)
    best: list[Row] = []
    for given in attempts.values():
        finished = [attempt for attempt in given if any(FINISHED in row for row in attempt)]
        chosen = finished[-1] if finished else max(reversed(given), key=len)
        best += [row for row in chosen if FINISHED not in row]
    return best


COLUMNS = ("precision", "seconds", "rate", "ratio", "peer", "roofline_fraction", "bound", "compile_seconds")


def table(rows: list[Row]) -> str:
    """A Markdown table of one line a row; what has no column of its own stands in the last one."""
    about = {str(row[key]) for row in rows for key in ("device",) if key in row}
    head = ["question", *COLUMNS, "more"]
    return f"Measured on {', '.join(sorted(about)) or 'nothing'}.\n\n{markdown.table(head, map(_cells, rows))}\n"


def _cells(row: Row) -> list[str]:
    rest = {key: value for key, value in row.items() if key not in (*ABOUT, *COLUMNS, "question")}
    rate = next((key for key in rest if key.endswith("_per_second") and "seconds" in row), None)
    shown = row | ({"rate": f"{_text(rest.pop(rate))} {rate.replace('_per_second', '/s')}"} if rate else {})
    cells = [row["question"], *(_text(shown.get(column, "")) for column in COLUMNS)]
    more = ", ".join(f"{key} {_text(value)}" for key, value in rest.items())
    return [*cells, more]


def _text(value: Any) -> str:
    return f"{value:,.5g}" if isinstance(value, float) else str(value)
