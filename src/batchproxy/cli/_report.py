"""Progress and summary, on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TextIO, cast

from tqdm import tqdm

from .. import Progress, Statistics
from ._distinct import Distinct, said
from ._keys import key_of
from ._store import Place
from ._terminal import count, say

_BAR_EVERY, _LINE_EVERY = 0.1, 10.0  # seconds


class Report(AbstractContextManager["Report"]):
    """What is known of the run so far: a bar if `stream` is a terminal, else a line now and then.

    A thread of its own shows it, so that it moves while a function takes its time.

    Args:
        statistics: What the proxy has done.
        total: The size of the input in bytes, as `Source.position` counts; None if unknown.
        quiet: Show nothing.
        bar: Whether a terminal gets a bar; it is in the way of rows that go there, too.
        stream: Where it is shown; standard error.
    """

    def __init__(
        self,
        statistics: Callable[[], Statistics],
        total: int | None,
        *,
        quiet: bool = False,
        bar: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self.rows = self.failed = self.missing = 0
        self.distinct = Distinct()
        self._statistics = statistics
        self._total = total
        self._quiet = quiet
        self._stream = stream = stream or sys.stderr
        self._start = time.monotonic()
        # The window under way: where it begins and ends in the input, its rows, the distinct keys
        # before it, how much is done.
        self._from = self._to = self._rows = self._known = 0
        self._done = 0.0
        self._bar: tqdm[Any] | None = None
        if bar and not quiet and can_redraw(stream):
            known = "{percentage:3.0f}%|{bar}| {remaining} left{postfix}"
            bar_format = known if total else "{elapsed}{postfix}"
            tqdm.monitor_interval = 0  # no thread of tqdm's: there is one here
            self._bar = tqdm(total=total, file=stream, bar_format=bar_format, leave=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batchproxy report", daemon=True)

    def begin_window(self, rows: int, missing: int, position: int, items: list[Any]) -> None:
        """So many rows are being mapped, up to this position of the input.

        Args:
            rows: All of them.
            missing: Those without an item.
            position: As `Source.position` counts.
            items: Those that may not have been among earlier ones.
        """
        self._known = self.distinct.count
        self.distinct.add([item if type(item) is str else key_of(item) for item in items])
        self.missing += missing
        self._rows, self._done = rows, 0.0
        self._from, self._to = self._to, position

    def progress(self, now: Progress) -> None:
        """How far the window is."""
        self._done = now.done / max(now.total, 1)

    def end_window(self, failed: int) -> None:
        """The window is written; so many of its rows have failed."""
        self.rows += self._rows
        self.failed += failed
        self._rows, self._from, self._known = 0, self._to, self.distinct.count

    def show(self) -> None:
        """Show how far the run is."""
        if self._bar is not None:
            self._bar.n = self._position()
            self._bar.ncols = columns = _columns(self._stream)
            self._bar.set_postfix_str(", ".join(_fit(self._counts(), columns - _BESIDES)))
        elif not self._quiet:
            say(f"{', '.join(self._counts())}{self._remaining()}", self._stream)

    def say(self, line: str) -> None:
        """Print `line`, unless all is to be quiet."""
        if not self._quiet:
            say(line, self._stream)

    def summary(self, store: Place | None) -> None:
        """What the run did, and what it saved; `store` is where the results are, if they are."""
        done, rows = self._statistics(), self.rows
        seconds = time.monotonic() - self._start
        others = f", {done.shared:,} from other processes" * bool(done.shared)
        found = "" if store is None else f", {count(done.stored, 'hit')} in {store}{others}"
        self.say(f"{count(rows, 'row')}, {self.distinct} distinct, in {seconds:.1f} s")
        self.say(f"{done.computed:,} computed in {count(done.calls, 'call')}{found}")
        saved = max(rows - self.missing - self.failed - done.calls, 0)
        self.say(f"{count(saved, 'call')} saved, compared with one per row")
        if self.missing:
            self.say(f"{count(self.missing, 'row')} without a value, not sent")
        if self.failed:
            self.say(f"{count(self.failed, 'row')} failed")
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

    def _counts(self) -> list[str]:
        done = self._statistics()
        rows = self.rows + int(self._rows * self._done)
        distinct = self._known + int((self.distinct.count - self._known) * self._done)
        rate = rows / max(time.monotonic() - self._start, 0.001)
        return [
            count(rows, "row"),
            f"{said(distinct)} distinct",
            count(done.stored, "hit"),
            count(done.calls, "call"),
            f"{self.failed:,} failed",
            f"{rate:,.0f}/s",
        ]

    def _position(self) -> int:
        return self._from + int((self._to - self._from) * self._done)

    def _remaining(self) -> str:
        position = self._position()
        if not self._total or not position:
            return ""
        seconds = (time.monotonic() - self._start) * (self._total / position - 1)
        left = tqdm.format_interval(max(seconds, 0))
        return f", {100 * position // self._total} %, {left} left"


def can_redraw(stream: TextIO | None) -> bool:
    """Whether a line of `stream` can be drawn over."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


_BESIDES = len("100%|||||| 1:00:00 left, ")


def _fit(counts: list[str], room: int) -> list[str]:
    """As many of `counts` as there is room for; what failed, and rows, go last."""
    rows, distinct, hits, calls, failed, rate = counts
    first = [failed] if failed.startswith("0 ") else []
    for leaving in (*first, rate, distinct, hits, calls, failed, rows):
        if len(", ".join(counts)) <= room:
            break
        counts = [each for each in counts if each != leaving]
    return counts


@contextlib.contextmanager
def printing(*, stdout_to_stderr: bool, bar: bool) -> Iterator[None]:
    """Inside, what is printed, by whomever, goes above the bar and does not tear it.

    Args:
        stdout_to_stderr: Whether standard output is for rows, and for nothing else.
        bar: Whether there is one, in a terminal.
    """
    out, error = sys.stdout, sys.stderr
    beside: list[_Beside] = []
    if bar and can_redraw(error):
        beside = [_Beside(error, error), _Beside(out, error)]
        error = cast(TextIO, beside[0])
        out = cast(TextIO, beside[1]) if out is not None and out.isatty() else out
    with (
        contextlib.redirect_stdout(error if stdout_to_stderr else out),
        contextlib.redirect_stderr(error),
    ):
        try:
            yield
        finally:
            for each in beside:
                each.end()


class _Beside:
    """Text for `stream`, which goes there line by line, with the bar of `terminal` out of its way.

    Of a line that is drawn again and again, by another bar, the last state is written.
    """

    def __init__(self, stream: TextIO, terminal: TextIO) -> None:
        self._stream = stream
        self._terminal = terminal
        self._lock = threading.RLock()
        self._begun = ""

    def write(self, text: str) -> int:
        with self._lock:
            lines, end, begun = (self._begun + text).rpartition("\n")
            self._begun = begun.rpartition("\r")[2]
            if end:
                self._write(lines + end)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        with self._lock:
            if self._begun:
                self._write(self._begun + "\n")
            self._begun = ""

    def _write(self, text: str) -> None:
        with tqdm.external_write_mode(self._terminal):
            self._stream.write(text)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
