"""The libraries that `peers.py` compares, each used as its documentation says."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterable
from typing import Any, ClassVar, NoReturn

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, SplitBatch
from batchproxy.stores import MemoryStore
from proof.peers_library import InThreads, Library, failing


class Refused(Exception):
    """What a service says to a batch that it does not take."""


BATCHPROXY_REMARKS = {
    "one of many single keys is cancelled": "If the one in whose task the call runs leaves, "
    "another makes it anew.",
    "results are unwritten, and asked for again": "In a store; what a mapping of the user's could "
    "not take is paid for again, as the documentation says.",
}


class BatchproxyAsync(Library):
    distribution = module = "batchproxy"
    remarks = BATCHPROXY_REMARKS

    def make(
        self,
        batch_size: Any = None,
        limit: int = 8,
        bound: Any = None,
        key: Any = None,
        **more: Any,
    ) -> Any:
        self.cache = more.get("store", Cache(bound))
        proxy = AsyncBatchingMapProxy[Any, Any](batch_size, limit, key=key, cache=self.cache)
        self.bound = proxy.bind(self.function)
        return proxy

    async def map(self, items: Iterable[Any]) -> list[Any]:
        answers: list[Any] = await self.object.map(items, self.function)
        return answers

    async def load(self, key: Any) -> Any:
        return await self.bound.load(key)

    async def clear(self) -> None:
        await self.object.clear()

    async def forget(self, key: Any) -> None:
        self.cache.invalidate([key])

    async def close(self) -> None:
        await self.object.aclose()

    @staticmethod
    def store() -> Any:
        return Cache()

    @staticmethod
    def mapping(failures: int) -> Any:
        return failing(dict, "__setitem__", failures)

    @classmethod
    def unreliable(cls, failures: int) -> Any:
        return Cache(store=failing(MemoryStore, "publish_many", failures), namespace="peers")

    @staticmethod
    def refuse() -> NoReturn:
        raise SplitBatch from Refused("refused")


NO_TASKS = {
    "tasks": "A thread that waits cannot be cancelled.",
    "loop": "It needs no event loop.",
    "ticks": "Threads have no ticks.",
}
NO_KEY = "It takes no key function."
NO_LIMIT = "It has no limit of calls at a time."
NO_SPLITS = "A batch that is refused has failed; the function may split it."
NO_BOUND = "It has no bound: its store is a dict, or the user's."
ASKS_FOR_A_LIST = "Its documentation asks for a list, or for a sequence."


class BatchproxySync(InThreads):
    distribution = module = "batchproxy"
    lacks = NO_TASKS
    remarks = BATCHPROXY_REMARKS

    def make(
        self,
        batch_size: Any = None,
        limit: Any = None,
        bound: Any = None,
        key: Any = None,
        **more: Any,
    ) -> Any:
        self.cache = more.get("store", Cache(bound))
        proxy = BatchingMapProxy[Any, Any](batch_size, limit, key=key, cache=self.cache)
        self.bound = proxy.bind(self.call)
        return proxy

    async def load(self, key: Any) -> Any:
        return await self.in_thread(self.bound.load, key)

    async def clear(self) -> None:
        self.object.clear()

    async def forget(self, key: Any) -> None:
        self.cache.invalidate([key])

    async def close(self) -> None:
        self.object.close()

    store = staticmethod(BatchproxyAsync.store)
    mapping = staticmethod(BatchproxyAsync.mapping)
    unreliable = BatchproxyAsync.unreliable
    refuse = staticmethod(BatchproxyAsync.refuse)


NOT_WHILE_MAPPING = "Its documentation says not to call clear() while a map() is under way."
STORE_RAISES = "What its store raises ends the map(), and what was paid for is lost."
KEEPS_ERRORS = "It keeps the errors of its last 128 calls, and with these what they were about."
OPENAIVEC_REMARKS = {
    "twenty callers of one failing call": "Those who wait call anew, one by one: twenty calls.",
    "clear() during a map": NOT_WHILE_MAPPING,
    "close() and the results": "Its documentation says that closing is clearing.",
    "a dict or a str as answer": ASKS_FOR_A_LIST,
    "a generator as input": ASKS_FOR_A_LIST,
    "a service refuses one item of a batch": "What was paid for beside it is lost with it.",
    "a cache of the user's cannot be written": STORE_RAISES,
    "results are unwritten, and asked for again": STORE_RAISES,
    "2,000 keys that fail": KEEPS_ERRORS,
    "2,000 keys of callers who leave": KEEPS_ERRORS,
}


OPENAIVEC_LACKS = {
    "key": NO_KEY,
    "loads": "It gathers no single keys.",
    "item failures": "An exception in an answer is a result like any other.",
}


class OpenaivecAsync(Library):
    distribution = "openaivec"
    module = "openaivec._cache"
    lacks = OPENAIVEC_LACKS
    remarks = OPENAIVEC_REMARKS

    def make(self, batch_size: int = 0, limit: int = 8, bound: Any = None, **more: Any) -> Any:
        return importlib.import_module(self.module).AsyncBatchCache(
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

    @classmethod
    def mapping(cls, failures: int) -> Any:
        return failing(type(cls.store()), "__setitem__", failures)

    @staticmethod
    def refuse() -> NoReturn:
        openai, httpx = (importlib.import_module(name) for name in ("openai", "httpx"))
        response = httpx.Response(400, request=httpx.Request("POST", "https://example.org"))
        raise openai.BadRequestError(
            "refused", response=response, body={"code": "context_length_exceeded"}
        )


class OpenaivecSync(InThreads):
    distribution = "openaivec"
    module = "openaivec._cache"
    lacks: ClassVar = {
        **NO_TASKS,
        **OPENAIVEC_LACKS,
        "limit": NO_LIMIT,  # each thread calls
    }
    remarks: ClassVar = {
        **OPENAIVEC_REMARKS,
        "a late failure and a newer entry": NOT_WHILE_MAPPING,
    }

    def make(self, batch_size: int = 0, bound: Any = None, **more: Any) -> Any:
        return importlib.import_module(self.module).BatchCache(
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
    mapping = OpenaivecAsync.mapping
    refuse = staticmethod(OpenaivecAsync.refuse)


class Loader(Library):
    """The dataloaders: alike, but for the names of a few things."""

    key_option: ClassVar[str]
    lacks: ClassVar[dict[str, str]] = {
        "limit": NO_LIMIT,
        "bound": NO_BOUND,
        "close": "It has nothing to close.",
        "splits": NO_SPLITS,
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

    async def load(self, key: Any) -> Any:
        return await self.object.load(key)

    async def clear(self) -> None:
        self.object.clear_all()

    async def forget(self, key: Any) -> None:
        self.object.clear(key)

    @staticmethod
    def mapping(failures: int) -> Any:
        return failing(dict, "__setitem__", failures)


WRITTEN_BEFORE = (
    "Its cache holds futures, and is written before the call: nothing is paid for then."
)
CANCELLED_STAYS = "A future that was cancelled stays in the cache."
FAILED_STAYS = "A future that failed stays in the cache until it is cleared."


class Aiodataloader(Loader):
    distribution = module = "aiodataloader"
    key_option = "get_cache_key"
    remarks: ClassVar = {
        **Loader.remarks,
        "one item fails, and is asked for again": "Its documentation says that it is kept.",
        "a cache of the user's cannot be written": WRITTEN_BEFORE,
        "results are unwritten, and asked for again": WRITTEN_BEFORE,
        "2,000 keys of callers who leave": CANCELLED_STAYS,
    }


class Strawberry(Loader):
    distribution = "strawberry-graphql"
    module = "strawberry.dataloader"
    key_option = "cache_key_fn"
    remarks: ClassVar = {
        **Loader.remarks,
        "a failed result is kept": FAILED_STAYS,
        "the second of three batches fails": FAILED_STAYS,
        "a list fails while another overlaps it": FAILED_STAYS,
        "one item fails, and is asked for again": FAILED_STAYS,
        "a cache of the user's cannot be written": WRITTEN_BEFORE,
        "results are unwritten, and asked for again": WRITTEN_BEFORE,
        "2,000 keys that fail": FAILED_STAYS,
        "2,000 keys of callers who leave": CANCELLED_STAYS,
    }

    @classmethod
    def mapping(cls, failures: int) -> Any:
        return failing(importlib.import_module(cls.module).DefaultCache, "set", failures)


CACHE_RAISES = "What its cache raises is raised for those keys of the call that come next."


class Dloader(Loader):
    distribution = module = "dloader"
    lacks: ClassVar = {
        "limit": NO_LIMIT,
        "bound": NO_BOUND,
        "splits": NO_SPLITS,
        "key": NO_KEY,
        "newer": "clear() leaves a call under way in its place: there is never a newer entry.",
    }
    remarks: ClassVar = {
        "clear() during a map": "clear() leaves a call under way in its place, which is kept.",
        "a dict or a str as answer": ASKS_FOR_A_LIST,
        "a cache of the user's cannot be written": CACHE_RAISES,
        "results are unwritten, and asked for again": CACHE_RAISES,
    }

    async def close(self) -> None:
        await self.object.shutdown()

    @staticmethod
    def store() -> Any:
        return {}


class AsyncLru(Library):
    """A cache of single calls; a list is mapped with ``asyncio.gather``."""

    distribution = "async-lru"
    module = "async_lru"
    lacks: ClassVar = {
        "limit": NO_LIMIT,
        "batches": "It knows no batches.",
        "item failures": "It knows no batches.",
        "splits": "It knows no batches.",
        "mapping": "Its results are in no mapping of the user's.",
        "lists": "It knows no lists.",
        "close": "It cannot share its results, and refuses calls when closed.",
        "equality": "It leaves open whether 1 and 1.0 are the same, as functools.lru_cache does.",
    }

    def make(self, bound: Any = None, key: Any = None, **more: Any) -> Any:
        async def call(item: Any) -> Any:
            return (await self.function([item]))[0]

        return importlib.import_module(self.module).alru_cache(maxsize=bound, key=key)(call)

    async def map(self, items: Iterable[Any]) -> list[Any]:
        return await asyncio.gather(*map(self.object, items))

    async def load(self, key: Any) -> Any:
        return await self.object(key)

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
