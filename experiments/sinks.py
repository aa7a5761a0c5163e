"""Where the rows of a command go, one after the other: lines, JSON or CSV on standard output, a Parquet file."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Write = Callable[[Row], None]
Columns = Mapping[str, type]  # name -> str, int or float
GROUP = 4096  # rows of a Parquet file written at once


def to_json(row: Row) -> str:
    """One line of JSON."""
    return json.dumps(row)


def printing(to_line: Callable[[Row], str]) -> Write:
    """Print a line for every row."""
    return lambda row: print(to_line(row), flush=True)


def printing_csv(columns: Columns) -> Write:
    """Print a line of CSV for every row, the names of the columns first; what a row has not is empty."""
    writer = csv.DictWriter(sys.stdout, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()

    def write(row: Row) -> None:
        writer.writerow(row)
        sys.stdout.flush()

    return write


@contextmanager
def parquet(file: Path, columns: Columns) -> Iterator[Write]:
    """Context: what writes a row to a Parquet file, which is there, whole, once the block has ended without an error.

    Without a row no file is made. Raises ImportError where pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise ImportError(f"writing {file} needs pyarrow: pip install 'quantjax[parquet]'") from error
    from quantjax.atomic import replaced_file

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    waiting: list[Row] = []
    with ExitStack() as stack:
        writers: list[Any] = []

        def flush() -> None:
            if waiting and not writers:
                writers.append(stack.enter_context(ParquetWriter(stack.enter_context(replaced_file(file)), schema)))
            if waiting:
                writers[0].write_table(pyarrow.Table.from_pylist(waiting, schema))
                waiting.clear()

        def write(row: Row) -> None:
            waiting.append(row)
            if len(waiting) == GROUP:
                flush()

        yield write
        flush()
