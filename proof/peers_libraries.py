"""The libraries that `peers.py` compares, each used as its documentation says."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import os
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, ClassVar

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache

Function = Callable[[list[Any]], Awaitable[Any]]


class Library(ABC):
    """One object of a library: it maps lists by `function`, and remembers the results.

    `lacks` says what scenarios need that it has no means for, and why; `remarks` what there is to
    say if a scenario does not end well: mostly, that its documentation rules that use out.
    """

    distribution: ClassVar[str]
    lacks: ClassVar[dict[str, str]] = {}
    remarks: ClassVar[dict[str, str]] = {}

    def __init__(self, function: Function, **options: Any) -> None:
        self.function = function
        try:
            self.object = self.make(**options)
        except Exception:  # used wrongly, so that nothing can be said about it
            traceback.print_exc()
            os._exit(1)

    @abstractmethod
    def make(self, **options: Any) -> Any: ...

    @abstractmethod
    async def map(self, items: Iterable[Any]) -> list[Any]: ...

    @abstractmethod
    async def clear(self) -> None: ...

    async def forget(self, key: Any) -> None:
        await self.clear()

    async def close(self) -> None:
        raise NotImplementedError

    @staticmethod
    def store() -> Any:
        """Where two objects can keep their results together."""
        raise NotImplementedError


class InThreads(Library):
    """A synchronous object: a thread for each ``map()``, and `function` in the loop of all."""

    async def map(self, items: Iterable[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()

        def call(batch: list[Any]) -> Any:
            async def answer() -> Any:
                return await self.function(batch)

            return asyncio.run_coroutine_threadsafe(answer(), loop).result()

        outcome: Future[list[Any]] = Future()

        def run() -> None:
            try:
                outcome.set_result(self.object.map(items, call))
            except BaseException as error:
                outcome.set_exception(error)

        context = contextvars.copy_context()  # so that a nested map() knows what it is nested in
        threading.Thread(target=context.run, args=(run,), daemon=True).start()
        return await asyncio.wrap_future(outcome)


class BatchproxyAsync(Library):
    distribution = "batchproxy"

    def make(
        self,
        batch_size: Any = None,
        limit: int = 8,
        bound: Any = None,
        key: Any = None,
        **more: Any,
    ) -> Any:
        self.cache = more.get("store", Cache(bound))
        return AsyncBatchingMapProxy[Any, Any](batch_size, limit, key=key, cache=self.cache)

    async def map(self, items: Iterable[Any]) -> list[Any]:
        answers: list[Any] = await self.object.map(items, self.function)
        return answers

    async def clear(self) -> None:
        await self.object.clear()

    async def forget(self, key: Any) -> None:
        self.cache.invalidate([key])

    async def close(self) -> None:
        await self.object.aclose()

    @staticmethod
    def store() -> Any:
        return Cache()


NO_TASKS = {
    "tasks": "A thread that waits cannot be cancelled.",
    "loop": "It needs no event loop.",
}
NO_KEY = "It takes no key function."
NO_LIMIT = "It has no limit of calls at a time."
NO_BOUND = "It has no bound: its store is a dict, or the user's."
ASKS_FOR_A_LIST = "Its documentation asks for a list, or for a sequence."


class BatchproxySync(InThreads):
    distribution = "batchproxy"
    lacks = NO_TASKS

    def make(
        self,
        batch_size: Any = None,
        limit: Any = None,
        bound: Any = None,
        key: Any = None,
        **more: Any,
    ) -> Any:
        self.cache = more.get("store", Cache(bound))
        return BatchingMapProxy[Any, Any](batch_size, limit, key=key, cache=self.cache)

    async def clear(self) -> None:
        self.object.clear()

    async def forget(self, key: Any) -> None:
        self.cache.invalidate([key])

    async def close(self) -> None:
        self.object.close()

    store = staticmethod(BatchproxyAsync.store)


NOT_WHILE_MAPPING = "Its documentation says not to call clear() while a map() is under way."
OPENAIVEC_REMARKS = {
    "twenty callers of one failing call": "Those who wait call anew, one by one: twenty calls.",
    "clear() during a map": NOT_WHILE_MAPPING,
    "a late failure and a newer entry": NOT_WHILE_MAPPING,
    "close() and the results": "Its documentation says that closing is clearing.",
    "a dict or a str as answer": ASKS_FOR_A_LIST,
    "a generator as input": ASKS_FOR_A_LIST,
}


class OpenaivecAsync(Library):
    distribution = "openaivec"
    lacks: ClassVar = {"key": NO_KEY}
    remarks = OPENAIVEC_REMARKS

    def make(self, batch_size: int = 0, limit: int = 8, bound: Any = None, **more: Any) -> Any:
        return importlib.import_module("openaivec._cache").AsyncBatchCache(
            batch_size=batch_size,  # 0 is all in one call; None would choose by measured times
            max_concurrency=limit,
            max_cache_size=bound,
            cache=more.get("store", self.store()),
            show_progress=False,
        )

    async def map(self, items: Iterable[Any]) -> list[Any]:
        answers: list[Any] = await self.object.map(items, self.function)
        return answers

    async def clear(self) -> None:
        await self.object.clear()

    async def close(self) -> None:
        await self.object.aclose()

    @staticmethod
    def store() -> Any:
        return importlib.import_module("openaivec._cache._backend").InMemoryCacheBackend()


class OpenaivecSync(InThreads):
    distribution = "openaivec"
    lacks: ClassVar = {
        **NO_TASKS,
        "key": NO_KEY,
        "limit": NO_LIMIT,  # each thread calls
    }
    remarks = OPENAIVEC_REMARKS

    def make(self, batch_size: int = 0, bound: Any = None, **more: Any) -> Any:
        return importlib.import_module("openaivec._cache").BatchCache(
            batch_size=batch_size,
            max_cache_size=bound,
            cache=more.get("store", self.store()),
            show_progress=False,
        )

    async def clear(self) -> None:
        self.object.clear()

    async def close(self) -> None:
        self.object.close()

    store = staticmethod(OpenaivecAsync.store)


class Loader(Library):
    """The dataloaders: alike, but for the names of a few things."""

    module: ClassVar[str]
    key_option: ClassVar[str]
    lacks: ClassVar[dict[str, str]] = {
        "limit": NO_LIMIT,
        "bound": NO_BOUND,
        "close": "It has nothing to close.",
    }
    remarks: ClassVar[dict[str, str]] = {
        "a second event loop": "Its documentation says to make a loader for each request.",
        "a dict or a str as answer": ASKS_FOR_A_LIST,
    }

    def make(self, batch_size: Any = None, key: Any = None, **more: Any) -> Any:
        options: dict[str, Any] = {} if key is None else {self.key_option: key}
        if "store" in more:
            options["cache_map"] = more["store"]
        loader = importlib.import_module(self.module).DataLoader
        return loader(self.function, max_batch_size=batch_size, **options)

    async def map(self, items: Iterable[Any]) -> list[Any]:
        answers: list[Any] = await self.object.load_many(items)
        return answers

    async def clear(self) -> None:
        self.object.clear_all()

    async def forget(self, key: Any) -> None:
        self.object.clear(key)


class Aiodataloader(Loader):
    distribution = module = "aiodataloader"
    key_option = "get_cache_key"


class Strawberry(Loader):
    distribution = "strawberry-graphql"
    module = "strawberry.dataloader"
    key_option = "cache_key_fn"


class Dloader(Loader):
    distribution = module = "dloader"
    lacks: ClassVar = {
        "limit": NO_LIMIT,
        "bound": NO_BOUND,
        "key": NO_KEY,
        "newer": "clear() leaves a call under way in its place: there is never a newer entry.",
    }
    remarks: ClassVar = {
        "clear() during a map": "clear() leaves a call under way in its place, which is kept.",
        "a dict or a str as answer": ASKS_FOR_A_LIST,
    }

    async def close(self) -> None:
        await self.object.shutdown()

    @staticmethod
    def store() -> Any:
        return {}


class AsyncLru(Library):
    """A cache of single calls; a list is mapped with ``asyncio.gather``."""

    distribution = "async-lru"
    lacks: ClassVar = {
        "limit": NO_LIMIT,
        "batches": "It knows no batches.",
        "lists": "It knows no lists.",
        "close": "It cannot share its results, and refuses calls when closed.",
        "equality": "It leaves open whether 1 and 1.0 are the same, as functools.lru_cache does.",
    }

    def make(self, bound: Any = None, key: Any = None, **more: Any) -> Any:
        async def call(item: Any) -> Any:
            return (await self.function([item]))[0]

        return importlib.import_module("async_lru").alru_cache(maxsize=bound, key=key)(call)

    async def map(self, items: Iterable[Any]) -> list[Any]:
        return await asyncio.gather(*map(self.object, items))

    async def clear(self) -> None:
        self.object.cache_clear()

    async def forget(self, key: Any) -> None:
        self.object.cache_invalidate(key)


LIBRARIES: dict[str, type[Library]] = {
    "batchproxy": BatchproxyAsync,
    "batchproxy, sync": BatchproxySync,
    "openaivec": OpenaivecAsync,
    "openaivec, sync": OpenaivecSync,
    "aiodataloader": Aiodataloader,
    "strawberry": Strawberry,
    "dloader": Dloader,
    "async-lru": AsyncLru,
}
