"""Progress for people: a bar with rate and time left on a terminal, a plain line every ten seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

from experiments import hosts
from experiments.terminal import draws

OpenProgress = Callable[[str], Any]  # title -> context whose object is called with (done, total): Progress, say
INTERVAL = 10.0  # seconds between lines in a log


class Progress:
    """Context whose object is a callback (done, total): `with Progress("score isun") as report: ...`.

    Extra keywords are shown behind the numbers, e.g. report(3, 50, loss=1.2). Nothing is drawn for work that is over
    before the first interval, except one closing line in a log.
    """

    def __init__(self, title: str, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.title, self.stream, self.clock = title, hosts.progress_stream() if stream is None else stream, clock
        self.done = self.total = 0
        self.extra: dict[str, Any] = {}
        self.start = self.drawn = clock()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self.start = self.drawn = self.clock()
        if draws(self.stream):
            self._open_bar()
        return self

    def __call__(self, done: int, total: int, **extra: Any) -> None:
        """Note that `done` of `total` units are finished."""
        self.done, self.total, self.extra = done, total, extra
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, rate=self._rate(), extra=self._extra())
        elif self.clock() - self.drawn >= INTERVAL:
            self.drawn = self.clock()
            self._line(f"{done}/{total} ({100 * done / max(total, 1):.0f} %), {self._rate()}, {self._left()}")

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.total and kind is None:
            self._line(f"{self.done}/{self.total} in {self.clock() - self.start:.1f} s, {self._rate()}")

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        console = Console(file=self.stream)
        self._bar = Bar(*columns, TextColumn("{task.fields[rate]}{task.fields[extra]}"), console=console)
        self._task = self._bar.add_task(self.title, total=None, rate="", extra="")
        self._bar.start()

    def _line(self, text: str) -> None:
        print(f"{self.title}: {text}{self._extra()}", file=self.stream, flush=True)

    def _rate(self) -> str:
        rate = self.done / max(self.clock() - self.start, 1e-9)
        return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"

    def _left(self) -> str:
        seconds = (self.total - self.done) * (self.clock() - self.start) / max(self.done, 1)
        return f"about {seconds:.0f} s left"

    def _extra(self) -> str:
        shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.extra.items()]
        return "".join(f", {text}" for text in shown)
