"""What does the same work cost with the libraries that people use today?

They are needed for nothing else: the group `peers` of pyproject.toml names them, and those that are
not installed are left out. All of them run on asyncio alone, one of them synchronously too. The
collector is off, which flatters them: they make a future or an event for every key.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
from measuring import Row, ratios, ratios_async
from work import BATCH, ITEMS, SINGLES, fetch, fetch_async

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy

CALLERS = [ITEMS[start : start + 10_000] for start in range(0, 10_000, 200)]  # 19,800 distinct

Map = Callable[[list[str]], Any]
NAMES = ["openaivec", "aiodataloader", "strawberry-graphql", "dloader", "async-lru", "diskcache"]


def installed() -> dict[str, str]:
    """The versions of those that are there."""
    versions = {}
    for name in NAMES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return versions


def openaivec(batch_size: int = BATCH) -> Map:
    """A new AsyncBatchCache, the proxy that this library's design comes from."""
    cache = importlib.import_module("openaivec._cache").AsyncBatchCache(
        batch_size=batch_size, show_progress=False
    )
    return lambda items: cache.map(items, fetch_async)


def openaivec_sync() -> Map:
    cache = importlib.import_module("openaivec._cache").BatchCache(
        batch_size=BATCH, show_progress=False
    )
    return lambda items: cache.map(items, fetch)


def _loader(module: str) -> Callable[[], Map]:
    def new() -> Map:
        loader = importlib.import_module(module).DataLoader(fetch_async, max_batch_size=BATCH)
        return lambda items: loader.load_many(items)

    return new


async def fetch_one(item: str) -> str:
    return item


def async_lru() -> Map:
    """A cache of single calls: it batches nothing, so only its hits do the same work."""
    cached = importlib.import_module("async_lru").alru_cache(maxsize=None)(fetch_one)

    async def load_many(items: list[str]) -> Any:
        return await asyncio.gather(*map(cached, items))

    return load_many


LOADERS = {
    "openaivec": openaivec,
    "aiodataloader": _loader("aiodataloader"),
    "strawberry-graphql": _loader("strawberry.dataloader"),
    "dloader": _loader("dloader"),
}


def ours(batch_size: int = BATCH) -> Map:
    proxy = AsyncBatchingMapProxy[str, str](batch_size)
    return lambda items: proxy.map(items, fetch_async)


def ours_sync() -> Map:
    proxy = BatchingMapProxy[str, str](BATCH)
    return lambda items: proxy.map(items, fetch)


async def asynchronous() -> AsyncIterator[Row]:
    """A long list cold and cached, overlapping callers, single keys."""
    here = installed()
    for name, new in LOADERS.items():
        if name in here:
            yield Row(
                "asyncio: 100,000 cold, in batches of 1,000",
                name,
                1 / 5,
                await ratios_async(lambda: ours()(ITEMS), lambda new=new: new()(ITEMS), rounds=7),  # type: ignore[misc] # its default
            )
    for name, new in {**LOADERS, "async-lru": async_lru}.items():
        if name in here:
            mine, theirs = ours(), new()
            await mine(ITEMS)
            await theirs(ITEMS)
            yield Row(
                "asyncio: 100,000 hits",
                name,
                1 / 4,
                await ratios_async(
                    lambda mine=mine: mine(ITEMS),  # type: ignore[misc] # its default
                    lambda theirs=theirs: theirs(ITEMS),  # type: ignore[misc] # its default
                    rounds=7,
                ),
            )
    if "openaivec" not in here:
        return

    async def all_at_once(load: Map) -> None:
        await asyncio.gather(*[load(items) for items in CALLERS])

    yield Row(
        "asyncio: 50 overlapping callers of 10,000 keys, 19,800 distinct",
        "openaivec",
        1 / 5,
        await ratios_async(lambda: all_at_once(ours()), lambda: all_at_once(openaivec()), rounds=7),
    )

    async def one_key_each(load: Map) -> None:
        for single in SINGLES:
            await load(single)

    yield Row(
        "asyncio: one-key miss",
        "openaivec",
        0.14,
        await ratios_async(lambda: one_key_each(ours()), lambda: one_key_each(openaivec())),
    )


def synchronous() -> Iterator[Row]:
    """The synchronous proxy of openaivec, which needs no event loop, against ours."""
    if "openaivec" not in installed():
        return
    yield Row(
        "sync: 100,000 cold, in batches of 1,000",
        "openaivec",
        1 / 5,
        ratios(lambda: ours_sync()(ITEMS), lambda: openaivec_sync()(ITEMS), rounds=7),
    )
    mine, theirs = ours_sync(), openaivec_sync()
    mine(ITEMS)
    theirs(ITEMS)
    yield Row(
        "sync: 100,000 hits",
        "openaivec",
        1 / 4,
        ratios(lambda: mine(ITEMS), lambda: theirs(ITEMS), rounds=7),
    )

    def one_key_each(load: Map) -> None:
        for single in SINGLES:
            load(single)

    yield Row(
        "sync: one-key hit",
        "openaivec",
        1 / 4,
        ratios(lambda: one_key_each(mine), lambda: one_key_each(theirs)),
    )


def rows() -> Iterator[Row]:
    """Everything above."""
    yield from synchronous()
    yield from anyio.run(_collect)


async def _collect() -> list[Row]:
    return [row async for row in asynchronous()]
