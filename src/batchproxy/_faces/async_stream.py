"""A stream of an asynchronous proxy: results beside their items, of more than memory holds."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from .._core.outcome import Failure
from .._core.progress import Reporting
from .._core.shelf import Pairs
from .._core.window import Window
from .._engine.callers import InStream
from .._engine.engine import Engine
from .._engine.feed import Feed
from .._engine.stream import Flow
from .._errors import ClosedError
from .._loops import is_being_cancelled, is_cancellation, is_torn_down, running_loop
from .stream import ONCE, OUTSIDE

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
        engine: Any,
        feed: Any,
        window: Any,
        map_func: Callable[[list[Any]], Any],
        reporting: Reporting | None,
    ) -> None:
        # Which is nothing for users to know.
        self._engine: Engine = engine
        self._feed: Feed = feed
        self._window: Window = window
        self._map_func = map_func
        self._reporting = reporting
        self._buffer: Iterator[tuple[S, T]] = iter(())  # pairs that are taken next
        self._given = 0  # pairs that were put there, and still count as read
        self._uninterrupted = _MOST  # since the last checkpoint
        self._flow: Flow | None = None  # as long as the block has been entered and not left
        self._error: BaseException | None = None  # what ended the tasks, but for a failing call
        self._ended = False
        self._done = False  # whether its end, or what ended it, was told

    async def __aenter__(self) -> Self:
        if self._flow is not None or self._ended:
            raise ClosedError(ONCE)
        self._loop = running_loop()
        caller = InStream(self._map_func, self._loop, self._reporting)
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
        except BaseException as error:
            if is_torn_down(error, self._loop):  # pragma: no cover - while there is none
                raise
            cancelled = is_cancellation(error) and is_being_cancelled(self._loop)
            if isinstance(error, GeneratorExit) or not cancelled:  # else the consumer is, too
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
            self._buffer = iter(())
            self._window.forget()
            self._feed.forget()
            del self._group
        raised = self._error
        if (
            raised is None
            or is_cancellation(raised)
            or (error is not None and isinstance(raised, Exception))
        ):
            self._error = None
            return
        del raised, error, traceback  # as in `_raise_error`
        self._raise_error()

    def __aiter__(self) -> AsyncIterator[tuple[S, T]]:
        return self

    async def __anext__(self) -> tuple[S, T]:
        """The next item, and its result."""
        while True:
            for pair in self._buffer:
                return pair  # all that is done for most of them
            await self._fill(self._window.part)

    def chunks(self) -> AsyncIterator[list[tuple[S, T]]]:
        """The same in lists, as many as are there at a time: there is less to do for each.

        Returns:
            An iterator of lists of pairs, none of them empty, to be used inside of the block.

        Raises:
            ClosedError: Where a list is taken outside of the block.
            Exception: There, too, as where pairs are taken: see `AsyncBatchingMapProxy.stream`.

        Checkpoints: One before each list, but for what is left of pairs taken one by one.
        """
        return _AsyncChunks(self)

    async def _chunk(self) -> list[tuple[S, T]]:
        while not (chunk := list(self._buffer)):
            await self._fill(sys.maxsize)
        self._take_given()
        return chunk

    async def _fill(self, most: int) -> None:
        """Wait for at least one pair, and put it into the buffer, which is empty.

        Raises:
            StopAsyncIteration: there are no more.
        """
        if self._flow is None:
            raise ClosedError(OUTSIDE.format(how="async with"))
        self._take_given()
        empty = self._buffer
        if self._uninterrupted + most > _MOST or not self._window.ready:
            self._uninterrupted = 0
            await checkpoint()
        if self._buffer is not empty:  # another consumer was quicker
            return
        pairs = Pairs([], []) if self._error is not None else await self._flow.more(most)
        count = len(pairs.items)
        if not count:
            self._end()
        self._engine.count_given(self._window, count)
        self._given += count
        self._uninterrupted += count
        # Behind those that another consumer was given meanwhile.
        self._buffer = zip(*pairs) if self._buffer is empty else chain(self._buffer, zip(*pairs))

    def _take_given(self) -> None:
        if self._flow is not None and self._given:
            self._flow.taken(self._given)
            self._given = 0

    def _end(self) -> NoReturn:
        """Raise what ended the stream: once."""
        if self._done:
            raise StopAsyncIteration
        window = self._window
        broken = self._error is not None
        if not broken and (self._flow is None or (window.over and window.failure is None)):
            raise ClosedError(_GONE)  # lest it pass for the end
        self._done = True
        try:
            if broken:
                self._raise_error()
            self._engine.end(window, self._feed)
        except StopAsyncIteration as end:
            raise RuntimeError("the function, or the source, raised StopAsyncIteration") from end
        raise StopAsyncIteration

    def _raise_error(self) -> NoReturn:
        error, self._error = self._error, None
        assert error is not None
        failure = Failure.of(error)
        try:
            raise error
        finally:
            failure.restore()
            del error, failure  # this frame is in its traceback now: a cycle


class _AsyncChunks(Generic[S, T]):
    def __init__(self, stream: AsyncStream[S, T]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[tuple[S, T]]:
        return await self._stream._chunk()


_GONE = "the block of this stream was left, or cancelled, by another task"
