"""Work that threads do in advance while the caller uses what is done: files are decoded while a device computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from quantjax.checks import check_interval
from quantjax.machine import cores

Item = TypeVar("Item")
Done = TypeVar("Done")


def ahead(do: Callable[[Item], Done], items: Iterable[Item], most: int) -> Iterator[Done]:
    """do(item) of every item, in order; at most `most` results are made before they are asked for.

    `items` may be endless, and are taken as the results are. What `do` raises comes where its result would have come,
    and ends the iteration. Raises ValueError for most < 1.
    """
    check_interval("most", most, 1, float("inf"))
    return _results(do, items, most)


def _results(do: Callable[[Item], Done], items: Iterable[Item], most: int) -> Iterator[Done]:
    waiting: deque[Future[Done]] = deque()
    pool = ThreadPoolExecutor(2 * cores(), thread_name_prefix="ahead")
    try:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
