"""Rows on their way: read in windows, mapped in a stream, and written in their order."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Hashable, Iterator
from itertools import repeat
from types import NoneType
from typing import Any

from .. import AnswerTypeError, BatchProxyError, Progress
from .._messages import cut
from ._calls import Calls, Ended
from ._formats import Source
from ._keys import key_of
from ._options import Options
from ._output import writing
from ._report import Report
from ._results import Results
from ._rows import BadResult, Failed, Outcome, Row, Stopped, Writer, error_text
from ._terminal import count
from ._weights import BadWeight

_MOST_WINDOWS = 10
"""That are in memory, while some of their rows wait for a batch to be full."""
_SMALL = frozenset({NoneType, bool, int, float, str})
_ROOM = 64 * 2**20
"""Bytes of small results that are kept, so that nobody is asked for them again."""
_OVERHEAD = 300
"""Bytes for one of them, about."""

_UNKNOWN = object()
_BEGINNING = Progress(0, 0, 0, 0, 0, 0)


class _Window:
    """Rows that are read, and written, together."""

    __slots__ = ("errors", "left", "missing", "position", "results", "rows", "wanted")

    def __init__(self, rows: list[Row], results: list[Any], position: int) -> None:
        self.rows = rows
        self.results = results  # one for each, as the writer takes it, as far as they are known
        self.errors: dict[int, str | BadResult] = {}  # by the place of the row
        self.missing = 0  # so many rows have no item
        self.wanted: list[int] = []  # the places of those whose items are in the stream ...
        self.left = 0  # ... of which so many have no outcome yet
        self.position = position  # where it ends in the input

    @property
    def items(self) -> list[Any]:
        """Those in the stream."""
        return [self.rows[place].item for place in self.wanted]


class Passage:
    """Takes rows from `windows` through `calls` to `writer`."""

    def __init__(
        self,
        options: Options,
        source: Source,
        windows: Iterator[list[Row]],
        size: int,
        writer: Writer,
        results: Results,
        calls: Calls,
        report: Report,
    ) -> None:
        self._options = options
        self._stop = options.on_error == "stop"
        self._source = source
        self._windows = windows
        self._size = size
        self._writer = writer
        self._results = results
        self._calls = calls
        self._report = report
        self._under_way: deque[_Window] = deque()
        self._nothing = writer.rendered(None)
        self._known: dict[str | None, Any] = {}  # results, as it takes them, of items that are text
        self._room = _ROOM
        self._ended = False
        self._broken: Exception | None = None  # what ended the reading
        self._now = self._before = _BEGINNING  # how far the stream is, and was at the last window

    def run(self) -> None:
        """Until all is written.

        Raises:
            BadInput: the input cannot be mapped.
            Stopped: it cannot go on, or is not to.
        """
        while not self._ended:
            self._now = self._before = _BEGINNING
            stream = self._calls.stream(
                self._items(),
                self._size,
                keep_failures=not self._stop,
                progress=self._progress,
            )
            with stream as results:
                chunks = results.chunks()
                while chunk := self._next(chunks):
                    self._take(chunk)
        if self._broken is not None:
            raise self._broken

    def _next(self, chunks: Iterator[list[tuple[Any, Any]]]) -> list[tuple[Any, Any]]:
        try:
            return next(chunks, [])
        except (Exception, SystemExit) as error:
            end: BaseException = error
            if isinstance(error.__cause__, StopIteration) and not self._calls.items_of(error):
                end = error.__cause__  # which no iterator can raise
            raised = _raised(end)
            if isinstance(end, BadWeight):
                raise Failed(f"{self._where([key_of(end.item)])}{end}") from raised
            keys = [key_of(item) for item in self._calls.items_of(end)] or _refused(end)
            where = self._where(keys)
            text = error_text(raised)
            text = text if isinstance(raised, BatchProxyError) else cut(text)  # as in `describe`
            raise Failed(f"{where}{text}{_hint(end)}") from raised

    def _items(self) -> Iterator[Any]:
        """What is to be computed, window by window; those before are written on the way."""
        try:
            for rows in self._windows:
                self._writer.prepare(rows)
                window = self._looked_up(rows)
                self._under_way.append(window)
                if len(self._under_way) == 1:
                    self._begin(window)
                self._write_finished()
                yield from window.items
                if len(self._under_way) >= _MOST_WINDOWS:
                    return  # a batch goes out that is not full
            self._ended = True
        except Exception as error:
            self._ended, self._broken = True, error

    def _looked_up(self, rows: list[Row]) -> _Window:
        """A window of `rows`, with the results that are known."""
        # In lists as wholes, which takes less time for each row.
        texts = [
            row.item if row.problem is None and type(row.item) is str else None for row in rows
        ]
        results = [*map(self._known.get, texts, repeat(_UNKNOWN))]
        window = _Window(rows, results, self._source.position())
        for place in [place for place, result in enumerate(results) if result is _UNKNOWN]:
            row = rows[place]
            if row.mapped:
                window.wanted.append(place)
                continue
            results[place] = self._nothing
            window.missing += row.missing
            if row.problem is not None:
                window.errors[place] = problem = f"{self._source.name}:{row.line}: {row.problem}"
                if self._stop:
                    raise Stopped(problem)
        window.left = len(window.wanted)
        return window

    def _take(self, chunk: list[tuple[Any, Any]]) -> None:
        """Give these results, the next ones, to their rows."""
        for window in self._under_way:
            if window.left:
                start = len(window.wanted) - window.left
                for place, (item, result) in zip(window.wanted[start:], chunk):
                    if isinstance(result, Exception):
                        window.errors[place] = f"{error_text(_raised(result))}{_hint(result)}"
                        continue
                    try:
                        window.results[place] = self._rendered(item, result)
                    except BadResult as error:
                        # Which is said when it is its turn; with its frames it would be a cycle.
                        window.errors[place] = error.with_traceback(None)
                taken = min(window.left, len(chunk))
                window.left -= taken
                chunk = chunk[taken:]
        self._write_finished()

    def _rendered(self, item: Any, result: Any) -> Any:
        try:
            written = self._results.written(result)
        except Exception as error:
            raise BadResult(
                f"the result has no place in the output: {error_text(error)}"
            ) from error
        rendered = self._writer.rendered(written)
        if type(item) is str and type(result) in _SMALL and self._room > 0:
            self._known[item] = rendered
            size = len(item) + (len(result) if type(result) is str else 0)
            self._room -= _OVERHEAD + size
        return rendered

    def _write_finished(self) -> None:
        windows = self._under_way
        while windows and not windows[0].left:
            window = windows[0]
            with writing(self._options.output, Stopped):
                at_once = not window.errors and self._writer.write_all(window.rows, window.results)
                failed = 0 if at_once else self._write(window)
                self._writer.flush()
            self._report.end_window(failed)
            self._before = self._now
            windows.popleft()
            if windows:
                self._begin(windows[0])

    def _begin(self, window: _Window) -> None:
        self._report.begin_window(len(window.rows), window.missing, window.position, window.items)

    def _progress(self, now: Progress) -> None:
        self._now, before = now, self._before
        self._report.progress(
            dataclasses.replace(now, done=now.done - before.done, total=now.total - before.total)
        )

    def _write(self, window: _Window) -> int:
        """Write the rows of `window` one by one; how many of them failed."""
        failed = 0
        for place, (row, result) in enumerate(zip(window.rows, window.results)):
            failure = window.errors.get(place)
            if failure is None:
                try:
                    self._writer.write(row, Outcome(result))
                    continue
                except BadResult as error:
                    failure = error
            if self._stop and isinstance(failure, BadResult):
                raise Stopped(f"{self._source.name}:{row.line}: {failure}") from failure
            failed += 1
            if self._options.on_error == "record":
                self._writer.write(row, Outcome(None, str(failure)))
        return failed

    def _where(self, keys: list[Hashable]) -> str:
        """File and line of the first of `keys`, whose items failed together."""
        wanted = ((window, place) for window in self._under_way for place in window.wanted)
        for row in (window.rows[place] for window, place in wanted):
            if keys and key_of(row.item) == keys[0]:
                more = f" and {count(len(keys) - 1, 'more item')} of its call" * (len(keys) > 1)
                return f"{self._source.name}:{row.line}{more}: "
        return ""


def _refused(error: BaseException) -> list[Hashable]:
    """The key whose result the store has refused with `error`, if it has."""
    key = error.key if isinstance(error, BatchProxyError) else None
    return [] if key is None else [key]


def _hint(error: BaseException) -> str:
    """What else can be done about a result that was refused for its type."""
    refused = isinstance(error, AnswerTypeError) and _refused(error)
    return "; or see --codec, which says how results are kept" if refused else ""


def _raised(error: BaseException) -> BaseException:
    """What the function raised."""
    return error.__cause__ or error if isinstance(error, Ended) else error
