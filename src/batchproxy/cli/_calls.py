"""The function behind its proxy, called from the main thread, which alone sees Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from .._async import AsyncBatchingMapProxy
from .._cache import Cache
from .._caller import is_async
from .._portal import PortalCall, get_portal
from .._progress import Progress
from .._statistics import Statistics
from .._sync import BatchingMapProxy
from ._keys import by_items, by_items_async, key_of


class Calls:
    """Maps windows of items through `function`, synchronous or not.

    An asynchronous function runs in an event loop of `backend` in a thread of its own, so that a
    function that blocks the loop does not block Ctrl-C.
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Any],
        cache: Cache[Any],
        batch_size: int,
        max_concurrency: int | None,
        backend: Literal["asyncio", "trio"],
    ) -> None:
        self._backend: Literal["asyncio", "trio"] = backend
        self._proxy: BatchingMapProxy[Any, Any] | AsyncBatchingMapProxy[Any, Any]
        if is_async(function):
            self._function = by_items_async(function)
            self._proxy = AsyncBatchingMapProxy(
                batch_size, max_concurrency or 1, key=key_of, cache=cache
            )
        else:
            self._function = by_items(function)
            self._proxy = BatchingMapProxy(
                batch_size, max_concurrency, key=key_of, cache=cache, backend=backend
            )

    def map(
        self, items: list[Any], *, keep_failures: bool, progress: Callable[[Progress], object]
    ) -> list[Any]:
        """The results of `items`, as of ``proxy.map()``."""
        proxy, function = self._proxy, self._function
        if isinstance(proxy, BatchingMapProxy):
            return proxy.map(items, function, return_exceptions=keep_failures, progress=progress)
        results: list[Any] = []

        async def in_loop() -> None:
            results.extend(
                await proxy.map(items, function, return_exceptions=keep_failures, progress=progress)
            )

        PortalCall(get_portal(self._backend)).run(in_loop)
        return results

    def statistics(self) -> Statistics:
        """What has been done so far."""
        return self._proxy.statistics()
