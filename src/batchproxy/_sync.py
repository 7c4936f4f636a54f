"""BatchingMapProxy: the same engine in the portal, and how it calls functions of either kind."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Hashable, Iterable, MutableMapping
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from ._cache import Cache
from ._core.answers import Answer
from ._core.counters import Statistics
from ._core.plan import Plan
from ._core.progress import Progress, reporting
from ._engine.caller import is_async
from ._engine.callers import FromThread, InCallingThread, InPortal, InWorkerThread
from ._engine.engine import Engine, unpicklable
from ._engine.portal import PortalCall, get_portal
from ._messages import short

S = TypeVar("S")
T = TypeVar("T")


class BatchingMapProxy(Generic[S, T]):
    """Maps lists through a batch function, computing each distinct item once.

    The results of ``proxy.map(items, fetch)`` are those of ``fetch(items)``, one per item in the
    same order; but `fetch` is called with batches of distinct items that are neither cached nor
    being computed by anybody else who uses the same proxy or the same `Cache`.

    The synchronous twin of `AsyncBatchingMapProxy`, where all that is common is described. It runs
    the same engine, in the thread of an event loop that all synchronous proxies share; and takes
    asynchronous functions, too, which run in that event loop.

    Args:
        batch_size: As there.
        max_concurrency: None (the default): `map_func` runs in the calling thread, batch after
            batch, so that thread-locals and database connections work; different calling threads
            do not hold each other up. With a number, 1 or more, calls run in worker threads, at
            most so many at a time over all callers. An asynchronous `map_func` runs in the event
            loop in any case; None is one call after another of each ``map()``, and a number as
            there.
        key: As there.
        cache: As there.
        weight: As there.
        max_weight: As there.
        backend: ``"asyncio"`` (the default) or ``"trio"``: the kind of event loop that runs the
            engine, and an asynchronous `map_func`.

    Raises:
        TypeError: As there.
        ValueError: As there, or `backend` is not known.
        ImportError: `backend` is ``"trio"``, which is not installed.

    Threads: One proxy may be used from any number of threads, and a key is computed once among them
    all. After a ``fork`` the child can use it: it has the results, and none of the calls under way.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        max_concurrency: int | None = None,
        *,
        key: Callable[[S], Hashable] | None = None,
        cache: Cache[T] | MutableMapping[Any, T] | None = None,
        weight: Callable[[S], float] | None = None,
        max_weight: float | None = None,
        backend: Literal["asyncio", "trio"] = "asyncio",
    ) -> None:
        self._engine = Engine(batch_size, max_concurrency, key, cache, weight, max_weight)
        if backend not in ("asyncio", "trio"):
            raise ValueError(f"backend must be 'asyncio' or 'trio', got {short(backend)}")
        if backend == "trio" and importlib.util.find_spec("trio") is None:
            raise ImportError("backend='trio' needs trio: pip install 'batchproxy[trio]'")
        self._backend = backend

    @property
    def batch_size(self) -> int | None:
        """The most items in one call; None, 0 or less for one call with all that is missing."""
        return self._engine.batch_size

    @property
    def max_concurrency(self) -> int | None:
        """The most calls at a time; None if those of a ``map()`` are made one after another."""
        return self._engine.max_concurrency

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
        what that costs. See `AsyncBatchingMapProxy.map`; what differs:

        Args:
            items: As there.
            map_func: Any callable, asynchronous or not. It is given, and answers, as there. A
                coroutine function, a `functools.partial` of one, or an object whose ``__call__`` is
                one runs in the event loop. Any other runs where `max_concurrency` says; if its
                answer can be awaited, that is then done in the event loop.
            return_exceptions: As there.
            progress: As there. The function is called in the calling thread: while `map_func` runs
                there, it has to wait.

        Returns:
            A new list as long as `items`.

        Raises:
            Exception: As there, but that calls in worker threads are not cancelled: after a
                failure ``map()`` waits for its other running calls and keeps their results.
            AnswerTypeError: As there.
            AnswerValueError: As there.
            CircularWaitError: As there; and if it was called inside a running event loop, whose
                thread it blocks, for keys that a task of that very loop is computing.
            ClosedError: As there.
            PortalError: The process was forked inside this very ``map()`` (in the child), it was
                called in the thread of the portal, which is that of asynchronous functions, or that
                thread has died; no thread could be
                started; or there is something to compute at the end of the interpreter, in an
                ``atexit`` handler or later.
            StoreError: As there.
            TypeError: As there.
            ValueError: As there.
            ImportError: As there.

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
        kind: type[FromThread] = InWorkerThread
        if is_async(map_func):
            kind = InPortal
        elif engine.max_concurrency is None:
            kind = InCallingThread
        try:
            portal_call.run(engine.run, plan, kind(map_func, portal_call, report))
        finally:
            if report is not None:
                report.end()
        return engine.finish(plan)

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

    def __reduce__(self) -> Any:
        raise unpicklable(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine!r}>"
