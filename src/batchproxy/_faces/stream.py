"""A stream of a synchronous proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .._core.progress import Reporting
from .._core.window import Portion, Window
from .._engine.engine import Engine
from .._engine.feed import Feed
from .._errors import ClosedError

S = TypeVar("S")
T = TypeVar("T")

ONCE = "a stream is entered once; call stream() again"
OUTSIDE = (
    "results are taken inside of the block of a stream: "
    "`{how} proxy.stream(source, fetch) as results:`"
)


class Stream(Generic[S, T]):
    """What `BatchingMapProxy.stream` gives: pairs of an item and its result.

    The synchronous twin of `AsyncStream`, to be used as ``with proxy.stream(source, fetch) as
    results``, and inside of that block with ``for item, result in results``, or ``for chunk in
    results.chunks()``. What differs: nothing is read or called for between two results. When all
    that is there has been taken, the window is filled again, and called for as far as batches are
    full.

    Cancellation: Ctrl-C ends it promptly, as a ``map()``.

    Threads: It belongs to one thread at a time, in which the source is read.
    """

    def __init__(
        self,
        engine: Any,
        feed: Any,
        window: Any,
        step: Callable[[Any], None],
        reporting: Reporting | None,
    ) -> None:
        # Which is nothing for users to know.
        self._engine: Engine = engine
        self._feed: Feed = feed
        self._window: Window = window
        self._step: Callable[[Portion | None], None] = step
        self._reporting = reporting
        self._buffer: Iterator[tuple[S, T]] = iter(())
        self._pairs: Iterator[tuple[S, T]] = iter(())
        self._entered = self._left = False

    def __enter__(self) -> Self:
        if self._entered:
            raise ClosedError(ONCE)
        self._entered = True
        self._pairs = chain.from_iterable(self._parts())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left = True
        if self._reporting is not None:
            self._reporting.end()
        for _ in self._buffer:  # also for those who have an iterator
            pass
        self._window.forget()
        self._feed.forget()
        self._pairs = iter(())  # those have a frame of this stream: a cycle

    def __iter__(self) -> Iterator[tuple[S, T]]:
        self._check()
        return self._pairs

    def __next__(self) -> tuple[S, T]:
        """The next item, and its result."""
        self._check()
        return next(self._pairs)

    def chunks(self) -> Iterator[list[tuple[S, T]]]:
        """The same in lists, as many as are there at a time: there is less to do for each.

        Returns:
            An iterator of lists of pairs, none of them empty, to be used inside of the block.

        Raises:
            ClosedError: Where a list is taken outside of the block.
            Exception: There, too, as where pairs are taken: see `BatchingMapProxy.stream`.
        """
        while True:
            if chunk := list(self._buffer):
                yield chunk
            elif not self._more():
                return

    def _check(self) -> None:
        if self._left or not self._entered:
            raise ClosedError(OUTSIDE.format(how="with"))

    def _parts(self) -> Iterator[Iterator[tuple[S, T]]]:
        while self._more():
            yield self._buffer

    def _more(self) -> bool:
        """Put all that is there next into the buffer, which is empty; False at the end."""
        self._check()
        window = self._window
        while not (pairs := window.pairs()).items and not (window.over or window.finished):
            try:
                portion = self._read()
                if portion is None and not window.due and not window.awaited:
                    if (pairs := window.pairs()).items:
                        break
                    window.flushing = True  # nothing else can come
                self._step(portion)
            except BaseException:
                window.over = True
                raise
        count = len(pairs.items)
        if not count:
            self._engine.end(window, self._feed)
        self._engine.count_given(window, count)
        window.taken(count)  # the next are read when these have been taken
        self._buffer = zip(*pairs)
        return count > 0

    def _read(self) -> Portion | None:
        """Fill the window; what there is to be looked up, if that has not been done here."""
        window, feed = self._window, self._feed
        if feed.ended or not window.room:
            return None
        portion = feed.add_to(window, feed.read(window.room))
        window.ended = feed.ended
        if self._engine.look(portion):
            return portion
        window.want(portion)
        return None
