"""Progress and summary, on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

from .._progress import Progress
from .._statistics import Statistics
from ._distinct import Distinct
from ._keys import key_of
from ._rows import Row

_BAR_EVERY, _LINE_EVERY = 0.1, 10.0  # seconds


class Report(AbstractContextManager["Report"]):
    """What is known of the run so far: a bar if `stream` is a terminal, else a line now and then.

    A thread of its own shows it, so that it moves while a function takes its time.

    Args:
        statistics: What the proxy has done.
        total: The size of the input in bytes, as `Source.position` counts; None if unknown.
        quiet: Show nothing.
        stream: Where it is shown; standard error.
    """

    def __init__(
        self,
        statistics: Callable[[], Statistics],
        total: int | None,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.rows = self.failed = 0
        self.distinct = Distinct()
        self._statistics = statistics
        self._total = total
        self._quiet = quiet
        self._stream = stream = stream or sys.stderr
        self._start = time.monotonic()
        # The window under way: where it begins and ends in the input, its rows, how much is done.
        self._from = self._to = self._rows = 0
        self._done = 0.0
        self._bar: tqdm[Any] | None = None
        if not quiet and stream.isatty():
            # What fits into few columns comes first.
            known = "{percentage:3.0f}%|{bar}| {remaining} left{postfix}"
            bar_format = known if total else "{elapsed}{postfix}"
            tqdm.monitor_interval = 0  # no thread of tqdm's: there is one here
            self._bar = tqdm(total=total, file=stream, bar_format=bar_format, leave=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batchproxy report", daemon=True)

    def begin_window(self, rows: list[Row], position: int) -> None:
        """These rows are being mapped, up to this position of the input."""
        self.distinct.add(key_of(row.item) for row in rows if row.problem is None)
        self._rows, self._done = len(rows), 0.0
        self._from, self._to = self._to, position

    def progress(self, now: Progress) -> None:
        """How far the window is."""
        self._done = now.done / max(now.total, 1)

    def end_window(self, failed: int) -> None:
        """The window is written; so many of its rows have failed."""
        self.rows += self._rows
        self.failed += failed
        self._rows, self._from = 0, self._to

    def show(self) -> None:
        """Show how far the run is."""
        if self._bar is not None:
            self._bar.n = self._position()
            self._bar.set_postfix_str(self._counts())
        elif not self._quiet:
            print(f"batchproxy: {self._counts()}{self._remaining()}", file=self._stream, flush=True)

    def say(self, line: str) -> None:
        """Print `line`, unless all is to be quiet."""
        if not self._quiet:
            print(f"batchproxy: {line}", file=self._stream, flush=True)

    def summary(self, store: str | None) -> None:
        """What the run did, and what it saved; `store` is where the results are, if they are."""
        done, rows = self._statistics(), self.rows
        seconds = time.monotonic() - self._start
        others = f", {done.shared:,} from other processes" * bool(done.shared)
        found = "" if store is None else f", {_count(done.stored, 'hit')} in {store}{others}"
        self.say(f"{rows:,} rows, {self.distinct} distinct, in {seconds:.1f} s")
        self.say(f"{done.computed:,} computed in {_count(done.calls, 'call')}{found}")
        self.say(f"{_count(max(rows - done.calls, 0), 'call')} saved, compared with one per row")
        if self.failed:
            self.say(f"{_count(self.failed, 'row')} failed")
        if store is None:
            self.say("results were not kept: with --store and --namespace another run finds them")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Show nothing more but what is said. Twice is fine."""
        self._stop.set()
        if self._bar is not None:
            self._bar.close()

    def _run(self) -> None:
        while not self._stop.wait(_LINE_EVERY if self._bar is None else _BAR_EVERY):
            self.show()

    def _counts(self) -> str:
        done = self._statistics()
        rows = self.rows + int(self._rows * self._done)
        rate = rows / max(time.monotonic() - self._start, 0.001)
        return (
            f"{rows:,} rows, {self.distinct} distinct, {_count(done.stored, 'hit')}, "
            f"{_count(done.calls, 'call')}, {self.failed:,} failed, {rate:,.0f}/s"
        )

    def _position(self) -> int:
        return self._from + int((self._to - self._from) * self._done)

    def _remaining(self) -> str:
        position = self._position()
        if not self._total or not position:
            return ""
        seconds = (time.monotonic() - self._start) * (self._total / position - 1)
        left = tqdm.format_interval(max(seconds, 0))
        return f", {100 * position // self._total} %, {left} left"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
