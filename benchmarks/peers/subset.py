"""The first rows of a data source, for measurements that need not read all of it."""

from __future__ import annotations

from typing import Any


class Subset:
    """The first n rows of a source."""

    def __init__(self, rows: Any, count: int):
        self.rows, self.count = rows, min(count, len(rows))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]
