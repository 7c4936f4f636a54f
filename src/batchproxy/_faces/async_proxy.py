"""AsyncBatchingMapProxy: the engine in the caller's own task."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Hashable, Iterable, MutableMapping
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from .._cache import Cache
from .._core.answers import Answer
from .._core.counters import Statistics
from .._core.keys import is_unequal
from .._core.outcome import Failure
from .._core.plan import Plan
from .._core.progress import Progress, reporting, reports_around
from .._engine.caller import innermost, leave
from .._engine.callers import InTask
from .._engine.engine import Engine
from .._engine.travels import TravellingFunction, TravellingProxy
from .._loops import running_loop
from .._slots import Limit
from .async_stream import AsyncStream

S = TypeVar("S")
T = TypeVar("T")


class _Default(int):
    """A number that nobody gave, beside the same that somebody did."""


_EIGHT = _Default(8)


class AsyncBatchingMapProxy(TravellingProxy, Generic[S, T]):
    """Maps lists through an asynchronous batch function, computing each distinct item once.

    The results of ``await proxy.map(items, fetch)`` are those of ``await fetch(items)``, one per
    item in the same order; but `fetch` is called with batches of distinct items that are neither
    cached nor being computed by anybody else who uses the same proxy or the same `Cache`.

    Generic in the item ``S`` and the result ``T``: ``AsyncBatchingMapProxy[int, str]()``.

    Args:
        batch_size: The most items in one call. Every batch of a ``map()`` but the last has exactly
            so many, or fewer where a weight says so, or after batches were refused because of their
            size. None (the default), 0 or less: one call with all that is missing.
        max_concurrency: The most calls at a time, 1 or more, over all ``map()`` calls of this proxy
            in one event loop; waiting calls go first come, first served, batch by batch.
        limit: In place of `max_concurrency`, a `Limit` that is shared with other proxies: the most
            calls at a time over all of them.
        key: A function from an item to its hashable identity; by default the item itself. Items
            with equal keys share one result, and Python's equality decides: ``1 == 1.0 == True``.
        cache: Where results are kept: a `Cache`, to share with other proxies, or any mutable
            mapping; by default a private `Cache` without bounds. Every access to a mapping is made
            under a lock, from whichever thread has to; what it raises is logged (logger
            ``batchproxy``) and counts as a miss.
        weight: A function from an item to a number of 0 or more, such as its length, in any unit.
            It is called once for each distinct key of a ``map()`` that has anything to look for,
            in the calling thread, before any call. It comes with `max_weight`.
        max_weight: The most that a batch may weigh, in the same unit, more than 0. A batch is as
            many of the next missing keys, in their order, as fit into this and into `batch_size`;
            an item that is heavier goes alone.

    Raises:
        TypeError: An argument is of the wrong type, or there is only one of `weight` and
            `max_weight`.
        ValueError: `max_concurrency` is less than 1, or there is a `limit`, too; or `max_weight` is
            not more than 0.

    Threads: One proxy may be used from any number of event loops, asyncio's and trio's, in any
    number of threads at once, and a key is computed once among them all.

    Pickling: If its cache has a store, as these arguments; a `limit` cannot be pickled, and `key`
    and `weight` as functions can. In another process proxies that arrive with one cache and the
    same `max_concurrency` share slots, and each counts what is done there.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        max_concurrency: int = _EIGHT,
        *,
        limit: Limit | None = None,
        key: Callable[[S], Hashable] | None = None,
        cache: Cache[T] | MutableMapping[Any, T] | None = None,
        weight: Callable[[S], float] | None = None,
        max_weight: float | None = None,
    ) -> None:
        if max_concurrency is None:
            raise TypeError("max_concurrency must be an integer of 1 or more, got None")
        chosen: int | None = max_concurrency
        if max_concurrency is _EIGHT:
            chosen = 8 if limit is None else None
        self._engine = Engine(batch_size, chosen, limit, key, cache, weight, max_weight)
        self._recipe = self._engine.recipe

    @property
    def batch_size(self) -> int | None:
        """The most items in one call; None, 0 or less for one call with all that is missing."""
        return self._engine.batch_size

    @property
    def max_concurrency(self) -> int:
        """The most calls at a time in one event loop."""
        return self._engine.max_concurrency or 1

    @property
    def cache(self) -> Cache[T]:
        """Where results are kept; also for a mapping of your own there is a `Cache` in front."""
        return self._engine.cache

    @overload
    async def map(
        self,
        items: Iterable[S],
        map_func: Callable[[list[S]], Awaitable[Answer[T]]],
        *,
        return_exceptions: Literal[False] = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[T]: ...

    @overload
    async def map(
        self,
        items: Iterable[S],
        map_func: Callable[[list[S]], Awaitable[Answer[T]]],
        *,
        return_exceptions: bool,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[T | Exception]: ...

    async def map(
        self,
        items: Iterable[S],
        map_func: Callable[[list[S]], Awaitable[Answer[T]]],
        *,
        return_exceptions: bool = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[Any]:
        """Give the result of each of `items`, in their order.

        Equivalent to ``await map_func(list(items))`` for a function that answers item by item, but
        for what that costs: known results come from the cache, results that somebody is computing
        are waited for, and the rest is computed in batches.

        Args:
            items: Any iterable of items; it is read once, before anything else happens.
            map_func: Any async callable. It is given a list of distinct items, and answers with as
                many results in the same order (a list, tuple, array, Series: anything sized and
                indexable), or with a mapping from key to result (further entries are ignored); if
                there is a ``key=`` and the mapping lacks a key, it may be one from item to result.
                An `Exception` instance among the results is the failure of that one item. If it
                raises `SplitBatch`, the batch is halved, and each half is a call of its own, in the
                same slot; an item that is refused alone fails with the ``__cause__`` of that.
            return_exceptions: If true, failed items hold their exception in the list, every batch
                is called, and nothing is raised for them, as in `asyncio.gather`.
            progress: True for a bar (it needs the extra ``progress``), or a plain function that is
                given a `Progress` whenever something has changed, at most a few times per call of
                `map_func`. If it raises, that is logged, and it is not called again.

        Returns:
            A new list as long as `items`. The results in it are the objects that `map_func` gave,
            and shared with everybody who asks for the same keys.

        Raises:
            Exception: What `map_func` raised: that very object, never in a group. The first failing
                call ends this ``map()``: its other running calls are cancelled, and failures of
                those are attached as notes. Whoever else waits for the failing call gets the same
                exception. Batches that had finished stay cached; failures are never cached.
            AnswerTypeError: `map_func` answered with something that is no such answer.
            AnswerValueError: The answer has the wrong length, or lacks a key.
            CircularWaitError: This ``map()`` would wait for itself: it was called, directly or not,
                by the very call that computes what it asks for.
            ClosedError: The proxy is closed.
            StoreError: The store of the cache failed. What could not be written is kept, and is
                written for the next who asks for it.
            TypeError: `items` cannot be iterated or is a table, an item is not hashable and there
                is no ``key=``, `map_func` cannot be called, `progress` is no bool or plain
                function, a key is of a type that a store cannot have, or ``weight=`` gave something
                that is no number.
            ValueError: ``weight=`` gave a negative number, NaN, or one too large for a float.
            ImportError: `progress` is True, and tqdm is not installed.

        Checkpoints: Always one, also for an empty list or if everything is cached; one before every
        call of `map_func`; and one for every 10,000 items of a list that is longer than that, and
        not all cached.

        Cancellation: A cancelled caller leaves at once. Its running calls are cancelled and their
        keys released, and others who wait for those keys compute them anew. Finished batches stay
        cached. Cancelling one who waits for another's call disturbs nobody. Where there is a
        store, results that have come are written all the same.

        Threads: May be called in any event loop, also in several at once; from a synchronous thread
        through a portal: ``portal.call(proxy.map, items, map_func)``. `map_func` runs in the
        caller's event loop and sees the caller's context variables. It may call ``map()`` itself,
        and then uses the slot of its own call.
        """
        engine = self._engine
        report = reporting(progress)
        plan = engine.begin(
            items, map_func, keep_failures=return_exceptions, reporting=report, in_steps=True
        )
        if not isinstance(plan, Plan):
            await checkpoint()
            engine.count(len(plan))
            return plan
        if plan.in_steps:
            for _ in engine.prepare(plan):
                await checkpoint()
        loop = running_loop()
        caller = InTask(map_func, loop, report)
        outside = innermost.set(caller.nest)
        try:
            await engine.run(plan, caller)
        finally:
            leave(outside)
            if report is not None:
                report.end()
        return engine.finish(plan)

    @overload
    def stream(
        self,
        source: Iterable[S] | AsyncIterable[S],
        map_func: Callable[[list[S]], Awaitable[Answer[T]]],
        *,
        window: int = 10_000,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> AsyncStream[S, T]: ...

    @overload
    def stream(
        self,
        source: Iterable[S] | AsyncIterable[S],
        map_func: Callable[[list[S]], Awaitable[Answer[T]]],
        *,
        window: int = 10_000,
        ordered: bool = True,
        return_exceptions: bool,
        progress: bool | Callable[[Progress], object] = False,
    ) -> AsyncStream[S, T | Exception]: ...

    def stream(
        self,
        source: Iterable[S] | AsyncIterable[S],
        map_func: Callable[[list[S]], Awaitable[Answer[T]]],
        *,
        window: int = 10_000,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> AsyncStream[S, Any]:
        """Give each item of `source` with its result, as they come: for more than memory holds.

        Inside of ``async with proxy.stream(items, fetch) as results:``, ``async for item, result in
        results:`` is equivalent to ``for item, result in zip(items, await proxy.map(items,
        fetch)):``, but at most `window` items are in memory. ``async for chunk in
        results.chunks():`` gives lists of as many pairs as are there, which costs less for each.

        Args:
            source: Any iterable of items, asynchronous or not. It is read in a task of the stream,
                a plain one up to a thousand items at a time; let one that blocks be asynchronous.
            map_func: As of `map`.
            window: The most items, 1 or more, that are read and not yet taken. While so many are,
                nothing is read; so a slow consumer holds reading and calls up. Let it be several
                times as large as `batch_size` times `max_concurrency`.
            ordered: Whether pairs come in the order of `source`; else as their results come.
            return_exceptions: If true, a failed item comes with its exception, and the stream goes
                on, as in `map`.
            progress: As of `map`, but that `total` is what has been read so far.

        Returns:
            A context manager, which nothing is read or called for before it is entered.

        Raises:
            ClosedError: The proxy is closed; or, where pairs are taken, that is done outside of the
                block.
            TypeError: `source` is no iterable or is a table, `map_func` cannot be called, `window`
                is no integer, or `progress` is no bool or plain function; where pairs are taken,
                the key of an item cannot be hashed, or is of a type that a store cannot have.
            ValueError: `window` is less than 1.
            ImportError: As of `map`.
            Exception: Where pairs are taken: what `map_func` raised, that very object. The first
                failing call ends the stream; results that were there before it, and are next,
                still come. What `source` or ``key=`` raised comes after all that was read before.
            AnswerTypeError: As of `map`, where pairs are taken. So are:
            AnswerValueError: As of `map`.
            CircularWaitError: As of `map`.
            StoreError: As of `map`.

        Checkpoints: None; see `AsyncStream` for those of the block.

        Cancellation: Leaving the block, in whatever way, cancels its calls and has their keys
        released before it is left. Finished batches stay cached.

        Threads: As of `map`. Calls run in tasks of their own, with the context variables of the
        task that enters the block. Inside a call, a stream is nested in that call, as a ``map()``.
        """
        report = reporting(progress)
        feed, plan = self._engine.open(
            source,
            map_func,
            window,
            ordered=ordered,
            keep_failures=return_exceptions,
            may_be_async=True,
        )
        return AsyncStream(self._engine, feed, plan, map_func, report)

    def bind(self, function: Callable[[list[S]], Awaitable[Answer[T]]]) -> AsyncBoundFunction[S, T]:
        """Bind a batch function to this proxy, so that single keys can be asked for, too.

        May be used as a decorator: ``@proxy.bind``. Bind a function once: single keys gather with
        those that are asked for through the same bound function.

        Args:
            function: As `map_func` of `map`.

        Returns:
            An object with the name of the function, and the methods ``map(items)``,
            ``stream(source)`` and ``load(key)``. It cannot be called itself: ``function`` can, for
            a list. (Bind a method when there is an object that has it: ``self.fetch``.)

        Raises:
            TypeError: `function` cannot be called.

        Warns:
            UserWarning: The cache has a store, and another function was bound to its namespace in
                this process. Each would take the results of the other for its own. Once.
        """
        return AsyncBoundFunction(self, function)

    async def clear(self) -> None:
        """Forget every result, for everybody who shares the cache.

        When it returns, no later ``map()`` gets a result whose computation began before. Callers
        already waiting for a call under way still get its result.

        Raises:
            StoreError: The cache has a store, which failed; what it still has is not known.

        Checkpoints: One, after everything is forgotten; with a store, which is cleared in a worker
        thread, also before.

        Cancellation: With a store, it takes effect when that is cleared.

        Threads: May be called from any event loop.
        """
        cache = self._engine.cache
        if cache._backing is None:
            cache.clear()
        else:
            await anyio.to_thread.run_sync(cache.clear)
        await checkpoint()

    async def aclose(self) -> None:
        """Let no further ``map()`` begin. Closing twice is fine.

        Waits for nothing, deletes no result and disturbs no ``map()`` under way.

        Checkpoints: None.
        """
        self._engine.closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def statistics(self) -> Statistics:
        """What this proxy has done so far, in all event loops together. No checkpoint."""
        return self._engine.statistics()


class AsyncBoundFunction(TravellingFunction, Generic[S, T]):
    """An asynchronous batch function, bound to the proxy that it is called through.

    Made by `AsyncBatchingMapProxy.bind`. It has the name and the docstring of the function, which
    is its ``__wrapped__``.

    Args:
        proxy: The proxy.
        function: As `map_func` of `AsyncBatchingMapProxy.map`.

    Raises:
        TypeError: `function` cannot be called.

    Threads: As those of the proxy.

    Pickling: As its name, if it is found by that, as it is where ``bind`` is a decorator at the top
    of a module; else as the proxy and the function. With cloudpickle it is the latter, also for
    what is defined in ``__main__``.
    """

    def __init__(
        self,
        proxy: AsyncBatchingMapProxy[S, T],
        function: Callable[[list[S]], Awaitable[Answer[T]]],
    ) -> None:
        self._bind(proxy, function)
        self._proxy = proxy
        self._function = function

    @property
    def proxy(self) -> AsyncBatchingMapProxy[S, T]:
        """The proxy that it is bound to."""
        return self._proxy

    @property
    def function(self) -> Callable[[list[S]], Awaitable[Answer[T]]]:
        """The function itself."""
        return self._function

    @overload
    async def map(
        self,
        items: Iterable[S],
        *,
        return_exceptions: Literal[False] = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[T]: ...

    @overload
    async def map(
        self,
        items: Iterable[S],
        *,
        return_exceptions: bool,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[T | Exception]: ...

    async def map(
        self,
        items: Iterable[S],
        *,
        return_exceptions: bool = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[Any]:
        """Give the result of each of `items`, in their order.

        Equivalent to ``await self.proxy.map(items, self.function)``; see there.

        Args:
            items: As there.
            return_exceptions: As there.
            progress: As there.

        Returns:
            As there.

        Raises:
            Exception: As there.

        Checkpoints: As there.

        Cancellation: As there.

        Threads: As there.
        """
        return await self._proxy.map(
            items, self._function, return_exceptions=return_exceptions, progress=progress
        )

    @overload
    def stream(
        self,
        source: Iterable[S] | AsyncIterable[S],
        *,
        window: int = 10_000,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> AsyncStream[S, T]: ...

    @overload
    def stream(
        self,
        source: Iterable[S] | AsyncIterable[S],
        *,
        window: int = 10_000,
        ordered: bool = True,
        return_exceptions: bool,
        progress: bool | Callable[[Progress], object] = False,
    ) -> AsyncStream[S, T | Exception]: ...

    def stream(
        self,
        source: Iterable[S] | AsyncIterable[S],
        *,
        window: int = 10_000,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> AsyncStream[S, Any]:
        """Give each item of `source` with its result, as they come.

        Equivalent to ``self.proxy.stream(source, self.function)``; see there.

        Args:
            source: As there.
            window: As there.
            ordered: As there.
            return_exceptions: As there.
            progress: As there.

        Returns:
            As there.

        Raises:
            Exception: As there.

        Checkpoints: As there.

        Cancellation: As there.

        Threads: As there.
        """
        return self._proxy.stream(
            source,
            self._function,
            window=window,
            ordered=ordered,
            return_exceptions=return_exceptions,
            progress=progress,
        )

    async def load(self, item: S) -> T:
        """Give the result of one item, computed together with what others ask for.

        Equivalent to ``(await self.map([item]))[0]``, but that the call is shared: if a slot is
        free, everything that is asked for within the same moment goes to the function together, in
        batches of at most ``batch_size``; if none is, those who wait go together when one comes
        free. Nobody waits for a batch to fill.

        The function is called in the task, and with the context variables, of *one* of those who
        wait: let it use nothing that is one caller's alone, such as the credentials of a user.

        Args:
            item: The item. Its key is what ``key=`` of the proxy gives for it, or the item itself.

        Returns:
            The result. It is shared with everybody who asks for the same key.

        Raises:
            Exception: What the function raised: that very object, for all whose keys were in that
                call. An `Exception` instance in its answer is raised for that item alone.
            AnswerTypeError: As `AsyncBatchingMapProxy.map`.
            AnswerValueError: As there.
            CircularWaitError: As there.
            ClosedError: As there.
            StoreError: As there.
            TypeError: The key is not hashable, or one that a store cannot have.
            ValueError: As there.

        Checkpoints: Always one, also if the result is known; and one before a call.

        Cancellation: A cancelled caller leaves at once, and disturbs nobody: if the call ran in its
        task, that is cancelled, and another of those who wait makes it anew.

        Threads: As those of ``map()``. Those who ask in one event loop gather, and for calls under
        way all wait, whichever loop or thread they run in. Inside of a call, they gather with
        those inside of that same call only, and use its slot.
        """
        loads = self._loads
        key, known = loads.look(item)
        if known is not None:
            await checkpoint()
            loads.engine.count(1)
            return known[0]  # type: ignore[no-any-return] # the cache is one of T
        if is_unequal(key):
            return (await self.map([item]))[0]  # nobody gathers with it
        weight = loads.admit(key, item)
        loop = running_loop()
        if loop is None:
            await checkpoint()  # which says that there is none
        inside = innermost.get() is not None or reports_around()
        caller = InTask(self._function, loop) if inside else None
        outcome = await loads.load(key, item, weight, loop, caller)
        if isinstance(outcome, Failure):
            try:
                raise outcome.error.with_traceback(outcome.traceback)
            finally:
                outcome.restore()
                del outcome, caller  # this frame is in the traceback now: a cycle
        return outcome  # type: ignore[no-any-return] # as above
