"""The function behind its proxy, called from the main thread, which alone sees Ctrl-C."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from anyio import current_effective_deadline

from .._answers import accept
from .._async import AsyncBatchingMapProxy
from .._cache import Cache
from .._caller import is_async
from .._counters import Statistics
from .._loops import running_loop
from .._portal import PortalCall, get_portal
from .._progress import Progress
from .._sync import BatchingMapProxy
from ._keys import key_of
from ._results import Results

ASYNC_CONCURRENCY = 8

_MEANT = (Exception, KeyboardInterrupt, SystemExit)
"""What goes on into the map(): the last two end it, by the will of who raised them."""


class Ended(Exception):
    """The function raised, or answered with, what is no `Exception`: that is its ``__cause__``.

    A `CancelledError` of a client library, say. To a map() that would be the end; here it is the
    failure of some rows.
    """


class _Asynchronous(BaseException):
    """The function has answered with what is to be awaited; no failure, and in no list of them."""


class Calls:
    """Maps windows of items through `function`, synchronous or not.

    What is no coroutine function may still be asynchronous, behind a decorator: that is seen from
    what it answers, and its calls are begun anew. An asynchronous function runs in an event loop of
    `backend` in a thread of its own, so that a function that blocks the loop does not block Ctrl-C.

    Args:
        function: From a list of items to their results.
        cache: Where these are kept, ...
        results: ... and how.
        batch_size: Items in a call.
        max_concurrency: The most calls at a time; None for what is right for the function.
        backend: The kind of event loop.
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Any],
        cache: Cache[Any],
        results: Results,
        batch_size: int,
        max_concurrency: int | None,
        backend: Literal["asyncio", "trio"],
    ) -> None:
        self._function = function
        self._cache = cache
        self._results = results
        self._batch_size = batch_size
        self._max_concurrency = max_concurrency
        self._backend: Literal["asyncio", "trio"] = backend
        # What may end the map() under way, by identity, with the items that failed.
        self._blame: dict[int, tuple[BaseException, list[Any]]] = {}
        self._keep_failures = False
        # What was done before the function turned out to be asynchronous.
        self._earlier: dict[str, int] = {}
        self._begin(asynchronous=is_async(function))

    def _begin(self, *, asynchronous: bool) -> None:
        self._proxy: BatchingMapProxy[Any, Any] | AsyncBatchingMapProxy[Any, Any]
        if asynchronous:
            self._proxy = AsyncBatchingMapProxy(
                self._batch_size,
                self._max_concurrency or ASYNC_CONCURRENCY,
                key=key_of,
                cache=self._cache,
            )
        else:
            self._proxy = BatchingMapProxy(
                self._batch_size,
                self._max_concurrency,
                key=key_of,
                cache=self._cache,
                backend=self._backend,
            )

    def map(
        self, items: list[Any], *, keep_failures: bool, progress: Callable[[Progress], object]
    ) -> list[Any]:
        """The results of `items`, as of ``proxy.map()``."""
        self._blame, self._keep_failures = {}, keep_failures
        before = self._proxy.statistics()
        try:
            return self._map(items, progress)
        except _Asynchronous:
            self._carry_over(before)
            self._begin(asynchronous=True)
            return self._map(items, progress)

    def _map(self, items: list[Any], progress: Callable[[Progress], object]) -> list[Any]:
        proxy, keep = self._proxy, self._keep_failures
        if isinstance(proxy, BatchingMapProxy):
            return proxy.map(items, self._call, return_exceptions=keep, progress=progress)
        results: list[Any] = []

        async def in_loop() -> None:
            results.extend(
                await proxy.map(items, self._call_async, return_exceptions=keep, progress=progress)
            )

        PortalCall(get_portal(self._backend)).run(in_loop)
        return results

    def statistics(self) -> Statistics:
        """What has been done so far."""
        now = self._proxy.statistics()
        added = {name: getattr(now, name) + more for name, more in self._earlier.items()}
        return replace(now, **added)

    def _carry_over(self, before: Statistics) -> None:
        """Count what was done; `before` is from before the map() that is begun anew.

        Calls that were given up are made again. What the store had it is asked for again, too, and
        then it also has what was computed meanwhile: these are no hits.
        """
        done = self._proxy.statistics()
        self._earlier = {
            "calls": done.completed + done.failed,
            "completed": done.completed,
            "failed": done.failed,
            "computed": done.computed,
            "shared": before.shared,
            "stored": before.stored + before.computed - done.computed,
        }

    def items_of(self, error: BaseException) -> list[Any]:
        """Those that the call, or the item, that failed with `error` had; none if it is unknown."""
        return self._blame.get(id(error), (error, []))[1]

    def _call(self, items: list[Any]) -> list[Any]:
        try:
            answer = self._function(items)
            if not inspect.isawaitable(answer):
                return self._listed(answer, items)
        except _MEANT as error:
            self._note(error, items)
            raise
        except BaseException as error:
            raise self._ended(items) from error
        if inspect.iscoroutine(answer):
            answer.close()  # it has not begun
        raise _Asynchronous

    async def _call_async(self, items: list[Any]) -> list[Any]:
        try:
            answer = self._function(items)
            if inspect.isawaitable(answer):
                answer = await answer
            return self._listed(answer, items)
        except _MEANT as error:
            self._note(error, items)
            raise
        except BaseException as error:
            if _from_outside(error):
                raise
            raise self._ended(items) from error

    def _listed(self, answer: Any, items: list[Any]) -> list[Any]:
        """A mapping is by item, and not by what `key_of` gives."""
        results = accept(answer, items).results
        return [self._kept(result, item) for result, item in zip(results, items)]

    def _kept(self, result: Any, item: Any) -> Any:
        if not isinstance(result, BaseException):
            try:
                return self._results.kept(result)
            except (TypeError, RecursionError) as error:
                result = error
        elif not isinstance(result, Exception):
            ended = self._ended([item])
            ended.__cause__ = result
            return ended
        self._note(result, [item])
        return result

    def _ended(self, items: list[Any]) -> Ended:
        ended = Ended()
        self._note(ended, items)
        return ended

    def _note(self, error: BaseException, items: list[Any]) -> None:
        if not (self._keep_failures and isinstance(error, Exception)):
            self._blame.setdefault(id(error), (error, items))


def _from_outside(error: BaseException) -> bool:
    """Whether it is the task that ends, and not the function alone."""
    if running_loop() is None:
        return True  # nobody awaits it any more, and its coroutine is closed
    return not isinstance(error, GeneratorExit) and current_effective_deadline() == -math.inf
