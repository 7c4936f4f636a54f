"""Streams as users see them: results beside their items, for sources larger than memory."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ._core.progress import Reporting
from ._core.shelf import Pairs
from ._core.window import Portion, Window
from ._engine.callers import InStream
from ._engine.engine import Engine
from ._engine.feed import Feed
from ._engine.stream import Flow
from ._errors import ClosedError
from ._loops import is_being_cancelled, is_cancellation, running_loop

S = TypeVar("S")
T = TypeVar("T")

_MOST = 1_000
"""Pairs that are given without a checkpoint, at most."""


class AsyncStream(Generic[S, T]):
    """What `AsyncBatchingMapProxy.stream` gives: pairs of an item and its result.

    To be used as ``async with proxy.stream(source, fetch) as results``, and inside of that block
    with ``async for item, result in results``, or ``async for chunk in results.chunks()``.

    Checkpoints: Entering the block is none; leaving it is at least one. Taking pairs is one before
    each that has to be waited for, and at least one for every thousand.

    Cancellation: A consumer that is cancelled leaves the block, which cancels what is under way.

    Threads: It belongs to the event loop that it was entered in. Several tasks may take from it;
    each pair goes to one of them.
    """

    def __init__(
        self,
        engine: Engine,
        feed: Feed,
        window: Window,
        map_func: Callable[[list[Any]], Any],
        reporting: Reporting | None,
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._window = window
        self._map_func = map_func
        self._reporting = reporting
        self._buffer: list[tuple[S, T]] = []  # pairs that are taken next, the last first
        self._given = 0  # pairs that were put there, and still count as read
        self._uninterrupted = _MOST  # since the last checkpoint
        self._flow: Flow | None = None  # as long as the block has been entered and not left
        self._error: BaseException | None = None  # what ended the tasks, but for a failing call
        self._ended = False
        self._done = False  # whether its end, or what ended it, was told

    async def __aenter__(self) -> Self:
        if self._flow is not None or self._ended:
            raise ClosedError(_ONCE)
        loop = running_loop()
        caller = InStream(self._map_func, loop, home=loop, reporting=self._reporting)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._flow = self._engine.flow(self._window, caller, self._feed)
        self._group.start_soon(self._main, self._flow)
        return self

    async def _main(self, flow: Flow) -> None:
        # What ends it is raised where results are taken: not out of the group, which would cancel
        # the consumer, whatever that is doing.
        try:
            await flow.main()
        except GeneratorExit:  # pragma: no cover - of a loop that was torn down
            raise
        except BaseException as error:
            if not (is_cancellation(error) and is_being_cancelled()):  # as the consumer is, too
                self._error = error

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._flow is not None
        self._flow.leave()
        self._flow, self._ended = None, True
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:  # how trio delivers an interrupt
            self._error = group.exceptions[0]
        finally:
            if self._reporting is not None:
                self._reporting.end()
            self._buffer.clear()
            self._window.forget()
            del self._group
        raised, self._error = self._error, None
        if raised is None or is_cancellation(raised):
            return
        if error is None or not isinstance(raised, Exception):
            _raise(raised)

    def __aiter__(self) -> AsyncIterator[tuple[S, T]]:
        return self

    async def __anext__(self) -> tuple[S, T]:
        """The next item, and its result."""
        try:
            return self._buffer.pop()
        except IndexError:
            pass  # what is raised below is not to have this as its context
        while not self._buffer:
            await self._fill(self._window.part)
        return self._buffer.pop()

    def chunks(self) -> AsyncIterator[list[tuple[S, T]]]:
        """The same in lists, as many as are there at a time: there is less to do for each.

        Returns:
            An iterator of lists of pairs, none of them empty, to be used inside of the block.
        """
        return _AsyncChunks(self)

    async def _chunk(self) -> list[tuple[S, T]]:
        while not self._buffer:
            await self._fill(sys.maxsize)
        chunk = self._buffer[::-1]
        self._buffer.clear()
        self._take_given()
        return chunk

    async def _fill(self, most: int) -> None:
        """Wait for at least one pair, and put it into the buffer.

        Raises:
            StopAsyncIteration: there are no more.
        """
        if self._flow is None:
            raise ClosedError(_OUTSIDE.format(how="async with"))
        self._take_given()
        if self._uninterrupted + most > _MOST or not self._window.ready:
            self._uninterrupted = 0
            await checkpoint()
        if self._buffer or self._flow is None:  # another consumer was quicker
            return
        pairs = [] if self._error is not None else await self._flow.more(most)
        if not pairs:
            self._end()
        self._engine.count_given(self._window, len(pairs))
        self._given += len(pairs)
        self._uninterrupted += len(pairs)
        pairs.reverse()
        self._buffer[:0] = pairs  # before those that another consumer was given meanwhile

    def _take_given(self) -> None:
        if self._flow is not None and self._given:
            self._flow.taken(self._given)
            self._given = 0

    def _end(self) -> NoReturn:
        """Raise what ended the stream: once."""
        if self._done:
            raise StopAsyncIteration
        error, self._error = self._error, None
        window = self._window
        if error is None and (self._flow is None or (window.over and window.failure is None)):
            raise ClosedError(_GONE)  # lest it pass for the end
        self._done = True
        if error is not None:
            _raise(error)
        try:
            self._engine.end(window, self._feed)
        except StopAsyncIteration as end:
            raise RuntimeError("the function, or the source, raised StopAsyncIteration") from end
        raise StopAsyncIteration


class _AsyncChunks(Generic[S, T]):
    def __init__(self, stream: AsyncStream[S, T]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[tuple[S, T]]:
        return await self._stream._chunk()


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
        engine: Engine,
        feed: Feed,
        window: Window,
        step: Callable[[Portion | None], None],
        reporting: Reporting | None,
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._window = window
        self._step = step
        self._reporting = reporting
        self._buffer: Iterator[tuple[S, T]] = iter(())
        self._pairs = chain.from_iterable(self._parts())
        self._entered = self._left = False

    def __enter__(self) -> Self:
        if self._entered:
            raise ClosedError(_ONCE)
        self._entered = True
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
        """
        while chunk := list(self._buffer) or self._more():
            yield chunk

    def _check(self) -> None:
        if self._left or not self._entered:
            raise ClosedError(_OUTSIDE.format(how="with"))

    def _parts(self) -> Iterator[Iterator[tuple[S, T]]]:
        while pairs := self._more():
            self._buffer = iter(pairs)
            yield self._buffer

    def _more(self) -> Pairs:
        """All that is there next; none at the end."""
        self._check()
        window = self._window
        while not (pairs := window.pairs(sys.maxsize)) and not (window.over or window.finished):
            portion = self._read()
            if portion is None and not window.due and not window.awaited:
                if pairs := window.pairs(sys.maxsize):
                    break
                window.flushing = True  # nothing else can come
            try:
                self._step(portion)
            except BaseException:
                window.over = True
                raise
        if not pairs:
            self._engine.end(window, self._feed)
        self._engine.count_given(window, len(pairs))
        window.taken(len(pairs))  # the next are read when these have been taken
        return pairs

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


_GONE = "the block of this stream was left, or cancelled, by another task"
_ONCE = "a stream is entered once; call stream() again"
_OUTSIDE = (
    "results are taken inside of the block of a stream: "
    "`{how} proxy.stream(source, fetch) as results:`"
)


def _raise(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:
        del error  # this frame is in its traceback now: a cycle
