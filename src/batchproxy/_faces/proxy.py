"""BatchingMapProxy: the same engine in the portal, and how it calls functions of either kind."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Hashable, Iterable, MutableMapping
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from .._cache import Cache
from .._core.answers import Answer
from .._core.counters import Statistics
from .._core.keys import is_unequal
from .._core.outcome import Failure
from .._core.plan import Plan
from .._core.progress import Progress, Reporting, reporting
from .._core.window import Portion
from .._engine.callers import FromThread, InCallingThread, InPortal, InWorkerThread
from .._engine.engine import Engine
from .._engine.portal import PortalCall, get_portal
from .._engine.travels import TravellingFunction, TravellingProxy
from .._loops import is_async
from .._messages import short
from .._slots import Limit
from .stream import Stream

S = TypeVar("S")
T = TypeVar("T")


class BatchingMapProxy(TravellingProxy, Generic[S, T]):
    """Maps lists through a batch function, computing each distinct item once.

    The results of ``proxy.map(items, fetch)`` are those of ``fetch(items)``, one per item in the
    same order; but `fetch` is called with batches of distinct items that are neither cached nor
    being computed by anybody else who uses the same proxy or the same `Cache`.

    The synchronous twin of `AsyncBatchingMapProxy`, which says more of what they have in common. It
    runs the same engine, in the thread of an event loop that all synchronous proxies share; and
    takes asynchronous functions, too, which run in that event loop.

    Args:
        batch_size: The most items in one call. Every batch of a ``map()`` but the last has so many.
            None (the default), 0 or less: one call with all that is missing.
        max_concurrency: None (the default): `map_func` runs in the calling thread, batch after
            batch, so that thread-locals and database connections work; different calling threads
            do not hold each other up. With a number, 1 or more, calls run in worker threads, at
            most so many at a time over all callers. An asynchronous `map_func` runs in the event
            loop in any case; None is one call after another of each ``map()``, and a number the
            most calls at a time over all of them.
        limit: In place of `max_concurrency`, a `Limit` that is shared with other synchronous
            proxies of the same `backend`: the most calls at a time over all of them.
        key: A function from an item to its hashable identity; by default the item itself.
        cache: A `Cache`, to share with other proxies, or any mutable mapping; by default a private
            `Cache` without bounds.
        weight: A function from an item to a number of 0 or more. It comes with `max_weight`.
        max_weight: The most that a batch may weigh, in the same unit, more than 0.
        backend: ``"asyncio"`` (the default) or ``"trio"``: the kind of event loop that runs the
            engine, and an asynchronous `map_func`.

    Raises:
        TypeError: An argument is of the wrong type, or there is only one of `weight` and
            `max_weight`.
        ValueError: `max_concurrency` is less than 1, or there is a `limit`, too; `max_weight` is
            not more than 0; or `backend` is not known.
        ImportError: `backend` is ``"trio"``, which is not installed.

    Threads: One proxy may be used from any number of threads, and a key is computed once among them
    all. After a ``fork`` the child can use it: it has the results, and none of the calls under way.

    Pickling: As there.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        max_concurrency: int | None = None,
        *,
        limit: Limit | None = None,
        key: Callable[[S], Hashable] | None = None,
        cache: Cache[T] | MutableMapping[Any, T] | None = None,
        weight: Callable[[S], float] | None = None,
        max_weight: float | None = None,
        backend: Literal["asyncio", "trio"] = "asyncio",
    ) -> None:
        self._engine = Engine(batch_size, max_concurrency, limit, key, cache, weight, max_weight)
        if backend not in ("asyncio", "trio"):
            raise ValueError(f"backend must be 'asyncio' or 'trio', got {short(backend)}")
        if backend == "trio" and importlib.util.find_spec("trio") is None:
            raise ImportError("backend='trio' needs trio: pip install 'batchproxy[trio]'")
        self._backend = backend
        self._recipe = (*self._engine.recipe, backend)

    @property
    def batch_size(self) -> int | None:
        """The most items in one call; None, 0 or less for one call with all that is missing."""
        return self._engine.batch_size

    @property
    def max_concurrency(self) -> int | None:
        """The most calls at a time; None if those of a ``map()`` are made one after another."""
        return self._engine.max_concurrency

    @property
    def cache(self) -> Cache[T]:
        """Where results are kept; also for a mapping of your own there is a `Cache` in front."""
        return self._engine.cache

    @overload
    def map(
        self,
        items: Iterable[S],
        map_func: Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]],
        *,
        return_exceptions: Literal[False] = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[T]: ...

    @overload
    def map(
        self,
        items: Iterable[S],
        map_func: Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]],
        *,
        return_exceptions: bool,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[T | Exception]: ...

    def map(
        self,
        items: Iterable[S],
        map_func: Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]],
        *,
        return_exceptions: bool = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[Any]:
        """Give the result of each of `items`, in their order.

        Equivalent to ``map_func(list(items))`` for a function that answers item by item, but for
        what that costs. `AsyncBatchingMapProxy.map` says more of what both have in common.

        Args:
            items: Any iterable of items; it is read once, before anything else happens.
            map_func: Any callable, asynchronous or not. It is given a list of distinct items, and
                answers with as many results in the same order, or with a mapping from key to
                result; an `Exception` among them is the failure of that one item. If it raises
                `SplitBatch`, the batch is halved. A coroutine function, a `functools.partial` of
                one, or an object whose ``__call__`` is one runs in the event loop. Any other runs
                where `max_concurrency` says; if its answer can be awaited, that is then done in the
                event loop.
            return_exceptions: If true, failed items hold their exception in the list, and nothing
                is raised for them.
            progress: True for a bar (it needs the extra ``progress``), or a plain function that is
                given a `Progress`. It is called in the calling thread: while `map_func` runs there,
                it has to wait, and the other way round. So it may not ask there for keys that its
                own ``map()`` is computing, which is a `CircularWaitError`.

        Returns:
            A new list as long as `items`. The results in it are shared with everybody who asks.

        Raises:
            Exception: What `map_func` raised: that very object. Other asynchronous calls of this
                ``map()`` are cancelled; it waits for those in worker threads, and keeps their
                results. Failures are never cached.
            AnswerTypeError: `map_func` answered with something that is no such answer.
            AnswerValueError: The answer has the wrong length, or lacks a key.
            CircularWaitError: It would wait for itself: it was called, directly or not, by the very
                call that computes what it asks for; or inside a running event loop, whose thread it
                blocks, for keys that a task of that very loop is computing.
            ClosedError: The proxy is closed.
            PortalError: The process was forked inside this very ``map()`` (in the child), it was
                called in the thread of the portal, which is that of asynchronous functions, or that
                thread has died; no thread could be started; or there is something to compute at the
                end of the interpreter, in an ``atexit`` handler or later.
            StoreError: The store of the cache failed. What could not be written is kept.
            TypeError: An argument is of the wrong type, or a key is not hashable, or of a type that
                a store cannot have.
            ValueError: ``weight=`` gave a negative number, NaN, or one too large for a float.
            ImportError: `progress` is True, and tqdm is not installed.

        Cancellation: Ctrl-C ends it promptly with `KeyboardInterrupt`, releases its keys, and
        leaves the proxy usable. An asynchronous call is cancelled. A call in a worker thread runs
        on to its end; its answer is thrown away, and its slot is free when it has ended.

        Threads: May be called from any thread, and blocks it. If everything is cached, nothing but
        this thread is involved. Inside a running event loop (a notebook) it works, and blocks that
        loop. Context variables reach `map_func`, wherever it runs. An asynchronous `map_func` must
        not block its event loop, which serves all synchronous proxies: there, await the ``map()``
        of an `AsyncBatchingMapProxy` that shares the cache, or call this one in a worker thread.
        """
        engine = self._engine
        report = reporting(progress)
        plan = engine.begin(items, map_func, keep_failures=return_exceptions, reporting=report)
        if not isinstance(plan, Plan):
            engine.count(len(plan))
            return plan
        portal_call = PortalCall(get_portal(self._backend))
        try:
            portal_call.run(engine.run, plan, _caller(engine, map_func, portal_call, report))
        finally:
            if report is not None:
                report.end()
        return engine.finish(plan)

    @overload
    def stream(
        self,
        source: Iterable[S],
        map_func: Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]],
        *,
        window: int = 10_000,
        return_exceptions: Literal[False] = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> Stream[S, T]: ...

    @overload
    def stream(
        self,
        source: Iterable[S],
        map_func: Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]],
        *,
        window: int = 10_000,
        return_exceptions: bool,
        progress: bool | Callable[[Progress], object] = False,
    ) -> Stream[S, T | Exception]: ...

    def stream(
        self,
        source: Iterable[S],
        map_func: Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]],
        *,
        window: int = 10_000,
        return_exceptions: bool = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> Stream[S, Any]:
        """Give each item of `source` with its result, as they come: for more than memory holds.

        ``with proxy.stream(source, fetch) as results: for item, result in results: ...``, or ``for
        chunk in results.chunks()``. See `AsyncBatchingMapProxy.stream`; what differs: it goes on
        only while somebody waits for the next pair, one window at a time, and in order. What does
        not fill a batch waits for the next window.

        Args:
            source: Any iterable of items, but no asynchronous one. It is read in the thread that
                takes the pairs.
            map_func: As of `map`; it is called where that calls it.
            window: The most items, 1 or more, that are read and not yet taken. All of it is read
                before anything is called for.
            return_exceptions: If true, a failed item comes with its exception.
            progress: As of `map`, but that `total` is what has been read so far.

        Returns:
            A context manager, which nothing is read or called for before it is entered.

        Raises:
            ClosedError: The proxy is closed, or pairs are taken outside of the block.
            TypeError: An argument is of the wrong type.
            ValueError: `window` is less than 1.
            ImportError: As of `map`.
            Exception: Where pairs are taken: what `map_func` raised, after the results before it;
                or what `source` or ``key=`` raised.
            AnswerTypeError: As of `map`, where pairs are taken. So are:
            AnswerValueError: As of `map`.
            CircularWaitError: As of `map`.
            PortalError: As of `map`.
            StoreError: As of `map`.

        Cancellation: Ctrl-C where pairs are taken ends the stream as it does a ``map()``. Between
        two pairs nothing is under way.

        Threads: As of `map`. It belongs to one thread at a time.
        """
        engine = self._engine
        report = reporting(progress)
        feed, plan = engine.open(
            source,
            map_func,
            window,
            ordered=True,
            keep_failures=return_exceptions,
            may_be_async=False,
        )

        def step(portion: Portion | None) -> None:
            call = PortalCall(get_portal(self._backend))
            call.run(engine.step, plan, _caller(engine, map_func, call, report), portion)

        return Stream(engine, feed, plan, step, report)

    def bind(
        self, function: Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]]
    ) -> BoundFunction[S, T]:
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
            UserWarning: As there.
        """
        return BoundFunction(self, function)

    def clear(self) -> None:
        """Forget every result, for everybody who shares the cache.

        When it returns, no later ``map()`` gets a result whose computation began before. Callers
        already waiting for a call under way still get its result.

        Raises:
            StoreError: The cache has a store, which failed; what it still has is not known.

        Threads: May be called from any thread.
        """
        self._engine.cache.clear()

    def close(self) -> None:
        """Let no further ``map()`` begin. Closing twice is fine.

        Waits for nothing, deletes no result and disturbs no ``map()`` under way.
        """
        self._engine.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def statistics(self) -> Statistics:
        """What this proxy has done so far, in all threads together."""
        return self._engine.statistics()


def _caller(
    engine: Engine,
    map_func: Callable[[list[Any]], Any],
    portal_call: PortalCall,
    report: Reporting | None,
) -> FromThread:
    kind: type[FromThread] = InWorkerThread
    if is_async(map_func):
        kind = InPortal
    elif engine.max_concurrency is None:
        kind = InCallingThread
    return kind(map_func, portal_call, report)


class BoundFunction(TravellingFunction, Generic[S, T]):
    """A batch function, bound to the proxy that it is called through.

    The synchronous twin of `AsyncBoundFunction`. Made by `BatchingMapProxy.bind`. It has the name
    and the docstring of the function, which is its ``__wrapped__``.

    Args:
        proxy: The proxy.
        function: As `map_func` of `BatchingMapProxy.map`.

    Raises:
        TypeError: `function` cannot be called.

    Threads: As those of the proxy.

    Pickling: As there.
    """

    def __init__(
        self,
        proxy: BatchingMapProxy[S, T],
        function: Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]],
    ) -> None:
        self._bind(proxy, function)
        self._proxy = proxy
        self._function = function

    @property
    def proxy(self) -> BatchingMapProxy[S, T]:
        """The proxy that it is bound to."""
        return self._proxy

    @property
    def function(self) -> Callable[[list[S]], Answer[T] | Awaitable[Answer[T]]]:
        """The function itself."""
        return self._function

    @overload
    def map(
        self,
        items: Iterable[S],
        *,
        return_exceptions: Literal[False] = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[T]: ...

    @overload
    def map(
        self,
        items: Iterable[S],
        *,
        return_exceptions: bool,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[T | Exception]: ...

    def map(
        self,
        items: Iterable[S],
        *,
        return_exceptions: bool = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> list[Any]:
        """Give the result of each of `items`, in their order.

        Equivalent to ``self.proxy.map(items, self.function)``; see there.

        Args:
            items: As there.
            return_exceptions: As there.
            progress: As there.

        Returns:
            As there.

        Raises:
            Exception: As there.

        Cancellation: As there.

        Threads: As there.
        """
        return self._proxy.map(
            items, self._function, return_exceptions=return_exceptions, progress=progress
        )

    @overload
    def stream(
        self,
        source: Iterable[S],
        *,
        window: int = 10_000,
        return_exceptions: Literal[False] = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> Stream[S, T]: ...

    @overload
    def stream(
        self,
        source: Iterable[S],
        *,
        window: int = 10_000,
        return_exceptions: bool,
        progress: bool | Callable[[Progress], object] = False,
    ) -> Stream[S, T | Exception]: ...

    def stream(
        self,
        source: Iterable[S],
        *,
        window: int = 10_000,
        return_exceptions: bool = False,
        progress: bool | Callable[[Progress], object] = False,
    ) -> Stream[S, Any]:
        """Give each item of `source` with its result, as they come.

        Equivalent to ``self.proxy.stream(source, self.function)``; see there.

        Args:
            source: As there.
            window: As there.
            return_exceptions: As there.
            progress: As there.

        Returns:
            As there.

        Raises:
            Exception: As there.

        Cancellation: As there.

        Threads: As there.
        """
        return self._proxy.stream(
            source,
            self._function,
            window=window,
            return_exceptions=return_exceptions,
            progress=progress,
        )

    def load(self, item: S) -> T:
        """Give the result of one item, computed together with what other threads ask for.

        See `AsyncBoundFunction.load`; what differs: threads gather where calls are limited
        (``max_concurrency``, ``limit``) or the function is asynchronous. A function that is called
        in the calling thread has no slots, and so nothing to wait for: there it is
        ``self.map([item])[0]``.

        The function sees the context variables of *one* of those who wait.

        Args:
            item: The item. Its key is what ``key=`` of the proxy gives for it, or the item itself.

        Returns:
            The result. It is shared with everybody who asks for the same key.

        Raises:
            Exception: What the function raised: that very object, for all whose keys were in that
                call.
            AnswerTypeError: As `BatchingMapProxy.map`.
            AnswerValueError: As there.
            CircularWaitError: As there.
            ClosedError: As there.
            PortalError: As there.
            StoreError: As there.
            TypeError: The key is not hashable, or one that a store cannot have.
            ValueError: As there.

        Cancellation: As `BatchingMapProxy.map`; those who wait for a call of which the caller was
        interrupted make it anew.

        Threads: As `BatchingMapProxy.map`.
        """
        loads, proxy = self._loads, self._proxy
        key, known = loads.look(item)
        if known is not None:
            loads.engine.count(1)
            return known[0]  # type: ignore[no-any-return] # the cache is one of T
        alone = loads.engine.limit is None and not is_async(self._function)
        if alone or is_unequal(key):
            return self.map([item])[0]  # nobody to gather with
        weight = loads.admit(key, item)
        call = PortalCall(get_portal(proxy._backend))
        caller = _caller(loads.engine, self._function, call, None)
        box: list[Any] = []
        call.run(loads.load_into, box, key, item, weight, caller)
        outcome = box.pop()
        if isinstance(outcome, Failure):
            try:
                raise outcome.error.with_traceback(outcome.traceback)
            finally:
                outcome.restore()
                del outcome, caller, call  # this frame is in the traceback now: a cycle
        return outcome  # type: ignore[no-any-return] # as above
